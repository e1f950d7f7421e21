"""Pictures by URL, from a server on the loopback that the policy of these tests permits, and nothing else."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from app.core.errors import Overloaded
from app.sources.fetch import http
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.http import MAX_FAILURES, MAX_PER_HOST, FetchLimits, FetchRequest, FetchResult, HttpFetcher
from tests.support.pictures import picture
from tests.support.web_servers import Answer, Recorder, WebServer, answer_slowly, content, status

RED = picture("red")


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def fetcher() -> Iterator[HttpFetcher]:
    fetcher = HttpFetcher(AddressPolicy(["127.0.0.1"]), FetchLimits(bytes=100_000, seconds=1.0))
    yield fetcher
    fetcher.close()


def get(fetcher: HttpFetcher, url: str, folder: Path, etag: str | None = None) -> FetchResult:
    return fetcher.fetch(FetchRequest(url, folder / "picture", etag))


def code(got: FetchResult) -> str | None:
    return got.error.code if got.error else None


def test_a_picture_comes_as_it_is(web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    web.pages["/a"] = content(RED, ETag='"1"')
    got = get(fetcher, f"{web.url}/a?x=1", tmp_path)
    assert (got.error, got.etag, got.unchanged) == (None, '"1"', False)
    assert (tmp_path / "picture").read_bytes() == RED
    sent = web.headers["/a"]
    assert sent["Host"] == web.url.removeprefix("http://")
    assert sent["User-Agent"].startswith("Sightline/")
    assert sent["Accept-Encoding"] == "identity"


def test_what_has_not_changed_does_not_come_again(web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    web.pages["/etag"] = content(RED, ETag='"2"')
    assert get(fetcher, f"{web.url}/etag", tmp_path, '"2"').unchanged
    assert not (tmp_path / "picture").exists()
    assert not get(fetcher, f"{web.url}/etag", tmp_path, '"1"').unchanged


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///etc/passwd", "url_not_allowed"),
        ("ftp://1.1.1.1/a", "url_not_allowed"),
        ("gopher://1.1.1.1/", "url_not_allowed"),
        ("http://user:secret@1.1.1.1/", "url_not_allowed"),
        ("http://user@1.1.1.1/", "url_not_allowed"),
        ("http://127.0.0.1\\@1.1.1.1/", "url_not_allowed"),
        ("http://1.1.1.1/a b", "url_not_allowed"),
        ("http://1.1.1.1/\ta", "url_not_allowed"),
        ("http://1.1.1.1/a\r\nHost: x", "url_not_allowed"),
        ("http://10.0.0.1/", "url_not_allowed"),
        ("http://[::1]/", "url_not_allowed"),
        ("http://[::ffff:169.254.169.254]/latest/meta-data", "url_not_allowed"),
        ("http:///a", "validation"),
        ("http://", "validation"),
        ("//1.1.1.1/a", "url_not_allowed"),
        ("no url", "url_not_allowed"),
        ("http://1.1.1.1:99999/", "validation"),
        ("http://" + "a" * 3_000, "validation"),
    ],
)
def test_odd_urls_are_refused_without_dialling(url: str, expected: str, tmp_path: Path) -> None:
    network = Recorder()
    fetcher = HttpFetcher(AddressPolicy(), network=network)
    try:
        assert code(get(fetcher, url, tmp_path)) == expected
    finally:
        fetcher.close()
    assert network.dialled == []


@pytest.mark.parametrize("host", ["0x7f000001", "2130706433", "0177.0.0.1", "127.1", "localhost", "①②⑦.⓪.⓪.①"])
def test_odd_spellings_of_this_machine_lead_nowhere(host: str, tmp_path: Path) -> None:
    network = Recorder()
    fetcher = HttpFetcher(AddressPolicy(), network=network)
    try:
        assert code(get(fetcher, f"http://{host}/", tmp_path)) in ("url_not_allowed", "url_unreachable", "validation")
    finally:
        fetcher.close()
    assert network.dialled == []


def test_an_inner_address_and_one_that_does_not_answer_look_alike_to_a_prober(tmp_path: Path) -> None:
    network = Recorder()
    fetcher = HttpFetcher(AddressPolicy(), network=network, resolve=lambda host, port: ["10.0.0.1"])
    try:
        inner = [get(fetcher, f"http://{name}/", tmp_path) for name in ("10.0.0.1", "intranet.example")]
    finally:
        fetcher.close()
    assert len({(code(got), got.error.detail if got.error else None) for got in inner}) == 1
    assert network.dialled == []


@pytest.mark.parametrize("code_", [301, 302, 303, 307, 308])
def test_redirects_are_followed(code_: int, web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    web.pages["/there"] = content(RED)
    web.pages["/here"] = status(code_, Location="/there")
    assert get(fetcher, f"{web.url}/here", tmp_path).error is None
    assert (tmp_path / "picture").read_bytes() == RED


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://127.0.0.2/", "url_not_allowed"),
        ("http://169.254.169.254/latest/", "url_not_allowed"),
        ("file:///etc/passwd", "url_not_allowed"),
        ("http://name:word@127.0.0.1/", "url_not_allowed"),
        ("http://127.0.0.1\\@1.1.1.1/", "url_not_allowed"),
        ("http://[", "url_unreachable"),
        ("", "url_unreachable"),
        ("/round", "url_unreachable"),
    ],
)
def test_every_hop_is_checked(
    location: str, expected: str, web: WebServer, fetcher: HttpFetcher, tmp_path: Path
) -> None:
    web.pages["/round"] = status(302, Location=location)
    web.asked["/round"] = 0
    assert code(get(fetcher, f"{web.url}/round", tmp_path)) == expected
    assert web.asked["/round"] == (4 if location == "/round" else 1)


@pytest.mark.parametrize("number", [201, 204, 304, 400, 401, 404, 500, 503])
def test_other_answers_are_no_pictures(number: int, web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    web.pages["/no"] = status(number)
    got = get(fetcher, f"{web.url}/no", tmp_path)
    assert code(got) == "url_unreachable"
    assert str(number) in str(got.error)


def test_bytes_are_bounded_whatever_was_declared(web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    web.pages["/declared"] = content(b"x" * 100_001)
    web.pages["/endless"] = answer_slowly(b"x" * 300_000, 0.0, step=10_000)
    web.pages["/just"] = content(b"x" * 100_000)
    assert code(get(fetcher, f"{web.url}/declared", tmp_path)) == "image_too_large"
    assert code(get(fetcher, f"{web.url}/endless", tmp_path)) == "image_too_large"
    assert code(get(fetcher, f"{web.url}/just", tmp_path)) is None


def test_compressed_answers_are_refused(web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    web.pages["/gzip"] = content(gzip.compress(b"x" * 90_000), Content_Encoding="gzip")
    assert code(get(fetcher, f"{web.url}/gzip", tmp_path)) == "url_unreachable"


@pytest.mark.parametrize("head", [True, False], ids=["headers", "body"])
def test_dripping_does_not_hold_us_up(head: bool, web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    web.pages["/drip"] = answer_slowly(b"x" * 100, 0.2, head=head)
    began = time.monotonic()
    got = get(fetcher, f"{web.url}/drip", tmp_path)
    assert code(got) == "url_unreachable"
    assert "longer than" in str(got.error)
    assert time.monotonic() - began < 15  # all of it would take 20 s at least


def test_a_server_that_is_away_is_said_to_be(fetcher: HttpFetcher, tmp_path: Path) -> None:
    gone = WebServer()
    gone.close()
    assert code(get(fetcher, gone.url, tmp_path)) == "url_unreachable"


def test_the_environment_has_no_say(
    web: WebServer, fetcher: HttpFetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    web.pages["/plain"] = content(RED)
    assert get(fetcher, f"{web.url}/plain", tmp_path).error is None
    assert "Authorization" not in web.headers["/plain"]


def test_many_come_in_order_and_few_at_a_time_from_one_host(
    web: WebServer, fetcher: HttpFetcher, tmp_path: Path
) -> None:
    web.reset_most()
    for n in range(24):
        web.pages[f"/{n}"] = answer_slowly(b"%d" % n, 0.005)
    wanted = [FetchRequest(f"{web.url}/{n}", tmp_path / str(n)) for n in range(24)]
    wanted.insert(5, FetchRequest("http://10.0.0.1/", tmp_path / "never"))
    came = fetcher.fetch_all(wanted)
    assert [got.request for got in came] == wanted
    assert [code(got) for got in came] == [None] * 5 + ["url_not_allowed"] + [None] * 19
    assert [(tmp_path / str(n)).read_bytes() for n in range(24)] == [b"%d" % n for n in range(24)]
    assert web.most <= MAX_PER_HOST
    assert fetcher.fetch_all([]) == []


def answers(*each: Answer) -> Answer:
    """Answer each request by the next function, and all after them by the last."""
    rest = list(each)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (rest.pop(0) if len(rest) > 1 else rest[0])(handler)

    return answer


def break_off(handler: BaseHTTPRequestHandler) -> None:
    """Promise more bytes than come."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x")


@pytest.mark.parametrize(
    "bad",
    [
        status(429, Retry_After="0"),
        *map(status, (500, 502, 503, 504, 522)),
        break_off,
        lambda handler: None,
    ],
)
def test_one_bad_moment_of_a_server_loses_nothing(
    bad: Answer, web: WebServer, fetcher: HttpFetcher, tmp_path: Path
) -> None:
    web.asked.clear()
    for n in range(6):
        web.pages[f"/{n}"] = answers(bad, content(b"%d" % n)) if n == 2 else content(b"%d" % n)
    came = fetcher.fetch_all([FetchRequest(f"{web.url}/{n}", tmp_path / str(n)) for n in range(6)])
    assert [code(got) for got in came] == [None] * 6
    assert [(tmp_path / str(n)).read_bytes() for n in range(6)] == [b"%d" % n for n in range(6)]
    assert web.asked["/2"] == 2


def test_a_limiter_of_requests_is_heeded(web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    moments: list[float] = []

    def one_a_second(handler: BaseHTTPRequestHandler) -> None:
        now = time.monotonic()
        if moments and now - moments[-1] < 0.2:
            status(429, Retry_After="1")(handler)
            return
        moments.append(now)
        content(b"x")(handler)

    for n in range(3):
        web.pages[f"/{n}"] = one_a_second
    came = fetcher.fetch_all([FetchRequest(f"{web.url}/{n}", tmp_path / str(n)) for n in range(3)])
    assert [code(got) for got in came] == [None] * 3


def test_a_server_that_asks_for_an_hour_is_asked_no_more(web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    web.asked.clear()
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    for n in range(20):
        web.pages[f"/{n}"] = status(503, Retry_After="3600" if n % 2 else later)
    came = fetcher.fetch_all([FetchRequest(f"{web.url}/{n}", tmp_path / str(n)) for n in range(20)])
    assert {code(got) for got in came} == {"url_unreachable"}
    assert all("wait 3" in str(got.error) for got in came)
    assert sum(web.asked.values()) <= MAX_PER_HOST


def test_a_host_that_stays_down_costs_one_try_a_url(
    web: WebServer, fetcher: HttpFetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BACKOFF_SECONDS", (0.01, 0.02))
    web.asked.clear()
    for n in range(100):
        web.pages[f"/{n}"] = status(503)
    came = fetcher.fetch_all([FetchRequest(f"{web.url}/{n}", tmp_path / str(n)) for n in range(100)])
    assert all("it answered 503" in str(got.error) for got in came)
    assert sum(web.asked.values()) <= 100 + MAX_FAILURES
    web.pages["/0"] = answers(content(b"x"), status(503), content(b"x"))
    (got,) = fetcher.fetch_all([FetchRequest(f"{web.url}/0", tmp_path / "0")])
    (again,) = fetcher.fetch_all([FetchRequest(f"{web.url}/0", tmp_path / "0")])
    assert (got.error, again.error) == (None, None)


def test_a_host_that_wants_a_contact_gets_the_operators(web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    def strict(handler: BaseHTTPRequestHandler) -> None:
        known = re.search(r"\+https?://|@", handler.headers["User-Agent"])
        (content(RED) if known else status(403))(handler)

    web.pages["/strict"] = strict
    refused = get(fetcher, f"{web.url}/strict", tmp_path)
    assert "the server refuses us (403)" in str(refused.error)
    assert "SIGHTLINE_USER_AGENT" in str(refused.error)
    polite = HttpFetcher(AddressPolicy(["127.0.0.1"]), user_agent="Sightline (+https://example.org; me@example.org)")
    try:
        assert get(polite, f"{web.url}/strict", tmp_path).error is None
    finally:
        polite.close()


def test_a_stopping_worker_waits_for_no_more(web: WebServer, fetcher: HttpFetcher, tmp_path: Path) -> None:
    web.asked.clear()
    for n in range(24):
        web.pages[f"/{n}"] = answer_slowly(b"%d" % n, 0.05)
    with pytest.raises(Overloaded):
        fetcher.fetch_all([FetchRequest(f"{web.url}/{n}", tmp_path / str(n)) for n in range(24)], lambda: True)
    assert sum(web.asked.values()) <= MAX_PER_HOST
