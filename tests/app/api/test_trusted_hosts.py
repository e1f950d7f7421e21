"""The names that a server without keys goes by: a page that gives its own name our address is not let in."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.api.request_origin import is_trusted_host, read_host, read_port
from tests.app.api.asking import check_problem, check_refusal, raw
from tests.support.servers import RunningServer


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("photos.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("192.168.0.7", True),
        ("photos.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil-localhost", False),
        ("photos.example.evil.example", False),
        ("", False),
        (None, False),
    ],
)
def test_names_that_are_ours(host: str | None, is_ours: bool) -> None:
    assert is_trusted_host(host, frozenset({"photos.example"})) is is_ours


@pytest.mark.parametrize(
    ("headers", "host", "port"),
    [
        ([b"Localhost:8000"], "localhost", 8000),
        ([b"[::1]:8000"], "::1", 8000),
        ([b"a@evil.example:1"], "evil.example", 1),
        ([b"localhost"], "localhost", 0),
        ([b"localhost:x"], "localhost", 0),
        ([b"[::1"], None, 0),
        ([b"\xff"], None, 0),
        ([], None, 0),
        ([b"localhost", b"evil.example"], None, 0),
    ],
)
def test_the_name_of_a_request(headers: list[bytes], host: str | None, port: int) -> None:
    scope = {"headers": [(b"host", value) for value in headers]}
    assert read_host(scope) == host
    assert read_port(scope) == port


@pytest.mark.parametrize(
    "head", [b"Host: evil.example", b"Host: evil.example:80", b"Host: localhost\r\nHost: evil.example", b"X: y"]
)
def test_a_request_under_a_foreign_name_is_refused_whatever_it_asks(head: bytes, server: RunningServer) -> None:
    for line in (b"GET /v1/stats", b"GET /", b"DELETE /v1/images/x", b"GET /nothing"):
        status, headers, body = raw(server, line + b" HTTP/1.1\r\nConnection: close\r\n" + head + b"\r\n\r\n")
        assert status == 403, line
        assert b"forbidden" in body
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", [b"/livez", b"/readyz", b"/metrics"])
@pytest.mark.parametrize("head", [b"Host: 10.1.2.3:8000", b"Host: evil.example", b"X: y", b"Host: "])
def test_a_monitor_is_answered_under_any_name_and_under_none(path: bytes, head: bytes, server: RunningServer) -> None:
    for version in (b"1.0", b"1.1"):
        request = b"GET " + path + b" HTTP/" + version + b"\r\nConnection: close\r\n" + head + b"\r\n\r\n"
        assert raw(server, request)[0] == 200


def test_the_name_in_an_absolute_address_does_not_stand_in_for_the_host(server: RunningServer) -> None:
    line = b"GET http://localhost/v1/stats HTTP/1.1\r\nConnection: close\r\nHost: evil.example\r\n\r\n"
    assert raw(server, line)[0] == 403


def test_a_proxy_s_name_can_be_allowed(tmp_path: Path) -> None:
    with RunningServer(tmp_path, workers=0, ready=False, allowed_hosts="photos.example, other.example") as server:
        for host in ("photos.example", "Other.Example:443", "localhost"):
            assert server.http.get("/v1/stats", headers={"Host": host}).status_code == 200
        check_refusal(server.http.get("/v1/stats", headers={"Host": "evil.example"}), 403, "forbidden")
        answer = server.http.get("/v1/stats", headers={"Host": "evil.example"})
        assert "SIGHTLINE_ALLOWED_HOSTS" in check_problem(answer.json(), 403, dict(answer.headers))["detail"]
