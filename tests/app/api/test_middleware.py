"""What every answer carries, and what a body limit refuses."""

from __future__ import annotations

import re

import pytest

from tests.app.api.asking import raw
from tests.support.servers import RunningServer

PATHS = [
    "/",
    "/docs",
    "/openapi.json",
    "/livez",
    "/metrics",
    "/v1/stats",
    "/v1/images/nothing",
    "/nothing",
    "/v1/search?q=%ff",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_safe_headers_and_an_id_of_its_own(path: str, server: RunningServer) -> None:
    responses = [server.http.get(path) for _ in range(2)]
    for response in responses:
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
        assert "server" not in response.headers
        assert "access-control-allow-origin" not in response.headers
    first, second = (response.headers["x-request-id"] for response in responses)
    assert first != second


def test_a_foreign_page_is_given_no_leave(server: RunningServer) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "DELETE"}
    response = server.http.options("/v1/images/x", headers=headers)
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_an_id_that_the_caller_chose_is_taken_if_it_is_fit_for_a_log(server: RunningServer) -> None:
    chosen = "proxy-1.2_0123456789abcdef"
    response = server.http.get("/v1/images/nothing", headers={"X-Request-ID": chosen})
    assert response.headers["x-request-id"] == response.json()["request_id"] == chosen
    for id in ("mine", "x" * 65, "-0123456789", "with space 1", "\x1b[31m01234567", 'a"b0123456', "é0123456789"):
        answer = server.http.get("/livez", headers=[(b"X-Request-Id", id.encode())])
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"]), id
    twice = server.http.get("/livez", headers=[("X-Request-Id", chosen), ("X-Request-Id", chosen + "x")])
    assert re.fullmatch("[0-9a-f]{32}", twice.headers["x-request-id"])


def test_text_in_an_address_may_be_any_unicode(server: RunningServer) -> None:
    assert server.http.get("/v1/search", params={"q": "笑脸 é 😀", "k": 1}).status_code == 200


def test_a_body_that_nobody_asked_for_is_refused(server: RunningServer) -> None:
    status, _, _ = raw(
        server, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert status == 422
