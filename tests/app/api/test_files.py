"""What a client has already is not sent again, and HEAD is answered wherever GET is."""

from __future__ import annotations

import time
from email.utils import formatdate, parsedate_to_datetime

import httpx2 as httpx
import pytest
from starlette.datastructures import Headers

from app.api.files import is_not_modified
from app.api.permissions import ROUTE_SCOPES
from tests.app.api.asking import make_picture, upload_ready
from tests.app.api.guarded import Guarded
from tests.reliability.proofs.roles import fill_path
from tests.support.servers import RunningServer, wait_until

GETS = sorted(call.split(" ")[1] for call in ROUTE_SCOPES if call.startswith("GET"))
OF_ITS_MOMENT = ("date", "x-request-id", "content-length")


@pytest.mark.parametrize("path", [path for path in GETS if not path.endswith("/events")])
def test_head_is_answered_as_get_is_without_a_body(path: str, guarded: Guarded) -> None:
    address = fill_path(guarded, path, "default")
    got, head = guarded.ask("admin", "GET", address), guarded.ask("admin", "HEAD", address)
    assert (head.status_code, head.content) == (got.status_code, b"")
    if path not in ("/metrics", "/readyz", "/v1/stats"):
        assert head.headers.get("content-length") == got.headers.get("content-length")
    assert {name: value for name, value in head.headers.items() if name not in OF_ITS_MOMENT} == {
        name: value for name, value in got.headers.items() if name not in OF_ITS_MOMENT
    }
    stranger = guarded.ask("none", "HEAD", address)
    assert stranger.status_code == guarded.ask("none", "GET", address).status_code


def test_head_of_a_stream_of_events_does_not_wait_for_the_job(server: RunningServer) -> None:
    job = server.bulk([("a.png", make_picture())])
    server.http.post(f"/v1/jobs/{job['id']}/pause")
    head = server.http.head(f"/v1/jobs/{job['id']}/events", timeout=5)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")
    server.http.post(f"/v1/jobs/{job['id']}/resume")
    server.wait_job(job["id"])


@pytest.mark.parametrize("kind", ["file", "thumbnail"])
def test_bytes_that_a_client_has_are_not_sent_again(kind: str, server: RunningServer) -> None:
    path = f"/v1/images/{upload_ready(server)['id']}/{kind}"
    first = server.http.get(path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for sent in (etag, f'"other", {etag}', "*", etag.removeprefix("W/")):
        for again in (server.http.get(path, headers={"If-None-Match": sent}), server.http.head(path)):
            assert again.content == b""
        again = server.http.get(path, headers={"If-None-Match": sent})
        assert (again.status_code, again.headers["etag"]) == (304, etag)
        assert "content-length" not in again.headers
    parts = {"If-None-Match": etag, "Range": "bytes=0-3"}
    assert server.http.get(path, headers=parts).status_code == 304
    assert server.http.get(path, headers={"If-None-Match": '"other"'}).content == first.content


def test_new_bytes_of_an_id_are_sent_to_who_has_the_old_ones(server: RunningServer) -> None:
    old, new = make_picture(), make_picture("blue")
    path = f"/v1/images/{server.upload(old, id='cached').json()['id']}/file"
    wait_until(
        lambda: time.time() > parsedate_to_datetime(server.http.get(path).headers["last-modified"]).timestamp() + 1, 5
    )
    known = server.http.get(path).headers
    since = {"If-Modified-Since": known["last-modified"]}
    assert server.http.get(path, headers=since).status_code == 304
    assert server.http.get(path, headers={**since, "If-None-Match": '"other"'}).status_code == 200
    replaced = server.http.post(
        "/v1/images?replace=true&wait=30", files={"file": ("a.png", new)}, data={"id": "cached"}
    )
    assert replaced.status_code == 200, replaced.text
    at_once = {"If-Modified-Since": formatdate(time.time(), usegmt=True)}
    for headers in ({"If-None-Match": known["etag"]}, since, at_once):
        answer = server.http.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (200, new), headers
    part = server.http.get(path, headers={"Range": "bytes=0-3", "If-Range": known["etag"]})
    assert (part.status_code, part.content) == (200, new)
    server.http.delete("/v1/images/cached")
    assert server.http.get(path, headers={"If-None-Match": "*"}).status_code == 404


@pytest.mark.parametrize("path", ["/", "/docs", "/web/main.js", "/web/css/page.css"])
def test_the_page_is_not_sent_again(path: str, server: RunningServer) -> None:
    for encoding in ("gzip", "identity"):
        first = server.http.get(path, headers={"Accept-Encoding": encoding})
        assert first.headers["cache-control"] == "no-cache"
        again = server.http.get(path, headers={"Accept-Encoding": encoding, "If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("sent", "is_known"),
    [
        ({}, False),
        ({"If-Modified-Since": "Thu, 01 Jan 1970 00:01:40 GMT"}, True),
        ({"If-Modified-Since": "Thu, 01 Jan 1970 00:01:39 GMT"}, False),
        ({"If-Modified-Since": "nonsense"}, False),
        ({"If-Modified-Since": "Thu, 01 Jan 99999 00:00:00 GMT"}, False),
        ({"If-None-Match": '"b", W/"a"'}, True),
        ({"If-None-Match": '"b"', "If-Modified-Since": "Thu, 01 Jan 1970 00:01:40 GMT"}, False),
        ({"If-None-Match": ""}, False),
    ],
)
def test_what_a_client_has_by_its_headers(sent: dict[str, str], is_known: bool) -> None:
    assert is_not_modified(Headers(sent), '"a"', 100) is is_known


def test_a_part_that_cannot_be_served_is_refused_and_the_file_is_whole_afterwards(server: RunningServer) -> None:
    content = make_picture()
    path = f"/v1/images/{server.upload(content).json()['id']}/file"
    refused = server.http.get(path, headers={"Range": f"bytes={len(content)}-"})
    assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{len(content)}")
    assert server.http.get(path).content == content
    whole = server.http.get(path, headers={"Range": "pages=1-2"})
    assert (whole.status_code, whole.content) == (200, content)


def ask_as_browser(server: RunningServer, path: str) -> httpx.Response:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    answer: httpx.Response = server.http.get(path, headers={"Accept": accept})
    return answer


@pytest.mark.parametrize(
    ("path", "home"),
    [
        ("/nothing", "./"),
        ("/docs/", "../"),
        ("/a/b%2Fc/d", "../../"),
        ("/search?q=a+dog%22%3E%3Cscript%3E", "./?q=a+dog%22%3E%3Cscript%3E"),
    ],
)
def test_a_person_who_mistypes_an_address_gets_a_page(path: str, home: str, server: RunningServer) -> None:
    answer = ask_as_browser(server, path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert f'<a class="button" href="{home}">' in answer.text
    assert "<script" not in answer.text
    assert server.http.get(path).headers["content-type"] == "application/problem+json"
    assert ask_as_browser(server, "/v1/images/nothing").headers["content-type"] == "application/problem+json"
    accept = {"Accept": "application/json, text/html;q=0.5"}
    assert server.http.get(path, headers=accept).headers["content-type"] == "application/problem+json"
