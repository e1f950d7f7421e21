"""Fetcher: pictures by URL, each within limits of bytes, seconds and redirects."""

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
    ImageTooLarge,
    Overloaded,
    SightlineError,
    UrlNotAllowed,
    UrlUnreachable,
    Validation,
    map_os_errors,
)
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.transport import REFUSED, Deadline, GuardedBackend, Resolve, resolve

MAX_URL_CHARS = 2_048
MAX_REDIRECTS = 3
MAX_CONCURRENT = 16
MAX_PER_HOST = 4
STOP_POLL_SECONDS = 0.5  # between two looks at whether to stop
USER_AGENT = f"Sightline/{__version__}"
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
# Whitespace, control characters and the backslash are read differently by different parsers.
ODD = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A URL, where its bytes are to go, and the ETag it had when its bytes came last."""

    url: str
    path: Path
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What came: bytes at the path, or `unchanged` when the ETag still holds, or an error."""

    wanted: FetchRequest
    etag: str | None = None
    unchanged: bool = False
    error: SightlineError | None = None


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Most bytes of a picture, and seconds for everything: name, connection, redirects, bytes."""

    bytes: int = 32 << 20
    seconds: float = 15.0


class HttpFetcher:
    """Fetches through connections that `policy` permits. No proxy, cookie, credential or environment has a say.

    `network` makes connections and `resolve` turns names into addresses: arguments for tests that must not dial.
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
        """Begin nothing more."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def fetch_all(
        self, wanted: Iterable[FetchRequest], stopping: Callable[[], bool] = lambda: False
    ) -> list[FetchResult]:
        """What came of each, in their order: TOGETHER at a time, PER_HOST of them from one host.

        Raises Overloaded, and leaves the rest, when it is `stopping`.
        """
        order = list(wanted)
        waiting = deque(enumerate(order))
        busy: Counter[str] = Counter()
        running: dict[Future[FetchResult], tuple[int, str]] = {}
        came: dict[int, FetchResult] = {}
        while waiting or running:
            for n, one in _startable(waiting, busy, MAX_CONCURRENT - len(running)):
                running[self._workers.submit(self.fetch, one)] = n, host_of(one.url)
            done, _ = wait(running, STOP_POLL_SECONDS, FIRST_COMPLETED)
            if stopping():
                raise Overloaded("the worker is stopping")
            for future in done:
                n, host = running.pop(future)
                busy[host] -= 1
                came[n] = future.result()
        return [came[n] for n in range(len(order))]

    def fetch(self, wanted: FetchRequest) -> FetchResult:
        """One picture. Never raises what a URL, a name server or a server can bring about."""
        try:
            return self._follow(wanted, parse_url(wanted.url), Deadline(self._limits.seconds))
        except SightlineError as error:
            if error.retryable:  # our own disk, say
                raise
            return FetchResult(wanted, error=error)
        except httpcore.TimeoutException:
            return FetchResult(wanted, error=UrlUnreachable(f"it took longer than {self._limits.seconds:.0f} s"))
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError):
            return FetchResult(wanted, error=UrlUnreachable("the server cannot be reached"))

    def _follow(self, wanted: FetchRequest, url: httpx.URL, deadline: Deadline) -> FetchResult:
        for _ in range(MAX_REDIRECTS + 1):
            backend = GuardedBackend(self._policy, deadline, self._lookups, self._resolve, self._network)
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
                pool.stream("GET", _core(url), headers=_headers(url, wanted.etag)) as response,
            ):
                if response.status not in REDIRECT_STATUSES:
                    return self._take(wanted, response)
                url = _next(url, _header(response, b"location"))
        raise UrlUnreachable(f"it redirects more than {MAX_REDIRECTS} times")

    def _take(self, wanted: FetchRequest, response: httpcore.Response) -> FetchResult:
        if response.status == 304 and wanted.etag is not None:
            return FetchResult(wanted, wanted.etag, unchanged=True)
        if response.status != 200:
            raise UrlUnreachable(f"the server answered {response.status}")
        if _header(response, b"content-encoding") not in (None, "identity"):
            raise UrlUnreachable("the server sends it compressed, which was not asked for")
        most = self._limits.bytes
        with map_os_errors(), open(wanted.path, "wb") as file:
            size = 0
            for part in _parts(response):
                size += len(part)
                if size > most:
                    raise ImageTooLarge(f"a picture may have {most} bytes")
                file.write(part)
        return FetchResult(wanted, _header(response, b"etag"))


def parse_url(text: str) -> httpx.URL:
    """The URL, read by the one parser that is used for fetching, too. Raises Validation, UrlNotAllowed."""
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
    """The host of a URL; empty for one that is refused anyway."""
    try:
        return parse_url(url).host
    except SightlineError:
        return ""


def _startable(
    waiting: deque[tuple[int, FetchRequest]], busy: Counter[str], room: int
) -> Iterator[tuple[int, FetchRequest]]:
    """Up to `room` of the waiting whose hosts are not yet asked for PER_HOST; they are counted in `busy`."""
    for _ in range(len(waiting)):
        if room <= 0:
            return
        n, one = waiting.popleft()
        host = host_of(one.url)
        if busy[host] >= MAX_PER_HOST:
            waiting.append((n, one))
            continue
        busy[host] += 1
        room -= 1
        yield n, one


def _next(url: httpx.URL, location: str | None) -> httpx.URL:
    """Where a redirect leads. Raises UrlUnreachable, UrlNotAllowed."""
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


def _core(url: httpx.URL) -> httpcore.URL:
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


def _header(response: httpcore.Response, name: bytes) -> str | None:
    for key, value in response.headers:
        if key.lower() == name:
            return value.decode("latin-1")
    return None


def _parts(response: httpcore.Response) -> Iterator[bytes]:
    stream: Callable[[], Iterator[bytes]] = response.iter_stream
    return stream()
