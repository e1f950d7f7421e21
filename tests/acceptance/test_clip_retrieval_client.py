"""clip-retrieval's own `ClipClient` asks a real server (`tests/acceptance/callers/clip_retrieval.py`)."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.support.callers import ROOT, run_calls
from tests.support.pictures import picture
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent / "callers/clip_retrieval.py"
PAGE = ROOT / "docs/howto/clip-retrieval-clients.md"


def make_key(server: RunningServer) -> str:
    database = open_database(server.data_dir / "sightline.db")
    try:
        return ApiKeyService(database).create("client", KeyScope.SEARCH, ("default",), None)[1]
    finally:
        database.close()


def test_every_query_of_the_client_is_answered(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", fetch=True, fetch_also="127.0.0.1,::1") as server:
        for name, colour in (("red", "red"), ("blue", "blue"), ("rouge", "red")):
            (tmp_path / f"{name}.png").write_bytes(picture(colour, seed=len(name), size=(53, 41)))
            content = (tmp_path / f"{name}.png").read_bytes()
            assert server.upload(content, name=f"{name}.png", id=name, caption=f"a {name} thing").status_code == 200
        server.http.post("/v1/texts", json={"texts": [{"id": "sky", "text": "blue sky"}]})
        vector = json.dumps(server.http.get("/v1/images/blue/vector").json()["vector"])
        given = (tmp_path / "blue.png", f"{server.url}/v1/images/blue/file", vector)
        told = run_calls("clip-retrieval", SCRIPT, f"{server.url}/knn-service", *given)
        check_hits(server, {call: one["got"] for call, one in told.items()})
        key = make_key(server)
        keyed = f"{server.url.replace('http://', f'http://key:{key}@')}/knn-service"
        again = run_calls("clip-retrieval", SCRIPT, keyed, *given)
        assert again["words"]["got"] == told["words"]["got"]
        refused = run_calls("clip-retrieval", SCRIPT, f"{server.url}/knn-service", *given)
        assert "API key" in refused["words"]["got"]["message"]
    assert sorted(told) == sorted(re.findall(r"^\| `ClipClient`: (.+?) \|", PAGE.read_text("utf-8"), re.MULTILINE))


def check_hits(server: RunningServer, found: dict[str, Any]) -> None:
    assert [one["image_id"] for one in found["words"]] in (["red", "blue"], ["rouge", "blue"])
    for call in ("a picture", "the URL of a picture", "a vector"):
        assert found[call][0]["image_id"] == "blue", call
        assert found[call][0]["similarity"] == pytest.approx(1, abs=1e-3), call
    assert {one["image_id"] for one in found["without deduplicate"]} == {"red", "rouge"}
    for one in found["without deduplicate"]:
        assert {"id", "similarity", "url", "caption"} <= set(one)
        assert isinstance(one["id"], int)
        assert server.http.get(one["url"]).status_code == 200
        assert base64.b64decode(one["image"])[8:12] == b"WEBP"
    assert found["modality text"][0]["caption"] == "blue sky"
    assert "'laion5B'" in found["another index"]["message"]
