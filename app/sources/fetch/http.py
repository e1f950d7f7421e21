"""Downloads pictures by URL, each within limits of bytes, seconds and redirects."""

from __future__ import annotations

import re
import ssl
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import httpcore
import httpx

from app import __version__
from app.core.errors import (
    SightlineError,
    UrlNotAllowed,
    UrlUnreachable,
    Validation,
)
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.transport import REFUSED, Deadline, GuardedBackend, Resolve, resolve
from app.sources.local_files import write_limited
from app.sources.stop_signal import ShouldStop, never_stop, raise_if_stopping

MAX_URL_CHARS = 2_048
MAX_REDIRECTS = 3
MAX_CONCURRENT = 16
MAX_PER_HOST = 4
STOP_POLL_SECONDS = 0.5
USER_AGENT = f"Sightline/{__version__}"
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
# Parsers of URLs disagree about whitespace, control characters and backslashes.
ODD = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A URL, the path for its bytes, and the ETag of the bytes that are stored."""

    url: str
    path: Path
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class FetchResult:
    """Either bytes at the path of the request, or `unchanged` when the ETag still holds, or an error."""

    request: FetchRequest
    etag: str | None = None
    unchanged: bool = False
    error: SightlineError | None = None


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """The bytes of a picture, and the seconds for everything: name, connection, redirects, bytes."""

    bytes: int = 32 << 20
    seconds: float = 15.0


class HttpFetcher:
    """Downloads through connections that `policy` permits; uses no proxy, cookie, credential or variable.

    `network` makes connections and `resolve` turns names into addresses: tests that must not dial pass their own.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        limits: FetchLimits | None = None,
        *,
        resolve: Resolve = resolve,
        network: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._policy = policy
        self._limits = limits or FetchLimits()
        self._resolve = resolve
        self._network = network
        self._tls = ssl.create_default_context()
        self._workers = ThreadPoolExecutor(MAX_CONCURRENT, "fetch")
        self._lookups = ThreadPoolExecutor(MAX_CONCURRENT, "resolve")

    def close(self) -> None:
        """Begin no further download."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def fetch_all(self, requests: Iterable[FetchRequest], should_stop: ShouldStop = never_stop) -> list[FetchResult]:
        """Download MAX_CONCURRENT at a time, MAX_PER_HOST of them from one host; results in the order of the requests.

        Raises Overloaded, and leaves the rest, when the worker stops.
        """
        order = list(requests)
        waiting = deque(enumerate(order))
        busy: Counter[str] = Counter()
        running: dict[Future[FetchResult], tuple[int, str]] = {}
        results: dict[int, FetchResult] = {}
        while waiting or running:
            for n, request in _take_startable(waiting, busy, MAX_CONCURRENT - len(running)):
                running[self._workers.submit(self.fetch, request)] = n, host_of(request.url)
            done, _ = wait(running, STOP_POLL_SECONDS, FIRST_COMPLETED)
            raise_if_stopping(should_stop)
            for future in done:
                n, host = running.pop(future)
                busy[host] -= 1
                results[n] = future.result()
        return [results[n] for n in range(len(order))]

    def fetch(self, request: FetchRequest) -> FetchResult:
        """Download one picture. Returns every error that a URL, a name server or a server can cause."""
        try:
            return self._follow(request, parse_url(request.url), Deadline(self._limits.seconds))
        except SightlineError as error:
            if error.retryable:  # of our own disk, say
                raise
            return FetchResult(request, error=error)
        except httpcore.TimeoutException:
            return FetchResult(request, error=UrlUnreachable(f"it took longer than {self._limits.seconds:.0f} s"))
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError):
            return FetchResult(request, error=UrlUnreachable("the server cannot be reached"))

    def _follow(self, request: FetchRequest, url: httpx.URL, deadline: Deadline) -> FetchResult:
        for _ in range(MAX_REDIRECTS + 1):
            backend = GuardedBackend(self._policy, deadline, self._lookups, self._resolve, self._network)
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
                pool.stream("GET", _to_httpcore(url), headers=_headers(url, request.etag)) as response,
            ):
                if response.status not in REDIRECT_STATUSES:
                    return self._read(request, response)
                url = _resolve_redirect(url, _get_header(response, b"location"))
        raise UrlUnreachable(f"it redirects more than {MAX_REDIRECTS} times")

    def _read(self, request: FetchRequest, response: httpcore.Response) -> FetchResult:
        if response.status == 304 and request.etag is not None:
            return FetchResult(request, request.etag, unchanged=True)
        if response.status != 200:
            raise UrlUnreachable(f"the server answered {response.status}")
        if _get_header(response, b"content-encoding") not in (None, "identity"):
            raise UrlUnreachable("the server sends it compressed, against the request")
        stream: Callable[[], Iterator[bytes]] = response.iter_stream
        write_limited(request.path, stream(), self._limits.bytes)
        return FetchResult(request, _get_header(response, b"etag"))


def parse_url(text: str) -> httpx.URL:
    """Parse a URL as the fetcher does. Raises Validation, UrlNotAllowed."""
    if len(text) > MAX_URL_CHARS:
        raise Validation(f"a URL may have {MAX_URL_CHARS} characters")
    if ODD.search(text):
        raise UrlNotAllowed("a URL has no spaces, control characters or backslashes")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise Validation("this is not a URL") from None
    if url.scheme not in ("http", "https"):
        raise UrlNotAllowed("only http and https URLs are fetched")
    if url.userinfo:
        raise UrlNotAllowed("a URL must not hold a name or a password")
    if not url.host or not 0 < (url.port or 80) < 1 << 16:
        raise Validation("the URL names no host, or a port that there is not")
    return url


def host_of(url: str) -> str:
    """The host of a URL; empty for one that `fetch` refuses."""
    try:
        return parse_url(url).host
    except SightlineError:
        return ""


def _take_startable(
    waiting: deque[tuple[int, FetchRequest]], busy: Counter[str], room: int
) -> Iterator[tuple[int, FetchRequest]]:
    """Take up to `room` requests whose hosts have fewer than MAX_PER_HOST running, and count them in `busy`."""
    for _ in range(len(waiting)):
        if room <= 0:
            return
        n, request = waiting.popleft()
        host = host_of(request.url)
        if busy[host] >= MAX_PER_HOST:
            waiting.append((n, request))
            continue
        busy[host] += 1
        room -= 1
        yield n, request


def _resolve_redirect(url: httpx.URL, location: str | None) -> httpx.URL:
    """The URL that a redirect leads to. Raises UrlUnreachable, UrlNotAllowed."""
    if not location:
        raise UrlUnreachable("it redirects to nowhere")
    if ODD.search(location):
        raise UrlNotAllowed(REFUSED)
    try:
        target = parse_url(str(url.join(location)))
    except (httpx.InvalidURL, ValueError, Validation):
        raise UrlUnreachable("it redirects to something that is no URL") from None
    if url.scheme == "https" and target.scheme == "http":
        raise UrlNotAllowed("it redirects from https to http")
    return target


def _to_httpcore(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _headers(url: httpx.URL, etag: str | None) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"Host", url.netloc),
        (b"User-Agent", USER_AGENT.encode()),
        (b"Accept", b"image/*"),
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
    ]
    return [*headers, (b"If-None-Match", etag.encode("latin-1"))] if etag else headers


def _get_header(response: httpcore.Response, name: bytes) -> str | None:
    for key, value in response.headers:
        if key.lower() == name:
            return value.decode("latin-1")
    return None
