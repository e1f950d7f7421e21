"""Slow clients: what they keep waiting is closed, and others do not notice. The limits here are short ones."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api import timeouts
from app.api.concurrency import RequestLimits
from app.api.server import Server
from app.api.timeouts import ConnectionLimits, bind_protocol
from tests.app.api.asking import check_problem, make_picture
from tests.support.servers import RunningServer, wait_until

LIMIT = 0.5
LONG = 20.0  # seconds after which a connection that should have been closed never is, on a busy machine too
HOST = b"Host: localhost\r\n"
JSON_HEAD = b"POST /v1/search HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of little patience."""
    limits: dict[str, Any] = {f"{name}_seconds": LIMIT for name in ("header", "body", "idle", "write")}
    folder = tmp_path_factory.mktemp("hasty")
    with RunningServer(folder, workers=0, body_rate=1000, max_connections=400, **limits) as server:
        yield server


def connect(server: RunningServer, **options: int) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.socket()
    for name, value in options.items():
        connection.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    connection.settimeout(LONG)
    connection.connect((address.hostname, address.port))
    return connection


def send_slowly(connection: socket.socket, piece: bytes, pause: float = 0.05) -> float:
    """Send a piece again and again until the other side has closed; returns after how long."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() < began + LONG:
            connection.sendall(piece)
            connection.settimeout(pause)
            with contextlib.suppress(TimeoutError):
                connection.recv(1, socket.MSG_PEEK)
                break
    connection.settimeout(LONG)
    return time.monotonic() - began


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"GET /livez HTTP/1.1\r\n" + HOST, b"X-A: b\r\n"),
        (b"GET /livez HTTP/1.1\r\nX-A: ", b"b"),
        (b"G", b""),
    ],
    ids=["line by line", "byte by byte", "one byte and no more"],
)
def test_a_header_that_trickles_is_told_so_and_closed(first: bytes, piece: bytes, hasty_server: RunningServer) -> None:
    with connect(hasty_server) as connection:
        connection.sendall(first)
        assert LIMIT * 0.5 < send_slowly(connection, piece) < LONG
        status, headers, body = answer(connection)
        assert check_problem(json.loads(body), status, headers)["code"] == "timeout"
        assert (status, headers["connection"], headers["x-frame-options"]) == (408, "close", "DENY")
        assert connection.recv(1) == b""


@pytest.mark.parametrize("body", [b"Content-Length: 100000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"], ids=str)
def test_a_body_that_trickles_is_told_so_and_closed(body: bytes, hasty_server: RunningServer) -> None:
    with connect(hasty_server) as connection:
        connection.sendall(JSON_HEAD + body)
        send_slowly(connection, b"1\r\n \r\n" if b"chunked" in body else b" ")
        status, headers, told = answer(connection)
        assert check_problem(json.loads(told), status, headers)["code"] == "timeout"
        assert status == 408


def test_a_slow_body_of_some_speed_is_taken(hasty_server: RunningServer) -> None:
    """Four windows long, at four times the least rate: any piece is enough for the window that it comes in."""
    content = b'{"query": [{"text": "red"}]}'.ljust(8_000)
    with connect(hasty_server) as connection:
        connection.sendall(JSON_HEAD + b"Content-Length: 8000\r\n\r\n")
        for at in range(0, 8_000, 500):
            connection.sendall(content[at : at + 500])
            time.sleep(LIMIT / 4)
        assert answer(connection)[0] == 200


@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["nothing", "empty lines"])
def test_a_newcomer_that_asks_nothing_is_closed(sent: bytes, hasty_server: RunningServer) -> None:
    with connect(hasty_server) as connection:
        assert send_slowly(connection, sent) < LONG
        assert not connection.recv(100_000).startswith(b"HTTP/1.1 2")


def test_a_connection_is_closed_some_time_after_its_answer(hasty_server: RunningServer) -> None:
    with connect(hasty_server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        assert answer(connection)[0] == 200
        assert connection.recv(1) == b""


def test_several_requests_one_after_the_other_share_a_connection(hasty_server: RunningServer) -> None:
    """Longer than any limit altogether: each limit begins anew."""
    with connect(hasty_server) as connection:
        for _ in range(8):
            connection.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
            assert answer(connection)[0] == 200
            time.sleep(LIMIT / 3)


def test_requests_sent_at_once_are_answered_in_turn(hasty_server: RunningServer) -> None:
    with connect(hasty_server) as connection:
        connection.sendall(b"".join(b"GET /v1/stats HTTP/1.1\r\n" + HOST + b"X: %d\r\n\r\n" % n for n in range(5)))
        received = b""
        while part := connection.recv(1 << 16):
            received += part
        assert received.count(b"HTTP/1.1 200") == 5


def test_an_answer_may_take_as_long_as_it_needs(hasty_server: RunningServer) -> None:
    """There is no worker, so it waits to the end."""
    began = time.monotonic()
    assert hasty_server.upload(make_picture(), wait=LIMIT * 4).status_code == 202
    assert time.monotonic() - began > LIMIT * 3


def test_who_stops_reading_is_cut_off(hasty_server: RunningServer) -> None:
    size = 24 << 20
    image = hasty_server.upload(make_picture() + os.urandom(size), wait=0).json()["id"]
    with connect(hasty_server, SO_RCVBUF=1 << 16) as connection:
        connection.sendall(b"GET /v1/images/" + image.encode() + b"/file HTTP/1.1\r\n" + HOST + b"\r\n")
        time.sleep(LIMIT * 4)
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                received += len(part)
        assert received < size
    assert len(hasty_server.http.get(f"/v1/images/{image}/file").content) > size  # whoever reads gets it all


def test_others_are_served_while_hundreds_trickle(hasty_server: RunningServer) -> None:
    until = time.monotonic() + 3 * LIMIT
    slow: list[socket.socket] = []
    served = 0
    while served < 4 or time.monotonic() < until:
        while len(slow) < 200:
            slow.append(connect(hasty_server))
            slow[-1].sendall(b"GET /livez HTTP/1.1\r\nX: ")
        for connection in list(slow):
            try:
                connection.sendall(b"x")
            except OSError:
                slow.remove(connection)
                connection.close()
        assert hasty_server.http.get("/v1/stats").status_code == 200
        served += 1
    for connection in slow:
        connection.close()


def test_more_connections_than_there_may_be_are_refused_in_a_word(hasty_server: RunningServer) -> None:
    opened: list[socket.socket] = []
    try:
        told = b""
        began = time.monotonic()
        while b"503" not in told and time.monotonic() < began + LONG:
            opened += [connect(hasty_server) for _ in range(450)]
            connection = opened[-1]
            with contextlib.suppress(OSError):
                told = connection.recv(1 << 16)
        head, _, body = told.partition(b"\r\n\r\n")
        assert b"overloaded" in body
        assert b"retry-after: 1" in head.lower()
    finally:
        for connection in opened:
            connection.close()
    served: Callable[[], int] = lambda: hasty_server.http.get("/livez").status_code  # noqa: E731
    while served() != 200:
        assert time.monotonic() < began + LONG
        time.sleep(0.05)


@contextlib.contextmanager
def small_server(connections: int = 99, searches: int = 2, reads: int = 2) -> Iterator[tuple[str, int]]:
    """A small application behind our protocol, which holds so many connections and each of them for long.

    Searches and reads last until it is asked for `/enough`.
    """
    enough = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/enough":
            enough.set()
        if scope["path"].startswith("/v1/") and scope["method"] == "GET":
            await enough.wait()
        await Response("here")(scope, receive, send)

    limits = ConnectionLimits(connections=connections, idle=LONG, header=LONG)
    protocol = bind_protocol(limits, RequestLimits(searches, reads))
    server = Server(uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None))
    listener = socket.create_server(("127.0.0.1", 0))
    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(lambda: asyncio.run(server.serve(sockets=[listener])))
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = server.force_exit = True
            serving.result(LONG)


GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"


def open_request(address: tuple[str, int], sent: bytes = GET) -> socket.socket:
    connection = socket.create_connection(address, timeout=LONG)
    connection.sendall(sent)
    return connection


def test_who_owes_a_request_for_longest_gives_way_to_a_newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "MIN_IDLE_SECONDS", 0.0)
    with small_server(3) as address, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_request(address, sent)) for sent in (b"", b"GET / HT", GET)]
        assert answer(opened[2])[0] == 200
        for oldest in opened:  # each newcomer stays, and takes the place of one
            newcomer = stack.enter_context(open_request(address))
            assert answer(newcomer)[0] == 200
            told = oldest.recv(1 << 16)
            assert told == b"" or told.startswith(b"HTTP/1.1 503")
            assert bool(told) == (oldest is not opened[2])  # who has had an answer is owed none


def test_nobody_gives_way_before_he_had_the_time_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "MIN_IDLE_SECONDS", LONG)
    with small_server(3) as address, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_request(address, b"")) for _ in range(3)]
        assert answer(stack.enter_context(open_request(address, b"")))[0] == 503
        for connection in opened:
            connection.sendall(GET)
            assert answer(connection)[0] == 200


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/search?q=red", "searches"), ("/v1/images", "reads")], ids=["searches", "reads"]
)
def test_requests_past_their_limit_are_refused_and_others_are_not(path: str, name: str) -> None:
    request = f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n"
    with small_server() as address, contextlib.ExitStack() as stack:

        def ask(sent: bytes) -> socket.socket:
            return stack.enter_context(open_request(address, sent))

        for _ in range(5):  # clients that send a body slowly count for nothing yet
            ask(JSON_HEAD + b"Content-Length: 9\r\n\r\n{")
        assert answer(ask(GET))[0] == 200
        under_way = [ask(request) for _ in range(2)]
        wait_until(lambda: answer(ask(request))[0] == 503, LONG)
        status, headers, body = answer(ask(request))
        problem = check_problem(json.loads(body), status, headers)
        assert (problem["code"], headers["retry-after"]) == ("overloaded", "1")
        assert problem["detail"] == f"too many {name} at once: the limit is 2; try again in a moment"
        if name == "searches":  # refused before its body is sent
            assert answer(ask(JSON_HEAD + b"Content-Length: 9\r\n\r\n"))[0] == 503
        assert answer(ask(b"GET /enough HTTP/1.1\r\n" + HOST + b"\r\n"))[0] == 200
        assert [answer(each)[0] for each in under_way] == [200, 200]
        assert answer(ask(request))[0] == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 400_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 400_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
        (b"\x16\x03\x01\x00\xa5 this is TLS", 400),
        (b"GET http://localhost HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ],
    ids=["a header", "an address", "TLS", "no path"],
)
def test_what_is_no_request_is_refused_in_the_one_shape(
    request_: bytes, status: int, hasty_server: RunningServer
) -> None:
    with connect(hasty_server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request_)
        told, headers, body = answer(connection)
        assert told == status
        assert check_problem(json.loads(body), status, headers)["code"] == "bad_request"


def test_nothing_else_is_spoken_here(hasty_server: RunningServer) -> None:
    with connect(hasty_server) as connection:
        connection.sendall(
            b"GET /livez HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert answer(connection)[0] == 200
    assert "pgrade" not in hasty_server.output()
