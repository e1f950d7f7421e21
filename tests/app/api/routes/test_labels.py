"""Labels over HTTP: set, shown, applied, rejected for a picture, taken away; and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.api.asking import check_refusal, make_picture
from tests.support.servers import RunningServer, wait_until

LABELS = "/v1/collections/colours/labels"
INTO = {"collection": "colours"}


@pytest.fixture
def colours(server: RunningServer) -> Iterator[None]:
    """A collection of a test's own."""
    assert server.http.post("/v1/collections", json={"name": "colours"}).status_code == 201
    yield
    server.http.delete("/v1/collections/colours")


def put(server: RunningServer, *labels: str | dict[str, Any], **more: Any) -> Any:
    said = [{"label": one} if isinstance(one, str) else one for one in labels]
    return server.http.put(LABELS, json={"labels": said, **more})


def upload(server: RunningServer, colour: str) -> str:
    answer = server.upload(make_picture(colour), collection="colours")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def tags_of(server: RunningServer, id: str) -> list[str]:
    return [one["tag"] for one in server.http.get(f"/v1/images/{id}", params=INTO).json()["auto_tags"]]


def test_labels_tag_what_is_there_and_what_comes(server: RunningServer, colours: None) -> None:
    before = upload(server, "red")
    answer = put(server, "red", {"label": "leaf", "texts": ["a green thing", "green"], "threshold": 0.4}, threshold=0.6)
    assert answer.status_code == 200, answer.text
    server.wait_job(answer.json()["job"])
    after = upload(server, "green")
    wait_until(lambda: tags_of(server, after) == ["leaf"], 20.0)
    assert tags_of(server, before) == ["red"]
    state = server.http.get(LABELS).json()
    assert [(one["label"], one["threshold"], one["tagged"]) for one in state["labels"]] == [
        ("red", 0.6, 1),
        ("leaf", 0.4, 1),
    ]
    assert (state["basis"], state["applied"]["is_current"], state["job"]) == ("shares", True, None)
    assert [one["code"] for one in state["warnings"]] == ["not_calibrated"]
    (red,) = server.http.get(f"/v1/images/{before}", params=INTO).json()["auto_tags"]
    assert 0.6 <= red["probability"] <= 1


def test_a_person_rejects_a_tag_and_filters_and_facets_follow(server: RunningServer, colours: None) -> None:
    put(server, "red", "green")
    ids = [upload(server, one) for one in ("red", "red", "green")]
    wait_until(lambda: all(tags_of(server, id) for id in ids), 20.0)
    answer = server.http.patch(f"/v1/images/{ids[0]}", params=INTO, json={"rejected_tags": ["red"]})
    assert (answer.json()["auto_tags"], answer.json()["rejected_tags"]) == ([], ["red"])

    def apply() -> dict[str, Any] | None:
        answer = server.http.post(f"{LABELS}/apply")
        assert answer.status_code in (202, 409)  # the labels that were put may still be applied
        return answer.json() if answer.status_code == 202 else None

    job = wait_until(apply, 20.0)
    assert (job["kind"], job["is_task"]) == ("auto_tags", True)
    assert server.wait_job(job["id"])["result"]["tagged"] == 3  # of which one is rejected
    assert tags_of(server, ids[0]) == []
    body = {"filter": {"must": [{"key": "auto_tags", "match": {"any": ["red"]}}]}, "facets": ["auto_tags"]}
    found = server.http.post("/v1/search", params=INTO, json={"query": [{"text": "red"}], **body}).json()
    assert [hit["id"] for hit in found["hits"]] == [ids[1]]
    assert found["facets"]["auto_tags"] == [{"value": "red", "count": 1}]


@pytest.mark.parametrize("rejected", [["x" * 1_000], [""], [f"tag {n}" for n in range(101)]])
def test_rejected_tags_are_within_the_limits_of_tags(server: RunningServer, colours: None, rejected: list[str]) -> None:
    id = upload(server, "red")
    answer = server.http.patch(f"/v1/images/{id}", params=INTO, json={"caption": "new", "rejected_tags": rejected})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation")
    assert server.http.get(f"/v1/images/{id}", params=INTO).json()["caption"] is None


def test_taking_the_labels_away_takes_their_tags(server: RunningServer, colours: None) -> None:
    put(server, "red", "green")
    id = upload(server, "red")
    wait_until(lambda: tags_of(server, id) == ["red"], 20.0)
    assert server.http.delete(LABELS).status_code == 204
    wait_until(lambda: tags_of(server, id) == [], 20.0)
    wait_until(lambda: server.http.get(LABELS).json()["applied"] is None, 20.0)
    assert server.http.get(LABELS).json()["labels"] == []


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"labels": [{"label": f"label {n}"} for n in range(10_000)]}, "at most 1000"),
        ({"labels": [{"label": "a"}, {"label": "a"}]}, "there twice"),
        ({"labels": [{"label": " a"}]}, "space"),
        ({"labels": [{"label": "x" * 101}]}, "100 characters"),
        ({"labels": [{"label": ""}]}, "at least 1"),
        ({"labels": [{"label": "a", "threshold": 0}]}, "more than 0"),
        ({"labels": [{"label": "a", "threshold": 1.1}]}, "at most 1"),
        ({"labels": [{"label": "a", "texts": ["a"] * 17}]}, "at most 16"),
        ({"labels": [{"label": "a", "texts": ["x" * 1_001]}]}, "1000 characters"),
        ({"labels": [{"label": "a", "templates": ["no blank"]}]}, "{}"),
        ({"labels": [{"label": "a", "text": "b"}]}, "texts"),
        (
            {"labels": [{"label": f"l{n}"} for n in range(900)], "templates": ["{}", "a {}", "b {}", "c {}", "d {}"]},
            "4000 at most",
        ),
        ({}, "labels"),
    ],
)
def test_bad_labels_are_refused(server: RunningServer, body: dict[str, Any], detail: str) -> None:
    refused = check_refusal(server.http.put("/v1/collections/default/labels", json=body), 422, "validation")
    assert detail in refused["detail"]
    assert server.http.get("/v1/collections/default/labels").json()["labels"] == []


def test_a_collection_that_is_not_there_has_no_labels(server: RunningServer) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/apply")):
        check_refusal(server.http.request(method, f"/v1/collections/nowhere/labels{path}"), 404, "not_found")
