"""What the proofs send: uploads as bytes on a socket, and the list of what is there."""

from __future__ import annotations

import hashlib
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx

from tests.support.servers import RunningServer


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def upload_request(url: str, content: bytes, **headers: str) -> bytes:
    """The bytes of a POST /v1/images as they go over the wire."""
    files = {"file": ("one.png", content)}
    request = httpx.Request("POST", f"{url}/v1/images", files=files, headers={"Connection": "close", **headers})
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return b"POST /v1/images HTTP/1.1\r\n" + head.encode() + b"\r\n" + request.read()


def connect(url: str) -> socket.socket:
    """A socket to the server."""
    address = urlsplit(url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=60)


def pictures(server: RunningServer) -> list[dict[str, Any]]:
    """Every picture that is there."""
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": 1000}
    while True:
        page = server.http.get("/v1/images", params=params).json()
        found += page["images"]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]
