"""Run a web server on the loopback, and record connections instead of making them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpcore

from tests.support.servers import wait_until

Answer = Callable[[BaseHTTPRequestHandler], None]


class Recorder(httpcore.NetworkBackend):
    """Records the addresses to dial, and refuses every connection."""

    def __init__(self) -> None:
        self.dialled: list[tuple[str, int]] = []

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        self.dialled.append((host, port))
        raise httpcore.ConnectError("nobody is dialled here")


class WebServer:
    """Answers each path of `pages` by its function; counts requests, and the most that ran at once."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.pages: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}
        self.most = self._now = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                with outer._lock:
                    outer.asked[path] += 1
                    outer.headers[path] = dict(self.headers.items())
                    outer._now += 1
                    outer.most = max(outer.most, outer._now)
                try:
                    outer.pages.get(path, status(404))(self)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                finally:
                    with outer._lock:
                        outer._now -= 1

            def log_message(self, format: str, *args: Any) -> None:
                """Keep quiet: tests report what goes wrong."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def reset_most(self) -> None:
        """Begin to count `most` anew, when the answers to requests of earlier tests have ended."""
        wait_until(lambda: self._now == 0, 30)
        self.most = 0

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def content(body: bytes, **headers: str) -> Answer:
    """Answer with a body of known length; an underscore in a header's name stands for a hyphen."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        etag = headers.get("ETag")
        if etag and handler.headers.get("If-None-Match") == etag:
            handler.send_response(304)
            handler.end_headers()
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and no body; an underscore in a header's name stands for a hyphen."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def answer_slowly(body: bytes, pause: float, step: int = 1, head: bool = False) -> Answer:
    """Send a few bytes at a time, also the headers if `head`, without a declared length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        first = b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n\r\n"
        if not head:
            handler.wfile.write(first)
        rest = first + body if head else body
        for start in range(0, len(rest), step):
            time.sleep(pause)
            handler.wfile.write(rest[start : start + step])

    return answer
