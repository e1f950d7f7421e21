"""Posts to receivers that take, refuse, redirect, hang, break off and drip; and addresses that are never dialled."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.core.errors import UrlNotAllowed, Validation
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.http_post import HttpPoster
from tests.support.receivers import Receiver
from tests.support.web_servers import Recorder

LOCAL = AddressPolicy(["127.0.0.1"])
HEADERS = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,x"}


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A URL whose one connection is handed to `serve`."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with listening.accept()[0] as connection:
            connection.recv(65_536)
            serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    thread.join(10)
    listening.close()


def post(url: str, seconds: float = 10.0, policy: AddressPolicy = LOCAL) -> str | None:
    """The error of a post; None if it was taken."""
    poster = HttpPoster(policy, seconds)
    try:
        return poster.post(url, HEADERS, b'{"a":1}').error
    finally:
        poster.close()


def test_a_post_arrives_with_its_headers_and_body() -> None:
    with Receiver(200) as receiver:
        assert post(receiver.url) is None
        ((id, message),) = receiver.messages
        assert (id, message) == ("msg_1", {"a": 1})
        assert receiver.headers["content-type"] == "application/json"
        assert receiver.headers["user-agent"].startswith("Sightline/")


@pytest.mark.parametrize(
    ("status", "error", "is_gone"),
    [
        (500, "answered 500", False),
        (410, "answered 410", True),
        (404, "answered 404", False),
        (307, "redirect", False),
    ],
)
def test_what_is_not_taken_says_why(status: int, error: str, is_gone: bool) -> None:
    with Receiver(status) as receiver:
        poster = HttpPoster(LOCAL, 10.0, user_agent="Mine (+https://example.org)")
        result = poster.post(receiver.url, HEADERS, b"{}")
        poster.close()
        assert error in (result.error or "")
        assert result.is_gone is is_gone
        assert len(receiver.messages) == 1
        assert receiver.headers["user-agent"] == "Mine (+https://example.org)"


def test_a_receiver_may_ask_to_wait() -> None:
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 77\r\nContent-Length: 0\r\n\r\n"
    with raw_server(lambda connection: connection.sendall(answer)) as url:
        poster = HttpPoster(LOCAL, 10.0)
        assert poster.post(url, HEADERS, b"{}").retry_after == 77.0
        poster.close()


def test_one_that_hangs_or_drips_ends_in_time() -> None:
    def drip(connection: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" * 3:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                return
            time.sleep(0.05)

    with raw_server(drip) as url:
        assert "longer than" in (post(url, 0.4) or "")
    with Receiver() as receiver:
        receiver.delay.clear()
        assert "longer than" in (post(receiver.url, 0.3) or "")


def test_one_that_breaks_off_or_talks_nonsense_is_told() -> None:
    for answer in (b"", b"nonsense\r\n\r\n"):
        with raw_server(lambda connection, answer=answer: connection.sendall(answer)) as url:  # type: ignore[misc]
            assert "broke the connection" in (post(url) or "")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nobody = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    assert "cannot be reached" in (post(nobody) or "")


def test_a_long_answer_is_not_read() -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                connection.sendall(b"x" * 65_536)
        except OSError:  # it hangs up
            return

    with raw_server(flood) as url:
        assert post(url) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "::ffff:10.0.0.7"])
def test_a_name_of_a_private_address_is_never_dialled(address: str) -> None:
    network = Recorder()
    poster = HttpPoster(AddressPolicy(), 5.0, resolve=lambda host, port: [address], network=network)
    assert "does not connect" in (poster.post("http://hook.example.org/", HEADERS, b"{}").error or "")
    poster.close()
    assert network.dialled == []


def test_a_url_is_checked_when_it_is_given() -> None:
    poster = HttpPoster(AddressPolicy(), 5.0)
    poster.check_url("https://example.org/hook?key=1")
    for url in ("http://10.0.0.7/", "http://[::1]:8080/", "gopher://example.org/", "http://a:b@example.org/"):
        with pytest.raises(UrlNotAllowed):
            poster.check_url(url)
    for url in ("https://" + "x" * 2_100, "http://"):
        with pytest.raises(Validation):
            poster.check_url(url)
    assert "only http" in (poster.post("ftp://example.org/", HEADERS, b"{}").error or "")
    poster.close()
