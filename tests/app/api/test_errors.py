"""Every refusal has the one shape."""

from __future__ import annotations

import contextlib
import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.app.api.asking import check_problem, check_refusal, raw
from tests.support.servers import RunningServer


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/nothing", "/v2/images", "/v1/images/x/y/z", "/web/none.js", "/web/../app.py"]
)
def test_an_unknown_address_is_not_found(path: str, server: RunningServer) -> None:
    check_refusal(server.http.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/images"),
        ("DELETE", "/v1/images"),
        ("POST", "/v1/images/x"),
        ("PATCH", "/v1/texts/x"),
        ("POST", "/v1/stats"),
        ("GET", "/v1/classify"),
        ("TRACE", "/v1/images"),
        ("OPTIONS", "/v1/search"),
        ("POST", "/livez"),
    ],
)
def test_a_method_that_is_not_offered_says_which_are(method: str, path: str, server: RunningServer) -> None:
    response = server.http.request(method, path)
    detail = check_refusal(response, 405, "bad_request")["detail"]
    assert response.headers["allow"] in detail


def test_a_head_of_what_can_be_read_is_no_fault(server: RunningServer) -> None:
    assert server.http.head("/livez").status_code in (200, 405)


@pytest.mark.parametrize("at", ["/v1/images/%ff", "/v1/search?q=%ff", "/v1/search?q=%ed%a0%80", "/v1/texts/%c3%28"])
def test_an_address_that_is_not_utf8_is_refused(at: str, server: RunningServer) -> None:
    status, headers, body = raw(server, f"GET {at} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status == 400
    assert check_problem(json.loads(body), 400, headers)["code"] == "bad_request"


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /livez\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/texts HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/texts HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/texts HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nBad Name: y\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
    ],
    ids=range(10),
)
def test_what_is_not_http_is_refused_and_harms_nobody(request_line: bytes, server: RunningServer) -> None:
    status, _, _ = raw(server, request_line)
    assert 400 <= status < 500
    assert server.http.get("/livez").status_code == 200


POST = b"POST /v1/texts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
AMBIGUOUS = [
    b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n{}  ",
    b"Content-Length: 4, 4\r\n\r\n{}  ",
    b"Content-Length: +4\r\n\r\n{}  ",
    b"Content-Length: 0x4\r\n\r\n{}  ",
    b"Content-Length : 4\r\n\r\n{}  ",
    b"Content-Length: 99999999999999999999\r\n\r\n{}  ",
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    b"X: y\r\n\tContent-Length: 4\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("rest", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_no_request_is_smuggled_behind_one_of_unclear_length(rest: bytes, server: RunningServer) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as connection:
        connection.sendall(POST + rest + SMUGGLED)
        connection.shutdown(socket.SHUT_WR)
        answered = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                answered += part
    assert b'"models"' not in answered
    assert [line[9:10] for line in answered.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")] in ([b"4"], [])


def test_no_detail_holds_a_path_or_a_value_that_was_sent(server: RunningServer) -> None:
    problem = check_refusal(server.http.post("/v1/texts", json={"texts": "secret-value"}), 422, "validation")
    assert "secret-value" not in json.dumps(problem)


def test_a_long_list_of_faults_is_cut(server: RunningServer) -> None:
    problem = check_refusal(server.http.post("/v1/texts", json={"texts": [{}] * 500}), 422, "validation")
    assert len(problem["detail"]) < 1_000
