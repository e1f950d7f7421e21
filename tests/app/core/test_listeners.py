"""`localhost` is served on both of its addresses."""

from __future__ import annotations

import errno
import socket

import pytest

from app.core.listeners import open_listeners


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_localhost_is_both_loopback_addresses_on_one_port() -> None:
    four, six = open_listeners("localhost", 0)
    with four, six:
        port = four.getsockname()[1]
        assert (four.getsockname()[0], six.getsockname()[:2]) == ("127.0.0.1", ("::1", port))
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=5).close()
        with pytest.raises(OSError, match="in use"):
            open_listeners("localhost", port)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_a_port_that_is_taken_on_one_of_them_is_taken() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            open_listeners("localhost", port)
        socket.create_server(("127.0.0.1", port)).close()  # nothing is left listening


def test_localhost_works_on_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    bind = socket.socket.bind

    def refuse_ipv6(self: socket.socket, address: tuple[str, int]) -> None:
        if self.family is socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        bind(self, address)

    monkeypatch.setattr(socket.socket, "bind", refuse_ipv6)
    (only,) = open_listeners("localhost", 0)
    with only:
        assert only.getsockname()[0] == "127.0.0.1"
