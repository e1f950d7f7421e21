"""Many searches in one call over HTTP."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.app.api.asking import check_refusal, make_picture, upload_ready
from tests.support.servers import RunningServer


def batch(server: RunningServer, *searches: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    """The answers to these searches."""
    response = server.http.post("/v1/search/batch", json={"searches": searches}, params=params)
    assert response.status_code == 200, response.text
    assert set(response.json()) == {"answers"}
    answers: list[dict[str, Any]] = response.json()["answers"]
    return answers


def ids_and_scores(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(hit["id"], pytest.approx(hit["score"], abs=1e-5)) for hit in answer["hits"]]


def test_each_answer_is_that_of_a_search_of_its_own(server: RunningServer) -> None:
    image = upload_ready(server, "red", caption="batch")
    server.http.post("/v1/texts", json={"texts": [{"id": "batch-text", "text": "red"}]})
    content = base64.b64encode(make_picture("blue")).decode()
    searches: list[dict[str, Any]] = [
        {"query": [{"text": "red"}], "k": 3},
        {"query": [{"text": "red"}, {"image_id": image["id"], "weight": -0.2}], "k": 50},
        {"query": [{"image": content}], "k": 5},
        {"query": [{"image_id": image["id"]}], "target": "texts"},
        {"query": [{"image": content}, {"image": content, "weight": 0.5}], "exact": True},
        {"query": [{"vector": [1.0] * 60}], "k": 1000, "params": {"probes": 8, "rerank": None}},
    ]
    only = {"key": "caption", "match": {"text": "batch"}}
    searches += [{"query": [{"text": "red"}], "filter": only}, {"query": [{"text": "blue"}], "filter": only}]
    for search, answer in zip(searches, batch(server, *searches), strict=True):
        alone = server.http.post("/v1/search", json=search).json()
        assert ids_and_scores(answer) == ids_and_scores(alone)
        assert {name: alone[name] for name in ("model", "target", "searched")}.items() <= answer.items()
        assert set(answer) == set(alone)
        assert set(answer["took_ms"]) == {"encode", "search", "fetch", "total"}
        assert [hit["image"] for hit in answer["hits"]] == [hit["image"] for hit in alone["hits"]]
    assert not list((server.data_dir / "media" / ".incoming").iterdir())


def test_a_search_that_has_no_answer_says_why_in_its_place(server: RunningServer) -> None:
    image = upload_ready(server, "green")["id"]
    good = {"query": [{"image_id": image}], "k": 1}
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"query": [{"image_id": "gone"}]}, "not_found", "there is no image 'gone'"),
        ({"query": [{"text": "x"}], "collection": "other"}, "not_found", "there is no collection 'other'"),
        ({"query": [{"text": "x"}], "k": 1001}, "validation", "k must be from 1 to 1000"),
        ({"query": [{"text": "x"}], "filter": {"key": "size"}}, "validation", "size"),
        ({"query": [{"text": " "}]}, "validation", "the query is empty"),
        ({"query": [{"vector": [1.0]}]}, "validation", "has 60 numbers, not 1"),
        ({"query": [{}]}, "validation", "one of text"),
        ({"query": [{"text": "red"}, {"text": "red", "weight": -1}]}, "validation", "cancel each other out"),
        ({"query": [{"image": "no base64!"}]}, "validation", "not valid base64"),
        ({"query": [{"image": base64.b64encode(b"x" * 50).decode()}]}, "unsupported_media_type", ""),
    ]
    searches = [search for pair in ((good, search) for search, _, _ in wrong) for search in pair]
    answers = batch(server, *searches)
    assert [answer["hits"][0]["id"] for answer in answers[::2]] == [image] * len(wrong)
    for answer, (_, code, detail) in zip(answers[1::2], wrong, strict=True):
        assert set(answer) == {"error"}
        assert answer["error"]["code"] == code
        assert detail in answer["error"]["detail"]


ONE = {"query": [{"text": "x"}]}
BAD: list[tuple[Any, str]] = [
    ({}, "searches"),
    ({"searches": []}, "searches"),
    ({"searches": [ONE] * 101}, "searches"),
    ({"searches": [ONE, {"query": []}]}, "searches.1.query"),
    ({"searches": [ONE, ONE, {**ONE, "k": 0}]}, "searches.2.k"),
    ({"searches": [{**ONE, "more": 1}]}, "searches.0.more"),
    ({"searches": [{**ONE, "params": {"probes": 0}}]}, "searches.0.params.probes"),
    ({"searches": [{**ONE, "k": 1000}] * 11}, "10000 hits, these ask for 11000"),
    ({"searches": [{"query": [{"text": "x"}] * 32}] * 11}, "320 parts, these have 352"),
    ({"searches": [ONE], "more": 1}, "more"),
    ([ONE], ""),
]


@pytest.mark.parametrize(("body", "names"), BAD, ids=[str(body)[:60] for body, _ in BAD])
def test_a_body_of_another_shape_is_refused_as_a_whole_and_the_search_named(
    body: Any, names: str, server: RunningServer
) -> None:
    problem = check_refusal(server.http.post("/v1/search/batch", json=body), 422, "validation")
    assert names in problem["detail"]


def test_the_collection_of_the_address_is_that_of_searches_without_one(server: RunningServer) -> None:
    other, own, both = batch(
        server, ONE, {**ONE, "collection": "default"}, {**ONE, "collection": "other"}, collection="other"
    )
    assert other["error"]["code"] == both["error"]["code"] == "not_found"
    assert "collection" in own["error"]["detail"]


def test_a_hundred_searches_are_answered(server: RunningServer) -> None:
    upload_ready(server, "red")
    answers = batch(server, *({"query": [{"text": f"red {n}"}], "k": 1} for n in range(100)))
    assert len(answers) == 100
    assert all(len(answer["hits"]) == 1 for answer in answers)
