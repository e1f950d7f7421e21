"""Whatever answers on the port is not trusted: each command ends with one line and exit code 2."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.cli.main import main
from tests.support.pictures import picture

Answer = Callable[[BaseHTTPRequestHandler], None]


def body(status: int, content: bytes, kind: str = "application/json", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"hits": [')


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def redirect(status: int, to: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", to.format(path=handler.path))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


PROBLEM = b'{"code": "x\\u001b[31m", "detail": "a\\nb", "title": "", "status": 422}'
ODD: dict[str, tuple[Answer, str]] = {
    "an object": (body(200, b'{"ok": true}'), "is not Sightline"),
    "a list": (body(200, b"[1]"), "is not Sightline"),
    "a number": (body(200, b"1"), "is not Sightline"),
    "null": (body(200, b"null"), "is not Sightline"),
    "text for lists": (body(200, b'{"hits": "x", "jobs": 3, "collections": {}, "reasons": null}'), "is not Sightline"),
    "a page": (body(200, b"<html>a router</html>", "text/html"), "is not Sightline"),
    "nothing": (body(200, b""), "is not Sightline"),
    "latin-1": (body(200, b'{"ok": "\xff"}'), "is not Sightline"),
    "deep": (body(200, b"[" * 100_000), "is not Sightline"),
    "201": (body(201, b"{}"), "is not Sightline"),
    "206": (body(206, b"{}"), "is not Sightline"),
    "not gzip": (body(200, b"{}", **{"Content-Encoding": "gzip"}), "failed"),
    "304": (body(304, b""), "is not Sightline: it answered 304"),
    "300": (body(300, b"{}"), "is not Sightline: it answered 300"),
    "308": (redirect(308, "https://photos.example.org{path}"), "redirects to https://photos.example.org; use that"),
    "302": (redirect(302, "https://login.example.org/in?to={path}"), "redirects to https://login.example.org/in,"),
    "302 beside": (redirect(302, "/login"), "/login, perhaps a login page"),
    "302 to nothing": (redirect(302, "http://x:abc/"), "failed: Invalid URL in location header"),
    "404 of others": (body(404, b"<html>", "text/html"), "answered 404; it is not Sightline"),
    "401 of others": (body(401, b"who are you", "text/plain"), "answered 401; a proxy"),
    "413 of nginx": (body(413, b"<html>", "text/html"), "takes no requests of this size (nginx: client_max_body_size)"),
    "502": (body(502, b"<html>", "text/html"), "answered 502"),
    "500 and a list": (body(500, b"[1]"), "answered 500"),
    "problem with escapes": (body(422, PROBLEM, "application/problem+json"), "a b (x [31m)"),
    "problem of numbers": (body(422, b'{"code": 1, "detail": 2}'), "answered 422"),
    "cut": (cut, "failed"),
    "another protocol": (no_http, "failed"),
    "hung up": (hang_up, "failed"),
}
COMMANDS: dict[str, list[str]] = {
    "search": ["search", "red"],
    "search json": ["search", "red", "--json"],
    "search paths": ["search", "red", "--paths"],
    "search picture": ["search", "PICTURE"],
    "search batch": ["search", "--batch", "LIST"],
    "ingest": ["ingest", "PICTURE"],
    "ingest source": ["ingest", "folder:/x"],
    "ingest urls": ["ingest", "--urls", "LIST"],
    "status": ["status"],
    "status json": ["status", "--json"],
    "jobs": ["jobs"],
    "job": ["job", "0" * 32],
    "job short": ["job", "abcd1234", "--failed"],
    "job pause": ["job", "0" * 32, "--pause"],
    "job report": ["job", "0" * 32, "--report", "-"],
    "collections": ["collections"],
    "make": ["collections", "make", "x"],
    "drop": ["collections", "drop", "x", "--yes"],
    "delete": ["delete", "--filter", "{}", "--yes"],
}


@pytest.fixture(scope="module")
def odd() -> Iterator[tuple[str, dict[str, Answer]]]:
    """A server whose only answer can be chosen."""
    chosen: dict[str, Answer] = {}

    class Odd(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                self.close_connection = True
            chosen["now"](self)
            self.close_connection = True

        do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}", chosen
    server.shutdown()
    serving.join()
    server.server_close()


def check_one_line(ran: Result, *words: str) -> None:
    assert ran.exit_code == 2, (ran.output, ran.exception)
    assert ran.exception is None or isinstance(ran.exception, SystemExit)
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("searching by")]
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("sightline: ")
    assert lines[0].isprintable()
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_odd_answer_is_one_line(
    command: str, odd: tuple[str, dict[str, Answer]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.client.PATIENCE_SECONDS", 0.0)
    url, chosen = odd
    (tmp_path / "a.png").write_bytes(picture("red", 1))
    (tmp_path / "list.txt").write_text("http://127.0.0.1/a.png\n")
    files = {"PICTURE": str(tmp_path / "a.png"), "LIST": str(tmp_path / "list.txt")}
    arguments = [files.get(one, one) for one in COMMANDS[command]]
    for answer, told in ODD.values():
        chosen["now"] = answer
        check_one_line(CliRunner().invoke(main, arguments, env={"SIGHTLINE_SERVER": url}), told)
