"""Texts over HTTP: stored, found by a picture, replaced, deleted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.app.api.asking import check_refusal, search_ids, upload_ready
from tests.support.servers import RunningServer


def put(server: RunningServer, *texts: dict[str, Any]) -> list[dict[str, Any]]:
    """Store texts; the records that come back."""
    response = server.http.post("/v1/texts", json={"texts": list(texts)})
    assert response.status_code == 200, response.text
    stored: list[dict[str, Any]] = response.json()["texts"]
    return stored


def test_texts_can_be_found_when_the_answer_is_there(server: RunningServer) -> None:
    for n in range(5):
        (text,) = put(server, {"text": f"purple thing {n}"})
        assert set(text) == {"id", "text", "metadata", "created_at", "truncated"}
        assert text["truncated"] is False
        assert text["id"] in search_ids(server, "purple", target="texts")


def test_a_text_has_what_was_said(server: RunningServer) -> None:
    one, two = put(server, {"id": "T-1", "text": "红色 red", "metadata": {"a": [1]}}, {"text": "blue"})
    assert (one["id"], one["text"], one["metadata"]) == ("T-1", "红色 red", {"a": [1]})
    assert server.http.get("/v1/texts/T-1").json() == one
    assert put(server, {"text": "blue"})[0]["id"] == two["id"]  # the same words, the same text


def test_a_known_id_gets_the_new_words(server: RunningServer) -> None:
    put(server, {"id": "changing", "text": "yellow"})
    put(server, {"id": "changing", "text": "green"})
    assert server.http.get("/v1/texts/changing").json()["text"] == "green"
    hits = server.http.get("/v1/search", params={"q": "green", "k": 1000, "target": "texts"}).json()["hits"]
    scores = {hit["id"]: hit["score"] for hit in hits}
    assert len(scores) == len(hits)
    assert scores["changing"] > 0.99


def test_a_picture_finds_its_words(server: RunningServer) -> None:
    ids = [text["id"] for text in put(server, *({"text": colour} for colour in ("red", "blue", "black")))]
    image = upload_ready(server, "blue")
    body = {"query": [{"image_id": image["id"]}], "target": "texts", "k": 1000}
    hits = server.http.post("/v1/search", json=body).json()["hits"]
    first = next(hit for hit in hits if hit["id"] in ids)
    assert first["text"]["text"] == "blue"
    assert first["image"] is None


def test_a_deleted_text_is_gone_at_once(server: RunningServer) -> None:
    for _ in range(3):
        put(server, {"id": "gone", "text": "orange"})
        response = server.http.delete("/v1/texts/gone")
        assert (response.status_code, response.content) == (204, b"")
        assert "gone" not in search_ids(server, "orange", target="texts")
        check_refusal(server.http.get("/v1/texts/gone"), 404, "not_found")
        check_refusal(server.http.delete("/v1/texts/gone"), 404, "not_found")


def test_a_thousand_texts_are_taken_and_one_more_is_refused(server: RunningServer) -> None:
    texts = [{"text": f"number {n}"} for n in range(1_001)]
    assert len(put(server, *texts[:1_000])) == 1_000
    check_refusal(server.http.post("/v1/texts", json={"texts": texts}), 422, "validation")


BAD: list[Any] = [
    {},
    {"texts": []},
    {"texts": "x"},
    {"texts": [{}]},
    {"texts": [{"text": ""}]},
    {"texts": [{"text": "  "}]},
    {"texts": [{"text": 1}]},
    {"texts": [{"text": "x" * 1_001}]},
    {"texts": [{"text": "x", "id": "a b"}]},
    {"texts": [{"text": "x", "id": ""}]},
    {"texts": [{"text": "x", "more": 1}]},
    {"texts": [{"text": "x", "metadata": {"a": "x" * 16_384}}]},
    {"texts": [{"text": "x", "metadata": {"a": [[[[[[[[1]]]]]]]]}}]},
    {"texts": [{"text": "x", "metadata": []}]},
    {"texts": [{"text": "x"}], "collection": "A"},
    [],
]


@pytest.mark.parametrize("body", BAD, ids=lambda body: str(body)[:40])
def test_bad_texts_are_refused_and_none_of_them_kept(body: Any, server: RunningServer) -> None:
    if isinstance(body, dict) and body.get("texts") and isinstance(body["texts"], list):
        body = {**body, "texts": [{"id": "neighbour", "text": "fine"}, *body["texts"]]}
    check_refusal(server.http.post("/v1/texts", json=body), 422, "validation")
    check_refusal(server.http.get("/v1/texts/neighbour"), 404, "not_found")


def test_texts_of_another_collection_are_refused(server: RunningServer) -> None:
    for extra, params in (({"collection": "other"}, {}), ({}, {"collection": "other"})):
        response = server.http.post("/v1/texts", params=params, json={"texts": [{"text": "x"}], **extra})
        check_refusal(response, 404, "not_found")


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200).filter(str.strip))
def test_any_text_comes_back_as_it_was(text: str, server: RunningServer) -> None:
    (stored,) = put(server, {"text": text, "metadata": {text: text}})
    assert (stored["text"], stored["metadata"]) == (text, {text: text})
    assert server.http.get(f"/v1/texts/{stored['id']}").json() == stored


def test_texts_are_listed_newest_first_a_page_at_a_time(server: RunningServer) -> None:
    assert server.http.post("/v1/collections", json={"name": "listed"}).status_code == 201
    place = {"collection": "listed"}
    texts = [{"id": f"t{n}", "text": f"text {n}"} for n in range(5)]
    stored = server.http.post("/v1/texts", json={"texts": texts, **place}).json()["texts"]
    seen: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"limit": 2, **place}
    while True:
        page = server.http.get("/v1/texts", params=asked).json()
        seen += page["texts"]
        if page["next_cursor"] is None:
            break
        assert len(page["texts"]) == 2
        asked["cursor"] = page["next_cursor"]
    assert seen == stored[::-1]
    assert server.http.delete("/v1/texts/t4", params=place).status_code == 204
    assert server.http.get("/v1/texts", params=place).json() == {"texts": stored[3::-1], "next_cursor": None}
    check_refusal(server.http.get("/v1/texts", params={"cursor": "!"}), 400, "bad_request")
    check_refusal(server.http.get("/v1/texts", params={"collection": "nowhere"}), 404, "not_found")
    assert server.http.delete("/v1/collections/listed").status_code == 204


def test_odd_texts_are_stored_and_told(server: RunningServer) -> None:
    body = {"texts": [{"text": "red"}, {"text": "красный"}, {"text": "🔵"}]}
    key = {"Idempotency-Key": "odd-texts"}
    first = server.http.post("/v1/texts", json=body, headers=key).json()
    told = [(warning["code"], warning["field"]) for warning in first["warnings"]]
    assert told == [("language_unknown", "texts.1.text"), ("emoji_named", "texts.2.text")]
    assert [text["text"] for text in first["texts"]] == ["red", "красный", "🔵"]
    assert server.http.post("/v1/texts", json=body, headers=key).json() == first
    scores = {
        hit["id"]: hit["score"]
        for hit in server.http.get("/v1/search", params={"q": "blue", "target": "texts", "k": 1000}).json()["hits"]
    }
    assert scores[first["texts"][2]["id"]] == pytest.approx(1)
