"""Listening sockets of one address; `localhost` is two, as clients take either of its addresses first."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, suppress

LOOPBACK = ("127.0.0.1", "::1")
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # a machine without IPv6, or without IPv4
TRIES = 20  # to find a port that is free on both addresses


def open_listeners(host: str, port: int, backlog: int = 128) -> list[socket.socket]:
    """Listen on a host name or address; port 0 is a free one. Raises OSError when the port is taken."""
    if host != "localhost":
        return [_listen(host, port, backlog)]
    for _ in range(0 if port else TRIES):
        with suppress(OSError):
            return _listen_on_loopback(0, backlog)
    return _listen_on_loopback(port, backlog)


def _listen_on_loopback(port: int, backlog: int) -> list[socket.socket]:
    with ExitStack() as opened:
        listeners: list[socket.socket] = []
        for address in LOOPBACK:
            taken = listeners[0].getsockname()[1] if listeners else port
            try:
                listeners.append(opened.enter_context(_listen(address, taken, backlog)))
            except OSError as error:
                if error.errno not in NO_SUCH_ADDRESS or (address == LOOPBACK[-1] and not listeners):
                    raise
        opened.pop_all()
    return listeners


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it. Without it an answer's second packet waits 40 ms for the client to confirm the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener
