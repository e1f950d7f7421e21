"""Posts small bodies to URLs that callers named, through connections that the address policy permits."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

import httpcore

from app.core.errors import SightlineError, UrlNotAllowed, UrlUnreachable
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.http import (
    BROKEN,
    REDIRECT_STATUSES,
    USER_AGENT,
    get_header,
    parse_retry_after,
    parse_url,
    to_httpcore,
)
from app.sources.fetch.transport import REFUSED, UNREACHABLE, Deadline, GuardedBackend, Resolve, resolve

MAX_CONCURRENT = 8
GONE = 410  # a server that answers it wants no more


@dataclass(frozen=True, slots=True)
class PostResult:
    """Delivered, or why not. `retry_after`: seconds that the server asks to wait; `is_gone`: it wants no more."""

    error: str | None = None
    retry_after: float = 0.0
    is_gone: bool = False


class HttpPoster:
    """Follows no redirect, and reads no body of an answer. `network` and `resolve` are as those of HttpFetcher."""

    def __init__(
        self,
        policy: AddressPolicy,
        seconds: float,
        *,
        user_agent: str = "",
        resolve: Resolve = resolve,
        network: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._policy = policy
        self._seconds = seconds
        self._user_agent = user_agent.strip() or USER_AGENT
        self._resolve = resolve
        self._network = network
        self._tls = ssl.create_default_context()
        self._lookups = ThreadPoolExecutor(MAX_CONCURRENT, "resolve")

    def close(self) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def check_url(self, text: str) -> None:
        """Refuse what can never be posted to. A name is looked up when something is posted.

        Raises Validation, UrlNotAllowed.
        """
        host = parse_url(text).host.strip("[]")
        with suppress(ValueError):
            ip_address(host)
            if not self._policy.permits(host):
                raise UrlNotAllowed(REFUSED)

    def post(self, url: str, headers: dict[str, str], body: bytes) -> PostResult:
        """Send a body of JSON. Returns every error that a URL, a name server or a server can cause."""
        try:
            return self._post(url, headers, body)
        except SightlineError as error:
            return PostResult(error.detail)
        except httpcore.TimeoutException:
            return PostResult(f"it took longer than {self._seconds:.0f} s")
        except (httpcore.ConnectError, ssl.SSLError):
            return PostResult(UNREACHABLE)
        except (httpcore.NetworkError, httpcore.ProtocolError):
            return PostResult(BROKEN)

    def _post(self, url: str, headers: dict[str, str], body: bytes) -> PostResult:
        parsed = parse_url(url)
        sent = {
            "Host": parsed.netloc.decode("ascii"),
            "User-Agent": self._user_agent,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Accept-Encoding": "identity",
            "Connection": "close",
            **headers,
        }
        pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in sent.items()]
        deadline = Deadline(self._seconds)
        backend = GuardedBackend(self._policy, deadline, self._lookups, self._resolve, self._network)
        with (
            httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
            pool.stream("POST", to_httpcore(parsed), headers=pairs, content=body) as response,
        ):
            return read_result(response)


def read_result(response: httpcore.Response) -> PostResult:
    if 200 <= response.status < 300:
        return PostResult()
    if response.status in REDIRECT_STATUSES:
        raise UrlUnreachable(f"the server redirects ({response.status}), which is not followed")
    wait = parse_retry_after(get_header(response, b"retry-after"))
    return PostResult(f"the server answered {response.status}", wait, is_gone=response.status == GONE)
