"""What the wires answer while the model is loading: that they cannot yet, in their shapes."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.api.app import create_app
from app.api.wires.immich import create_immich_app
from app.core.settings import Settings
from app.service.service import open_service


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The application of a service that never starts to load its model."""
    service = open_service(Settings(data_dir=tmp_path_factory.mktemp("loading"), model="colours", workers=0))
    yield create_app(service)
    service.close()


def test_weaviate_waits(main: FastAPI) -> None:
    client = TestClient(main, base_url="http://localhost")
    assert client.get("/compat/weaviate/.well-known/live").status_code == 204
    for call in ("/compat/weaviate/.well-known/ready", "/compat/weaviate/meta"):
        answer = client.get(call)
        assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
        assert answer.json()["error"]
    answer = client.post("/compat/weaviate/vectorize", content=b'{"texts": ["red"]}')
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")


def test_a_client_of_clip_retrieval_is_told(main: FastAPI, tmp_path: Path) -> None:
    client = TestClient(main, base_url="http://localhost")
    body = {"modality": "image", "num_images": 1, "text": "red"}
    answer = client.post("/knn-service", content=json.dumps(body).encode())
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
    assert client.get("/indices-list").json() == ["default"]


# Where each dialect's clients read the sentence of an error; "error" holds an object at OpenAI's addresses.
SENTENCES = {
    "/v1/embeddings": ("error", "detail", "message"),
    "/embeddings": ("error", "detail", "message"),
    "/embeddings_image": ("error",),
    "/v1/multimodalembeddings": ("detail",),
    "/v2/embed": ("message",),
    "/v1/embed": ("message",),
    "/compat/weaviate/vectorize": ("error",),
    "/knn-service": ("message",),
}


@pytest.mark.parametrize("path", [path for path in SENTENCES if path != "/knn-service"])
def test_embeddings_are_told_to_come_later(path: str, main: FastAPI) -> None:
    multi = {"inputs": [{"content": [{"type": "text", "text": "red"}]}], "model": "colours"}
    texts = {"texts": ["red"]} if "embed" not in path or path.endswith("embed") else {"input": ["red"]}
    body = {"input": ["data:image/png;base64,eA=="]} if "image" in path else multi if "multi" in path else texts
    answer = TestClient(main, base_url="http://localhost").post(path, json=body)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "the model colours is still loading" in read_sentence(path, answer.json())


@pytest.mark.parametrize("path", SENTENCES)
def test_a_full_disk_is_told_in_the_shape_of_the_wire(
    path: str, main: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", refuse)  # of the folder for the picture
    body = json.dumps({"images": ["data:image/png;base64," + "A" * 9_000], "image": "A" * 9_000})
    headers = {"Content-Type": "application/json"}
    answer = TestClient(main, base_url="http://localhost").post(path, content=body, headers=headers)
    assert answer.status_code == 507
    assert "disk" in read_sentence(path, answer.json())


def read_sentence(path: str, body: dict[str, Any]) -> str:
    """What every member says that clients read; of those that an error has before its dialect is known, one is left."""
    read = [body[name] for name in SENTENCES[path] if name in body]
    (said,) = {one["message"] if isinstance(one, dict) else one for one in read}
    return str(said)


def test_immich_asks_its_next_server(main: FastAPI) -> None:
    client = TestClient(create_immich_app(main, loopback_only=True), base_url="http://localhost")
    assert client.get("/ping").text == "pong"
    assert client.get("/").json() == {"message": "Immich ML"}
    entries = json.dumps({"clip": {"textual": {"modelName": "colours"}}})
    answer = client.post("/predict", data={"entries": entries}, files={"text": (None, "red")})
    assert answer.status_code == 503
    assert "loading" in answer.json()["detail"]
    assert client.get("/v1/stats").status_code == 404
    assert client.get("/predict").status_code == 405
