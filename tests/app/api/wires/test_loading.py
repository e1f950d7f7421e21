"""What the wires answer while the model is loading: that they cannot yet, in their shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

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
