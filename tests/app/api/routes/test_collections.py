"""Collections over HTTP: made, filled, searched apart from each other, dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.api.asking import check_refusal, make_picture, upload_ready
from tests.support.servers import RunningServer


@pytest.fixture
def birds(server: RunningServer) -> Iterator[dict[str, Any]]:
    """The parameter that names a collection of this test; it is gone afterwards."""
    made = server.http.post("/v1/collections", json={"name": "birds", "description": "what flies"})
    assert made.status_code == 201, made.text
    yield {"collection": "birds"}
    assert server.http.delete("/v1/collections/birds").status_code in (204, 404)


def test_default_is_there_with_its_counts_and_space(server: RunningServer) -> None:
    upload_ready(server)
    (collection,) = server.http.get("/v1/collections").json()["collections"]
    assert set(collection) == {"name", "description", "images", "texts", "space", "head", "created_at"}
    stats = server.http.get("/v1/stats").json()
    assert collection["name"] == "default"
    assert collection["images"] == stats["images"]["total"] > 0
    assert collection["texts"] == stats["texts"]
    assert collection["space"] == {"fingerprint": stats["model"]["space"], "model": "colours", "d": 60}
    assert server.http.get("/v1/collections/default").json() == collection


def test_a_new_one_is_empty_and_its_name_is_taken(server: RunningServer, birds: dict[str, Any]) -> None:
    told = server.http.get("/v1/collections/birds").json()
    assert (told["description"], told["images"], told["texts"], told["space"]) == ("what flies", 0, 0, None)
    check_refusal(server.http.post("/v1/collections", json={"name": "birds"}), 409, "id_conflict")
    assert server.http.get("/v1/search", params={"q": "red", **birds}).json()["hits"] == []


def test_what_is_said_of_one_can_be_changed(server: RunningServer, birds: dict[str, Any]) -> None:
    changed = server.http.patch("/v1/collections/birds", json={"description": "羽毛 · what flies"})
    assert changed.json() == server.http.get("/v1/collections/birds").json()
    assert (changed.status_code, changed.json()["description"]) == (200, "羽毛 · what flies")
    for body in ({}, {"description": 1}, {"description": "", "name": "new"}):
        check_refusal(server.http.patch("/v1/collections/birds", json=body), 422, "validation")
    check_refusal(server.http.patch("/v1/collections/none", json={"description": ""}), 404, "not_found")


def test_each_call_speaks_of_its_collection_alone(server: RunningServer, birds: dict[str, Any]) -> None:
    """The same bytes and ids in two collections are two pictures, and each is found in its own."""
    content, http = make_picture("red"), server.http
    first = server.upload(content, id="same", caption="of default").json()
    second = server.upload(content, id="same", caption="of birds", **birds).json()
    assert (second["collection"], second["status"], second["duplicate"]) == ("birds", "ready", False)
    assert first["created_at"] != second["created_at"]
    again = http.post("/v1/images", files={"file": ("a.png", content)}, params=birds).json()
    assert (again["duplicate"], again["caption"]) == (True, "of birds")

    http.post("/v1/texts", json={"texts": [{"id": "t", "text": "red red red"}]}, params=birds)
    assert http.get("/v1/texts/t", params=birds).json()["text"] == "red red red"
    check_refusal(http.get("/v1/texts/t"), 404, "not_found")
    for question in (
        http.get("/v1/search", params={"q": "red", **birds}),
        http.post("/v1/search", json={"query": [{"text": "red"}], **birds}),
        http.post("/v1/search", json={"query": [{"image_id": "same"}]}, params=birds),
        http.post("/v1/search/image", files={"file": ("a.png", content)}, data=birds),
    ):
        assert [hit["image"]["caption"] for hit in question.json()["hits"]] == ["of birds"]
    (text,) = http.get("/v1/search", params={"q": "red", "target": "texts", **birds}).json()["hits"]
    assert text["id"] == "t"
    assert http.post("/v1/classify", json={"image_id": "same", "labels": ["red", "blue"], **birds}).status_code == 200

    (listed,) = http.get("/v1/images", params=birds).json()["images"]
    assert listed == second
    assert http.patch("/v1/images/same", json={"caption": "new"}, params=birds).json()["caption"] == "new"
    assert http.get("/v1/images/same").json()["caption"] == "of default"
    stats = http.get("/v1/stats", params=birds).json()
    assert (stats["collection"], stats["images"]["total"], stats["texts"]) == ("birds", 1, 1)
    assert stats["index"]["images"]["ntotal"] == 1
    assert stats["open_indexes"]["open"] >= 2

    assert http.delete("/v1/images/same", params=birds).status_code == 204
    assert http.get("/v1/images/same/file").content == content  # the other one's file is still there
    assert http.get("/v1/images/same/thumbnail").status_code == 200
    check_refusal(http.get("/v1/images/same/file", params=birds), 404, "not_found")


def test_a_bulk_goes_into_its_collection_and_its_job_is_listed_there(
    server: RunningServer, birds: dict[str, Any]
) -> None:
    sent = server.http.post("/v1/images/bulk", files=[("files", ("a.png", make_picture()))], params=birds).json()
    ended = server.wait_job(sent["id"])
    assert (ended["collection"], ended["state"], ended["done"]) == ("birds", "succeeded", 1)
    (job,) = server.http.get("/v1/jobs", params=birds).json()["jobs"]
    assert job["id"] == sent["id"]
    assert sent["id"] in [one["id"] for one in server.http.get("/v1/jobs").json()["jobs"]]
    check_refusal(server.http.get("/v1/jobs", params={"collection": "other"}), 404, "not_found")
    check_refusal(server.http.get("/v1/jobs", params={"collection": "No name"}), 422, "validation")


def test_a_dropped_one_is_gone_and_its_name_starts_empty(server: RunningServer, birds: dict[str, Any]) -> None:
    http = server.http
    image = server.upload(make_picture(), **birds).json()
    job = http.post("/v1/images/bulk", files=[("files", ("a.png", make_picture()))], params=birds).json()
    server.wait_job(job["id"])
    assert len(http.get("/v1/search", params={"q": "red", **birds}).json()["hits"]) == 2
    assert http.delete("/v1/collections/birds").status_code == 204
    assert [one["name"] for one in http.get("/v1/collections").json()["collections"]] == ["default"]
    for call in ("/v1/search?q=red", "/v1/images", f"/v1/images/{image['id']}", "/v1/stats", "/v1/jobs"):
        check_refusal(http.get(call, params=birds if "?" not in call else {"q": "red", **birds}), 404, "not_found")
    check_refusal(http.post("/v1/images", files={"file": ("a.png", make_picture())}, params=birds), 404, "not_found")
    check_refusal(http.delete("/v1/collections/birds"), 404, "not_found")
    told = http.get(f"/v1/jobs/{job['id']}").json()
    assert (told["collection"], told["state"], told["total"], told["done"]) == ("birds", "succeeded", 1, 1)
    assert http.get(f"/v1/jobs/{job['id']}/items").json()["items"] == []
    assert http.post("/v1/collections", json={"name": "birds"}).status_code == 201
    assert http.get("/v1/search", params={"q": "red", **birds}).json()["hits"] == []
    assert server.upload(make_picture(), **birds).json()["status"] == "ready"
    assert len(http.get("/v1/search", params={"q": "red", **birds}).json()["hits"]) == 1
    assert list(server.data_dir.glob("snapshots/birds*")) == []


def test_collections_outlive_a_restart(own_server: RunningServer) -> None:
    own_server.http.post("/v1/collections", json={"name": "birds"})
    image = own_server.upload(make_picture(), collection="birds").json()
    empty = own_server.http.get("/v1/collections/default").json()
    assert (empty["images"], empty["texts"], empty["space"]) == (0, 0, None)
    assert own_server.stop() == 0
    with RunningServer(own_server.data_dir, index_memory=1) as again:
        for _ in range(3):
            found = again.http.get("/v1/search", params={"q": "red", "collection": "birds"}).json()["hits"]
            assert [hit["id"] for hit in found] == [image["id"]]
            assert again.http.get("/v1/search", params={"q": "red"}).json()["hits"] == []
        assert again.http.get("/v1/collections/birds").json()["space"]["model"] == "colours"


@pytest.mark.parametrize("body", [{"name": "A"}, {"name": ""}, {}, {"name": "x" * 65}, {"name": "a~b"}, {"name": 1}])
def test_a_name_that_cannot_be_one_is_refused(body: dict[str, Any], server: RunningServer) -> None:
    check_refusal(server.http.post("/v1/collections", json=body), 422, "validation")


def test_default_cannot_be_dropped(server: RunningServer) -> None:
    problem = check_refusal(server.http.delete("/v1/collections/default"), 422, "validation")
    assert "always there" in problem["detail"]
    check_refusal(server.http.post("/v1/collections", json={"name": "default"}), 409, "id_conflict")


def test_one_that_is_not_there_is_told_as_such(server: RunningServer) -> None:
    check_refusal(server.http.get("/v1/collections/other"), 404, "not_found")
    check_refusal(server.http.get("/v1/collections/A%20b"), 422, "validation")
    check_refusal(server.http.get("/v1/stats", params={"collection": "other"}), 404, "not_found")
