"""Connections for `httpcore`: resolves a name once, checks every address, and connects to an address it has checked."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import Any, Protocol

import httpcore

from app.core.errors import UrlNotAllowed, UrlUnreachable

Resolve = Callable[[str, int], list[str]]
UNREACHABLE = "the server cannot be reached"
REFUSED = "this server does not connect to that address"


class ConnectionPolicy(Protocol):
    """Which addresses a connection may lead to."""

    def permits(self, text: str, /) -> bool: ...


def resolve(host: str, port: int) -> list[str]:
    """Every address of a name, from the resolver of this machine. Raises OSError."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


class Deadline:
    """The moment `seconds` from now, on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then. Raises httpcore.ReadTimeout when there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("it took too long")
        return left


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to addresses that `policy` permits, until `deadline`.

    `dial` makes the connection; `lookups` runs `resolve`, which has no time limit of its own.
    """

    def __init__(
        self,
        policy: ConnectionPolicy,
        deadline: Deadline,
        lookups: Executor,
        resolve: Resolve = resolve,
        dial: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._policy = policy
        self._deadline = deadline
        self._lookups = lookups
        self._resolve = resolve
        self._dial = dial or httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises UrlNotAllowed when the policy forbids one of the host's addresses: a mixed answer is an attack."""
        addresses = self._addresses(host.strip("[]"), port)
        if not addresses or not all(self._policy.permits(address) for address in addresses):
            raise UrlNotAllowed(REFUSED)
        stream = self._connect_first(addresses, port)
        peer = stream.get_extra_info("server_addr")
        if peer is None or not self._policy.permits(str(peer[0])):
            stream.close()
            raise UrlNotAllowed(REFUSED)
        return PunctualStream(stream, self._deadline)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise UrlNotAllowed(REFUSED)

    def _connect_first(self, addresses: list[str], port: int) -> httpcore.NetworkStream:
        """A connection to the first of the addresses that takes one: `localhost` is often two, and one listens."""
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError):
                return self._dial.connect_tcp(address, port, timeout=self._deadline.left())
        return self._dial.connect_tcp(addresses[-1], port, timeout=self._deadline.left())

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            return self._lookups.submit(self._resolve, host, port).result(self._deadline.left())
        except Late:
            raise httpcore.ConnectTimeout("the name could not be resolved in time") from None
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise httpcore.ConnectError(str(error)) from None
            raise UrlUnreachable(UNREACHABLE) from None  # there is no such name, also the next time
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from None


class PunctualStream(httpcore.NetworkStream):
    """A stream whose every step ends at `deadline`, so that a server that drips bytes cannot hold it."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left())
        return PunctualStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
