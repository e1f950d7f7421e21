"""A server on the loopback that speaks OpenAI's chat shape, and tells the colour of the picture that it is sent."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]
COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 220), "grey": (128, 128, 128)}


class ChatStub:
    """Answers each request by `reply`, which tests change; keeps the requests and their headers."""

    def __init__(self, port: int = 0) -> None:
        self.reply: Reply = tell_colour
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                outer.headers.append(dict(self.headers.items()))
                outer.paths.append(self.path)
                with suppress(BrokenPipeError, ConnectionResetError):
                    outer.reply(self, body)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                """Keep quiet: tests report what goes wrong."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> ChatStub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_picture(request: dict[str, Any]) -> Image.Image:
    """The picture of a request."""
    part = next(one for one in request["messages"][0]["content"] if one["type"] == "image_url")
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["JPEG"])


def find_colour(request: dict[str, Any]) -> str:
    """The name of the colour that the middle of a request's picture is nearest to."""
    pixels = np.asarray(read_picture(request).convert("RGB"), np.float64)
    height, width, _ = pixels.shape
    middle = pixels[height // 3 : height * 2 // 3 + 1, width // 3 : width * 2 // 3 + 1].mean((0, 1))
    return min(COLOURS, key=lambda name: float(np.abs(middle - COLOURS[name]).sum()))


def read_prompt(request: dict[str, Any]) -> str:
    return str(next(one for one in request["messages"][0]["content"] if one["type"] == "text")["text"])


def send(
    handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, kind: str = "application/json", **headers: str
) -> None:
    """Answer; an underscore in a header's name stands for a hyphen."""
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def completion(text: Any, finish: str = "stop", tokens: Sequence[dict[str, float]] = ()) -> bytes:
    """The JSON of an answer; `tokens` are the logarithms of the probabilities at each place."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if tokens:
        choice["logprobs"] = {
            "content": [
                {
                    "token": max(one, key=one.__getitem__),
                    "top_logprobs": [{"token": t, "logprob": p} for t, p in one.items()],
                }
                for one in tokens
            ]
        }
    return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def tell_colour(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    """The caption of a captioner that sees colours."""
    send(handler, completion(f"A {find_colour(request)} shape on a plain ground."))


def say(text: Any, finish: str = "stop", tokens: Sequence[dict[str, float]] = ()) -> Reply:
    """Always the same answer."""
    return lambda handler, request: send(handler, completion(text, finish, tokens))


def fail(status: int, **headers: str) -> Reply:
    """Always this status, with a page that is no JSON."""
    return lambda handler, request: send(handler, b"<h1>no</h1>", status, "text/html", **headers)


def send_raw(body: bytes, kind: str = "text/html") -> Reply:
    """Always these bytes, with the status of success."""
    return lambda handler, request: send(handler, body, 200, kind)
