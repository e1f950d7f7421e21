"""Downloads pictures by URL, each within limits of bytes, seconds and redirects."""

from __future__ import annotations

import re
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpcore

from app import __version__
from app.core.backoff import Backoff
from app.core.errors import (
    SightlineError,
    UrlNotAllowed,
    UrlUnreachable,
    Validation,
)
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.transport import REFUSED, UNREACHABLE, Deadline, GuardedBackend, Resolve, resolve
from app.sources.local_files import write_limited
from app.sources.stop_signal import ShouldStop, never_stop, raise_if_stopping

if TYPE_CHECKING:  # it takes a tenth of a second to import, and is for URLs alone
    import httpx

MAX_URL_CHARS = 2_048
MAX_REDIRECTS = 3
MAX_CONCURRENT = 16
MAX_PER_HOST = 4
STOP_POLL_SECONDS = 0.5
USER_AGENT = f"Sightline/{__version__}"
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
# Of a server that may answer the next time; 520 to 529 are of proxies like Cloudflare.
BUSY_STATUSES = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
MAX_TRIES = 5  # of one URL, of a server that is busy or breaks the connection
MAX_CONNECT_TRIES = 3  # of one that cannot be reached
MAX_SLOW_TRIES = 2  # of one that takes too long
BACKOFF_SECONDS = 0.5, 8.0  # before the first retry of a host, and at most
MAX_WAIT_SECONDS = 30.0  # a server that asks to wait longer is not waited for
MAX_PAUSE_SECONDS = 3_600.0  # after which a server that asked to wait longer is asked again
MAX_FAILURES = 12  # of a host in a row: after them each of its URLs gets one try, until one succeeds
MAX_HOSTS = 1_000  # whose state is kept
RECOVERY = 8  # answers of a host after which it gets one request more at once
BROKEN = "the server broke the connection, or gave no valid answer"
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
    """Either bytes at the path of the request, or `unchanged` when the ETag still holds, or an error.

    `max_tries`: how often in all such an error is worth a try. `retry_after`: seconds that the server asks to wait.
    """

    request: FetchRequest
    etag: str | None = None
    unchanged: bool = False
    error: SightlineError | None = None
    max_tries: int = 1
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """The bytes of a picture, and the seconds for everything: name, connection, redirects, bytes."""

    bytes: int = 32 << 20
    seconds: float = 15.0


class ServerBusy(UrlUnreachable):
    """The server may answer the next time; `pause` are the seconds that it asks to wait."""

    def __init__(self, detail: str, pause: float) -> None:
        super().__init__(detail)
        self.pause = pause


@dataclass(slots=True)
class _Host:
    """How a host fared so far, in this and in earlier calls. `ready_at` is on the monotonic clock."""

    running: int = 0
    limit: float = MAX_PER_HOST  # requests at once
    ready_at: float = 0.0
    failures: int = 0  # in a row
    backoff: Backoff = field(default_factory=lambda: Backoff(*BACKOFF_SECONDS))

    def note(self, result: FetchResult) -> None:
        """Slow down after a failure that may pass, and recover with every other answer."""
        if result.max_tries == 1:
            self.failures = 0
            self.backoff.reset()
            self.limit = min(MAX_PER_HOST, self.limit + 1 / RECOVERY)
            return
        self.failures += 1
        self.limit = 1
        pause = self.backoff.next() if self.failures < MAX_FAILURES else 0.0
        self.ready_at = max(self.ready_at, time.monotonic() + max(pause, result.retry_after))

    def is_worth_retrying(self, result: FetchResult, tries: int) -> bool:
        return tries < result.max_tries and self.failures < MAX_FAILURES and result.retry_after <= MAX_WAIT_SECONDS


@dataclass(slots=True)
class _Task:
    """One request of a list, at place `n`, and how often it was tried."""

    n: int
    request: FetchRequest
    host: _Host
    tries: int = 0


class HttpFetcher:
    """Downloads through connections that `policy` permits; uses no proxy, cookie, credential or variable.

    `network` makes connections and `resolve` turns names into addresses: tests that must not dial pass their own.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        limits: FetchLimits | None = None,
        *,
        user_agent: str = "",
        resolve: Resolve = resolve,
        network: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._policy = policy
        self._limits = limits or FetchLimits()
        self._user_agent = user_agent.strip() or USER_AGENT
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
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

        Tries again, a few times, what a busy server or a broken connection did not give, and slows that host down.
        Raises Overloaded, and leaves the rest, when the worker stops.
        """
        order = list(requests)
        waiting = deque(_Task(n, request, self._host(request.url)) for n, request in enumerate(order))
        running: dict[Future[FetchResult], _Task] = {}
        results: dict[int, FetchResult] = {}
        try:
            while waiting or running:
                for task in _take_startable(waiting, MAX_CONCURRENT - len(running), results):
                    running[self._workers.submit(self.fetch, task.request)] = task
                for future in self._wait(running, waiting, should_stop):
                    task = running.pop(future)
                    task.host.running -= 1
                    result = future.result()
                    task.host.note(result)
                    if task.host.is_worth_retrying(result, task.tries):
                        waiting.append(task)
                    else:
                        results[task.n] = result
        finally:
            for task in running.values():
                task.host.running -= 1
        return [results[n] for n in range(len(order))]

    def _host(self, url: str) -> _Host:
        """The state of the URL's host; that of the host which nobody asked for the longest time is forgotten."""
        name = host_of(url)
        host = self._hosts.pop(name, None) or _Host()
        self._hosts[name] = host
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        return host

    def _wait(
        self, running: dict[Future[FetchResult], _Task], waiting: Iterable[_Task], should_stop: ShouldStop
    ) -> set[Future[FetchResult]]:
        """Wait until a download ends, a host is ready again, or it is time to look whether the worker stops."""
        soonest = min((task.host.ready_at for task in waiting), default=0.0) - time.monotonic()
        seconds = min(STOP_POLL_SECONDS, max(soonest, 0.01)) if soonest > 0 else STOP_POLL_SECONDS
        done: set[Future[FetchResult]] = set()
        if running:
            done, _ = wait(running, seconds, FIRST_COMPLETED)
        elif soonest > 0:
            time.sleep(seconds)
        raise_if_stopping(should_stop)
        return done

    def fetch(self, request: FetchRequest) -> FetchResult:
        """Download one picture. Returns every error that a URL, a name server or a server can cause."""
        try:
            return self._follow(request, parse_url(request.url), Deadline(self._limits.seconds))
        except ServerBusy as error:
            return FetchResult(request, error=error, max_tries=MAX_TRIES, retry_after=error.pause)
        except SightlineError as error:
            if error.retryable:  # of our own disk, say
                raise
            return FetchResult(request, error=error)
        except httpcore.TimeoutException:
            slow = UrlUnreachable(f"it took longer than {self._limits.seconds:.0f} s")
            return FetchResult(request, error=slow, max_tries=MAX_SLOW_TRIES)
        except (httpcore.ConnectError, ssl.SSLError):
            return FetchResult(request, error=UrlUnreachable(UNREACHABLE), max_tries=MAX_CONNECT_TRIES)
        except (httpcore.NetworkError, httpcore.ProtocolError):
            return FetchResult(request, error=UrlUnreachable(BROKEN), max_tries=MAX_TRIES)

    def _follow(self, request: FetchRequest, url: httpx.URL, deadline: Deadline) -> FetchResult:
        for _ in range(MAX_REDIRECTS + 1):
            backend = GuardedBackend(self._policy, deadline, self._lookups, self._resolve, self._network)
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
                pool.stream("GET", to_httpcore(url), headers=_headers(url, request.etag, self._user_agent)) as response,
            ):
                if response.status not in REDIRECT_STATUSES:
                    return self._read(request, response)
                url = _resolve_redirect(url, get_header(response, b"location"))
        raise UrlUnreachable(f"it redirects more than {MAX_REDIRECTS} times")

    def _read(self, request: FetchRequest, response: httpcore.Response) -> FetchResult:
        if response.status == 304 and request.etag is not None:
            return FetchResult(request, request.etag, unchanged=True)
        if response.status in BUSY_STATUSES:
            seconds = parse_retry_after(get_header(response, b"retry-after"))
            asks = f", and asks to wait {seconds:.0f} s" if seconds else ""
            raise ServerBusy(f"the server is busy: it answered {response.status}{asks}", seconds)
        if response.status in (401, 403):
            raise UrlUnreachable(
                f"the server refuses us ({response.status}); some want a contact in SIGHTLINE_USER_AGENT"
            )
        if response.status != 200:
            raise UrlUnreachable(f"the server answered {response.status}")
        if get_header(response, b"content-encoding") not in (None, "identity"):
            raise UrlUnreachable("the server sends it compressed, against the request")
        stream: Callable[[], Iterator[bytes]] = response.iter_stream
        write_limited(request.path, stream(), self._limits.bytes)
        return FetchResult(request, get_header(response, b"etag"))


def parse_url(text: str) -> httpx.URL:
    """Parse a URL as the fetcher does. Raises Validation, UrlNotAllowed."""
    import httpx

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


def _take_startable(waiting: deque[_Task], room: int, results: dict[int, FetchResult]) -> Iterator[_Task]:
    """Take up to `room` tasks whose hosts are ready for them, and count their tries.

    A task whose host asks to wait too long fails at once; its result goes into `results`.
    """
    for _ in range(len(waiting)):
        if room <= 0:
            return
        task = waiting.popleft()
        host, now = task.host, time.monotonic()
        if host.ready_at - now > MAX_WAIT_SECONDS:
            error = UrlUnreachable(f"the server asked to wait {host.ready_at - now:.0f} s more")
            results[task.n] = FetchResult(task.request, error=error)
        elif host.running >= int(host.limit) or host.ready_at > now:
            waiting.append(task)
        else:
            host.running += 1
            task.tries += 1
            room -= 1
            yield task


def parse_retry_after(text: str | None) -> float:
    """Seconds by a `Retry-After`, which is a number or a date; 0 for none."""
    if text is None:
        return 0.0
    if text.strip().isdecimal():
        return min(float(text), MAX_PAUSE_SECONDS)
    with suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(text)
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        return min(max(0.0, seconds), MAX_PAUSE_SECONDS)
    return 0.0


def _resolve_redirect(url: httpx.URL, location: str | None) -> httpx.URL:
    """The URL that a redirect leads to. Raises UrlUnreachable, UrlNotAllowed."""
    import httpx

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


def to_httpcore(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _headers(url: httpx.URL, etag: str | None, user_agent: str) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"Host", url.netloc),
        (b"User-Agent", user_agent.encode("ascii")),
        (b"Accept", b"image/*"),
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
    ]
    return [*headers, (b"If-None-Match", etag.encode("latin-1"))] if etag else headers


def get_header(response: httpcore.Response, name: bytes) -> str | None:
    for key, value in response.headers:
        if key.lower() == name:
            return value.decode("latin-1")
    return None
