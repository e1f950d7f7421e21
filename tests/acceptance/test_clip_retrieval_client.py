"""clip-retrieval's own `ClipClient` asks a real server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.database import Database
from tests.support.callers import run_caller
from tests.support.pictures import picture
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

# The package's __init__ imports PyTorch and FAISS: the client's file is loaded by itself.
SETUP = """
import importlib.util, sysconfig
from pathlib import Path
path = Path(sysconfig.get_paths()["purelib"]) / "clip_retrieval" / "clip_client.py"
spec = importlib.util.spec_from_file_location("clip_client", path)
clip_client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(clip_client)
ClipClient, Modality = clip_client.ClipClient, clip_client.Modality
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    """A server that fetches, with three pictures and a text; and a folder with one of them."""
    folder = tmp_path_factory.mktemp("clip-client")
    with RunningServer(folder / "data", fetch=True, fetch_also="127.0.0.1,::1") as server:
        for name, colour in (("red", "red"), ("blue", "blue"), ("rouge", "red")):
            content = picture(colour, seed=len(name), size=(53, 41))
            (folder / f"{name}.png").write_bytes(content)
            assert server.upload(content, name=f"{name}.png", id=name, caption=f"a {name} thing").status_code == 200
        server.http.post("/v1/texts", json={"texts": [{"id": "sky", "text": "blue sky"}]})
        yield server, folder


def ask(server: RunningServer, code: str, *, key: str = "", **given: Any) -> Any:
    url = server.url.replace("http://", f"http://key:{key}@") if key else server.url
    return run_caller("clip-retrieval", SETUP + code, url=f"{url}/knn-service", **given)


def test_every_query_of_the_client_is_answered(stored: tuple[RunningServer, Path]) -> None:
    server, folder = stored
    vector = server.http.get("/v1/images/blue/vector").json()["vector"]
    code = """
client = ClipClient(url=url, indice_name="default")
found = {
    "text": client.query(text="red"),
    "image": client.query(image=picture),
    "image_url": client.query(image=picture_url),
    "embedding": client.query(embedding_input=vector),
    "all": ClipClient(url=url, indice_name="default", deduplicate=False, num_images=2).query(text="red"),
    "texts": ClipClient(url=url, indice_name="default", modality=Modality.TEXT).query(text="blue sky"),
    "nowhere": ClipClient(url=url, indice_name="laion5B").query(text="red"),
}
print(json.dumps(found))
"""
    given = {"picture": str(folder / "blue.png"), "picture_url": f"{server.url}/v1/images/blue/file", "vector": vector}
    found = ask(server, code, **given)
    assert [one["image_id"] for one in found["text"]] in (["red", "blue"], ["rouge", "blue"])
    for way in ("image", "image_url", "embedding"):
        assert found[way][0]["image_id"] == "blue", way
        assert found[way][0]["similarity"] == pytest.approx(1, abs=1e-3), way
    assert {one["image_id"] for one in found["all"]} == {"red", "rouge"}
    for one in found["all"]:
        assert {"id", "similarity", "url", "caption"} <= set(one)
        assert isinstance(one["id"], int)
        assert server.http.get(one["url"]).status_code == 200
        assert base64.b64decode(one["image"])[8:12] == b"WEBP"
    assert found["texts"][0]["caption"] == "blue sky"
    assert "'laion5B'" in found["nowhere"]["message"]


def test_a_key_is_a_password_in_the_url(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        assert server.upload(picture("red", seed=1)).status_code == 200
        database = Database(tmp_path / "data" / "sightline.db")
        try:
            _, key = ApiKeyService(database).create("client", KeyScope.SEARCH, ("default",), None)
        finally:
            database.close()
        code = 'print(json.dumps(ClipClient(url=url, indice_name="default").query(text="red")))'
        assert len(ask(server, code, key=key)) == 1
        assert "API key" in ask(server, code)["message"]
