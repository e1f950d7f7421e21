"""Hostile multipart bodies over HTTP: each gets a refusal or a right answer, never a 500."""

from __future__ import annotations

import json
import random
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.app.api.asking import check_problem, check_refusal, field_part, file_part, form, make_picture, post_form, raw
from tests.support.servers import RunningServer, wait_until

PATHS = ["/v1/images", "/v1/images/bulk", "/v1/search/image", "/v1/classify"]
TYPES = [
    None,
    "",
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/mixed; boundary=xxx",
    "multipart/form-data; boundary=" + "x" * 10_000,
    "image/png",
]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: str(kind)[:30])
@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_no_form_is_refused(path: str, kind: str | None, server: RunningServer) -> None:
    body = form([file_part(make_picture())])
    response = server.http.post(path, content=body, headers={} if kind is None else {"Content-Type": kind})
    if (kind == "application/json" and path == "/v1/classify") or (kind is not None and kind.endswith("x" * 10_000)):
        check_refusal(response, 400, "bad_request")
    else:
        check_refusal(response, 415, "unsupported_media_type")


BROKEN = {
    "nothing": b"",
    "no boundary in it": b"hello",
    "only the end": b"--xxx--\r\n",
    "not closed": form([file_part(b"x")], last=False),
    "cut in a header": b'--xxx\r\nContent-Disposition: form-data; name="fi',
    "cut in a boundary": form([file_part(b"x")])[:-6],
    "no headers": b"--xxx\r\n\r\nx\r\n--xxx--\r\n",
    "no name": form([b"Content-Disposition: form-data\r\n\r\nx"]),
    "no disposition": form([b"Content-Type: text/plain\r\n\r\nx"]),
    "field without name": form([b'Content-Disposition: form-data; filename="a.png"\r\n\r\nx']),
    "bad header": form([b"Con tent\x01: x\r\n\r\nx"]),
    "name not UTF-8": form([file_part(b"x", name=b"\xff\xfe")]),
    "filename not UTF-8": form([file_part(b"x", filename=b"\xff\xfe.png")]),
    "field not UTF-8": form([field_part(b"caption", b"\xff\xfe"), file_part(make_picture())]),
    "file twice": form([file_part(make_picture()), file_part(make_picture())]),
    "file as text": form([field_part(b"file", b"x")]),
    "file under another name": form([file_part(make_picture(), name=b"picture")]),
    "a header of 100 kB": form([b"X-A: " + b"x" * 100_000 + b"\r\n" + file_part(make_picture())]),
    "ten thousand headers": form([b"X-A: x\r\n" * 10_000 + file_part(make_picture())]),
    "ten thousand fields": form([field_part(b"f", b"x")] * 10_000 + [file_part(make_picture())]),
    "a field of 2 MiB": form([field_part(b"caption", b"x" * (2 << 20)), file_part(make_picture())]),
    "many large fields": form([field_part(b"tags", b"x" * (1 << 20))] * 20 + [file_part(make_picture())]),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("path", PATHS)
def test_a_broken_form_is_refused(path: str, name: str, server: RunningServer) -> None:
    content = BROKEN[name]
    if path.endswith("bulk"):
        content = content.replace(b'name="file"', b'name="files"')
    response = post_form(server, path, content)
    if path.endswith("bulk") and response.status_code == 202:
        assert name in ("file twice", "field not UTF-8", "a header of 100 kB", "ten thousand headers")
        server.wait_job(response.json()["id"])
        return
    assert response.status_code in (400, 413, 415, 422), response.text
    check_refusal(response, response.status_code, response.json()["code"])
    assert response.json()["code"] in ("bad_request", "validation", "payload_too_large", "unsupported_media_type")


@pytest.mark.parametrize("name", ["not closed", "no name", "file twice", "name not UTF-8"])
def test_a_refused_form_leaves_no_files(name: str, server: RunningServer) -> None:
    post_form(server, "/v1/images", BROKEN[name])
    incoming = server.data_dir / "media" / ".incoming"
    wait_until(lambda: not list(incoming.iterdir()), 30)


def test_a_body_too_large_is_refused_by_its_length_at_once(server: RunningServer) -> None:
    for path in ("/v1/images", "/v1/search/image", "/v1/classify"):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=xxx\r\n"
        status, headers, body = raw(server, (head + f"Content-Length: {1 << 40}\r\n\r\n").encode())
        assert status == 413
        assert check_problem(json.loads(body), 413, headers)["code"] == "payload_too_large"


def test_a_chunked_body_too_large_is_refused_when_it_is(server: RunningServer) -> None:
    block = bytes(1 << 20)

    def stream_forever() -> object:
        yield form([file_part(b"")], last=False)[:-2]
        for _ in range(104):
            yield block

    for path in ("/v1/images", "/v1/search/image"):
        response = server.http.post(
            path,
            content=stream_forever(),  # type: ignore[arg-type]
            headers={"Content-Type": "multipart/form-data; boundary=xxx"},
        )
        check_refusal(response, 413, "payload_too_large")
    wait_until(lambda: not list((server.data_dir / "media" / ".incoming").iterdir()), 30)


def test_a_picture_over_its_limit_is_refused(server: RunningServer) -> None:
    large = make_picture() + bytes(96 << 20)
    check_refusal(server.upload(large), 422, "image_too_large")


def test_a_form_may_come_a_few_bytes_at_a_time(server: RunningServer) -> None:
    content = b"\r\n--xx\r\n-\r--xxx" + make_picture() + b"\r\n--xx"
    body = form([field_part(b"id", b"slow"), file_part(content, filename=b"slow.png")])
    rng = random.Random(5)
    pieces = []
    at = 0
    while at < len(body):
        size = rng.choice((1, 1, 2, 3, 7))
        pieces.append(body[at : at + size])
        at += size
    response = server.http.post(
        "/v1/images",
        content=iter(pieces),
        headers={"Content-Type": "multipart/form-data; boundary=xxx"},
    )
    check_refusal(response, 415, "unsupported_media_type")  # which it is only when read aright
    picture = make_picture() + b"\r\n--xx\r\n-\r--xx\r\n--"
    body = form([field_part(b"id", b"slow"), file_part(picture, filename=b"slow.png")])
    pieces = [body[at : at + 1] for at in range(len(body))]
    response = server.http.post(
        "/v1/images?wait=30",
        content=iter(pieces),
        headers={"Content-Type": "multipart/form-data; boundary=xxx"},
    )
    assert response.status_code == 200, response.text
    assert server.http.get("/v1/images/slow/file").content == picture


def test_whoever_hangs_up_leaves_nothing_behind(server: RunningServer) -> None:
    address = urlsplit(server.url)
    head = b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=xxx\r\n"
    body = form([file_part(make_picture())])
    written = len(server.lines)
    for cut in (0, 10, 100, len(body) - 2):
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:cut])
    wait_until(lambda: not list((server.data_dir / "media" / ".incoming").iterdir()), 30)
    assert server.http.get("/livez").status_code == 200
    assert "Traceback" not in "".join(server.lines[written:])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(caption=TEXT, tag=TEXT, key=TEXT, value=TEXT)
def test_any_text_comes_back_as_it_was(caption: str, tag: str, key: str, value: str, server: RunningServer) -> None:
    metadata = json.dumps({key: value})
    parts = [
        field_part(b"caption", caption.encode()),
        field_part(b"tags", tag.encode()),
        field_part(b"metadata", metadata.encode()),
        file_part(make_picture()),
    ]
    response = post_form(server, "/v1/images", form(parts, b"aVeryOddBoundary123"), "aVeryOddBoundary123")
    assert response.status_code == 202, response.text
    image = server.http.get(f"/v1/images/{response.json()['id']}").json()
    assert (image["caption"], image["tags"], image["metadata"]) == (caption, [tag], {key: value})
    patch = {"caption": value[::-1], "tags": [key], "metadata": {tag: caption}}
    changed = server.http.patch(f"/v1/images/{image['id']}", json=patch).json()
    assert {name: changed[name] for name in patch} == patch


ODD = [
    "a\0b",
    "‮evil‬",
    "\u200b\ufeff",
    "e\u0301 vs é",
    "😀👩‍👩‍👧",
    "\r\nX-Evil: 1",
    "<script>alert(1)</script>",
    "'; DROP TABLE images;--",
]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_odd_text_comes_back_as_it_was_and_reaches_no_header(text: str, server: RunningServer) -> None:
    response = server.upload(make_picture(), wait=0, caption=text, tags=[text], metadata=json.dumps({text: text}))
    assert response.status_code == 202, response.text
    image = response.json()
    assert (image["caption"], image["tags"], image["metadata"]) == (text, [text], {text: text})
    for path in ("", "/file"):
        answer = server.http.get(f"/v1/images/{image['id']}{path}")
        assert answer.status_code == 200
        assert not [name for name in answer.headers if "evil" in name.lower()]
