"""What the tests of the HTTP interface share: new pictures, refusals in their one shape, raw requests."""

from __future__ import annotations

import http.client
import itertools
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx

from tests.support.pictures import picture
from tests.support.servers import RunningServer

_seeds = itertools.count(1)
_HEX = re.compile(r"[0-9a-f]{32}")
_LEAKS = ("/root", "/tmp", "/work", "/home", "site-packages", "Traceback", ".py", "SELECT ", "INSERT ", "sqlite")


def make_picture(colour: str = "red", format: str = "PNG") -> bytes:
    """A picture that no other test has sent."""
    return picture(colour, seed=next(_seeds), size=(53, 41), format=format)


def upload_ready(server: RunningServer, colour: str = "red", **fields: Any) -> dict[str, Any]:
    """The record of a new picture that is ready."""
    response = server.upload(make_picture(colour), **fields)
    assert response.status_code == 200, response.text
    image: dict[str, Any] = response.json()
    assert image["status"] == "ready"
    return image


def check_refusal(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of a refusal, checked for everything that the contract says of refusals."""
    assert response.status_code == status, response.text
    problem = check_problem(response.json(), status, dict(response.headers))
    assert problem["code"] == code
    return problem


def check_problem(problem: Any, status: int, headers: dict[str, str]) -> dict[str, Any]:
    """A problem+json body with its headers (names in lower case), checked."""
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["content-type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id", "retryable"}
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert _HEX.fullmatch(problem["request_id"])
    assert problem["request_id"] == headers["x-request-id"]
    assert isinstance(problem["retryable"], bool)
    later = problem["code"] == "in_progress"
    assert problem["retryable"] == (later or status in (429, 503, 504, 507))
    if later or status in (429, 503):
        assert int(headers["retry-after"]) >= 1
    assert not [leak for leak in _LEAKS if leak in problem["title"] + problem["detail"]]
    return dict(problem)


def raw(server: RunningServer, request: bytes, *, end: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes as they are; status, headers and body of the answer. `end` closes our side after them."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
        connection.sendall(request)
        if end:
            connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        response.begin()
        with response:
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()


def form(parts: list[bytes], boundary: bytes = b"xxx", *, last: bool = True) -> bytes:
    """A multipart body of parts (headers, empty line, content)."""
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return body + (b"--" + boundary + b"--\r\n" if last else b"")


def file_part(content: bytes, name: bytes = b"file", filename: bytes = b"a.png") -> bytes:
    """One file of a multipart body; name and filename are put there as they are."""
    head = b'Content-Disposition: form-data; name="' + name + b'"; filename="' + filename + b'"'
    return head + b"\r\nContent-Type: application/octet-stream\r\n\r\n" + content


def field_part(name: bytes, value: bytes) -> bytes:
    """One text field of a multipart body."""
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value


def post_form(server: RunningServer, path: str, body: bytes, boundary: str = "xxx") -> httpx.Response:
    """POST a multipart body as it is."""
    return server.http.post(path, content=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})


def search_ids(server: RunningServer, words: str, k: int = 1000, target: str = "images") -> list[str]:
    """The ids that a search by words gives."""
    response = server.http.get("/v1/search", params={"q": words, "k": k, "target": target})
    assert response.status_code == 200, response.text
    return [hit["id"] for hit in response.json()["hits"]]
