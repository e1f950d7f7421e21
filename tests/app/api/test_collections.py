"""Collections over HTTP: `default` is there, another one cannot be made yet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.api.asking import added, refused
from tests.servers import RunningServer


def test_default_is_there_with_its_counts_and_space(server: RunningServer) -> None:
    added(server)
    (collection,) = server.http.get("/v1/collections").json()["collections"]
    assert set(collection) == {"name", "description", "images", "texts", "space", "created_at"}
    stats = server.http.get("/v1/stats").json()
    assert collection["name"] == "default"
    assert collection["images"] == stats["images"]["total"] > 0
    assert collection["texts"] == stats["texts"]
    assert collection["space"] == {"fingerprint": stats["model"]["space"], "model": "colours", "d": 60}
    assert server.http.get("/v1/collections/default").json() == collection


def test_an_empty_one_has_no_space_yet(own_server: RunningServer) -> None:
    collection = own_server.http.get("/v1/collections/default").json()
    assert (collection["images"], collection["texts"], collection["space"]) == (0, 0, None)


@pytest.mark.parametrize(
    "body", [{"name": "other"}, {"name": "default"}, {"name": "A"}, {"name": ""}, {}, {"name": "x" * 65}]
)
def test_another_one_cannot_be_made_yet(body: dict[str, Any], server: RunningServer) -> None:
    refused(server.http.post("/v1/collections", json=body), 422, "validation")


def test_default_cannot_be_deleted(server: RunningServer) -> None:
    refused(server.http.delete("/v1/collections/default"), 422, "validation")


def test_one_that_is_not_there_is_told_as_such(server: RunningServer) -> None:
    refused(server.http.get("/v1/collections/other"), 404, "not_found")
    refused(server.http.get("/v1/collections/A%20b"), 422, "validation")
    refused(server.http.get("/v1/stats", params={"collection": "other"}), 404, "not_found")
