"""A receiver of webhooks on the loopback, which checks their signatures as docs/howto/saved-searches.md says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Answers with `answers` one after the other, then with the last for ever; keeps what came."""

    def __init__(self, *answers: int) -> None:
        self.secret = ""
        self.answers = list(answers or (204,))
        self.headers: dict[str, str] = {}
        self.messages: list[tuple[str, dict[str, Any]]] = []  # with their ids, also those that were refused
        self.delay = threading.Event()
        self.delay.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.delay.wait(20)
                outer.headers = {name.lower(): value for name, value in self.headers.items()}
                outer.messages.append((self.headers["webhook-id"], json.loads(body)))
                answer = outer.answers[0] if len(outer.answers) == 1 else outer.answers.pop(0)
                if outer.secret and not outer.is_signed(body):
                    answer = 400
                self.send_response(answer)
                if answer in (301, 302, 307):
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def is_signed(self, body: bytes) -> bool:
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{wanted}" in self.headers["webhook-signature"].split()

    def pictures(self) -> Sequence[str]:
        """The ids of the pictures of all messages, in their order."""
        return [match["image_id"] for _, message in self.messages for match in message["data"]["matches"]]

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.delay.set()
        self._server.shutdown()
        self._server.server_close()
