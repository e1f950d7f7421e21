"""Scripts of other sites may call the server where its operator has named their origin, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.api.auth import AccessControl
from app.api.request_origin import parse_origins
from app.core.errors import StartupError
from app.core.settings import Settings
from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.app.api.asking import make_picture
from tests.support.servers import RunningServer

OURS, OTHER = "https://photos.example.org", "https://evil.example"


@pytest.fixture(scope="module")
def cors_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(
        tmp_path_factory.mktemp("listed"), workers=0, cors_origins=f"{OURS}/, http://localhost:3000"
    ) as one:
        yield one


def ask_first(server: RunningServer, origin: str, method: str = "DELETE") -> tuple[int, str | None]:
    """What a browser asks before it lets a script call, which brings no key."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "x-api-key"}
    answer = server.http.options("/v1/images/x", headers=asked)
    return answer.status_code, answer.headers.get("access-control-allow-origin")


def test_a_listed_origin_may_read_and_change(cors_server: RunningServer) -> None:
    assert ask_first(cors_server, OURS) == (200, OURS)
    assert ask_first(cors_server, OTHER) == (400, None)
    sent = {"Origin": OURS, "Sec-Fetch-Site": "cross-site"}
    files = {"file": ("a.png", make_picture())}
    answer = cors_server.http.post("/v1/images", files=files, headers=sent)
    assert answer.status_code == 202, answer.text
    assert answer.headers["access-control-allow-origin"] == OURS
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers
    refused = cors_server.http.get("/v1/images/nothing", headers=sent)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (404, OURS)


def test_another_origin_may_not(cors_server: RunningServer) -> None:
    sent = {"Origin": OTHER, "Sec-Fetch-Site": "cross-site"}
    answer = cors_server.http.post("/v1/images", files={"file": ("a.png", make_picture())}, headers=sent)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in cors_server.http.get("/v1/images", headers=sent).headers


def test_every_origin_may_call_only_where_keys_are_needed(tmp_path: Path) -> None:
    with RunningServer(tmp_path, workers=0, cors_origins="*") as server:
        assert ask_first(server, OTHER) == (400, None)
        assert server.http.post("/v1/texts", json={}, headers={"Origin": OTHER}).status_code == 403
        database = open_database(tmp_path / "sightline.db")
        try:
            _, key = ApiKeyService(database).create("a", KeyScope.WRITE)
        finally:
            database.close()
        assert server.http.get("/v1/images", headers={"Origin": OTHER}).status_code == 401
        assert ask_first(server, OTHER)[0] == 200
        answer = server.http.get("/v1/images", headers={"Origin": OTHER, "X-API-Key": key})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, OTHER)


@pytest.mark.parametrize("text", ["photos.example.org", "https://", "https://a.example/path", "null", "file:///x"])
def test_what_is_no_origin_is_refused_at_the_start(text: str, tmp_path: Path) -> None:
    database = open_database(tmp_path / "sightline.db")
    try:
        with pytest.raises(StartupError, match=r"SIGHTLINE_CORS_ORIGINS: .* is no origin"):
            AccessControl(ApiKeyService(database), Settings(cors_origins=f"{OURS},{text}"), loopback_only=True)
    finally:
        database.close()


def test_origins_are_compared_as_browsers_send_them() -> None:
    assert parse_origins(" HTTPS://A.example/ ,http://[::1]:3000,,*") == {"https://a.example", "http://[::1]:3000", "*"}
    assert parse_origins("") == frozenset()
