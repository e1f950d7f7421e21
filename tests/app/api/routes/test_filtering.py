"""Filters over HTTP: the same one searches, lists and deletes."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.app.api.asking import check_refusal, make_picture, upload_ready
from tests.support.servers import RunningServer


def has_tag(tag: str) -> dict[str, Any]:
    return {"key": "tags", "match": {"value": tag}}


def four(server: RunningServer) -> tuple[str, list[str]]:
    """A tag that only these four pictures have, and their ids: red, red, red, blue; numbered, the first captioned."""
    tag = uuid.uuid4().hex
    colours = ("red", "red", "red", "blue")
    images = [upload_ready(server, c, tags=[tag], metadata=json.dumps({"n": n})) for n, c in enumerate(colours)]
    server.http.patch(f"/v1/images/{images[0]['id']}", json={"caption": "The first one"})
    return tag, [image["id"] for image in images]


def list_ids(server: RunningServer, filter: Any, **params: Any) -> list[str]:
    """The ids of every page."""
    ids, cursor = [], None
    while True:
        sent = params | {"filter": json.dumps(filter)} | ({"cursor": cursor} if cursor else {})
        page = server.http.get("/v1/images", params=sent).json()
        ids += [image["id"] for image in page["images"]]
        if (cursor := page["next_cursor"]) is None:
            return ids


def test_the_openapi_document_describes_filters(server: RunningServer) -> None:
    schemas = server.http.get("/openapi.json").json()["components"]["schemas"]
    node = {"$ref": "#/components/schemas/FilterNode"}
    for body in ("SearchIn", "DeleteIn"):
        assert schemas[body]["properties"]["filter"]["anyOf"] == [node, {"type": "null"}]
    assert schemas["NumberCondition"]["properties"]["key"]["enum"] == ["width", "height", "bytes", "t_ms"]


def test_every_search_knows_the_filter(server: RunningServer) -> None:
    tag, ids = four(server)
    filter = {"must": [has_tag(tag)], "must_not": [{"key": "metadata.n", "range": {"gte": 2}}]}

    def hits(answer: Any) -> set[str]:
        assert answer.status_code == 200, answer.text
        assert answer.json()["searched"] == 2
        return {hit["id"] for hit in answer.json()["hits"]}

    text = json.dumps(filter)
    http = server.http
    assert hits(http.get("/v1/search", params={"q": "blue", "filter": text})) == set(ids[:2])
    assert hits(http.post("/v1/search", json={"query": [{"text": "blue"}], "filter": filter})) == set(ids[:2])
    files = {"file": ("a.png", make_picture("blue"))}
    assert hits(http.post("/v1/search/image", files=files, data={"filter": text})) == set(ids[:2])
    assert hits(http.post("/v1/search/image", files=files, params={"filter": text})) == set(ids[:2])
    body = {"query": [{"text": "x"}], "filter": None}  # none is no filter
    assert http.post("/v1/search", json=body).json()["searched"] > 2


def test_a_search_sees_what_was_changed_before_it(server: RunningServer) -> None:
    tag, ids = four(server)
    params = {"q": "red", "filter": json.dumps(has_tag(tag))}

    def hits() -> set[str]:
        return {hit["id"] for hit in server.http.get("/v1/search", params=params).json()["hits"]}

    assert hits() == set(ids)
    server.http.patch(f"/v1/images/{ids[0]}", json={"tags": []})
    server.http.delete(f"/v1/images/{ids[1]}")
    late = upload_ready(server, "red", tags=[tag])["id"]
    assert hits() == {ids[2], ids[3], late}
    files = {"file": ("a.png", make_picture("green"))}  # what replaces it has no tag
    answer = server.http.post("/v1/images", params={"replace": True, "wait": 30}, files=files, data={"id": ids[2]})
    assert answer.status_code == 200, answer.text
    assert hits() == {ids[3], late}


def test_texts_are_found_by_their_words_and_metadata(server: RunningServer) -> None:
    word = f"w{uuid.uuid4().hex}"
    texts = [{"id": f"{word}-{n}", "text": f"A {word} thing", "metadata": {"n": n}} for n in range(3)]
    server.http.post("/v1/texts", json={"texts": texts})
    filter = {"must": [{"key": "text", "match": {"text": word.upper()}}, {"key": "metadata.n", "range": {"lt": 2}}]}
    params = {"q": "thing", "target": "texts", "filter": json.dumps(filter)}
    found = server.http.get("/v1/search", params=params).json()
    assert {hit["id"] for hit in found["hits"]} == {f"{word}-0", f"{word}-1"}
    params["target"] = "images"
    assert "'text'" in check_refusal(server.http.get("/v1/search", params=params), 422, "validation")["detail"]


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_pages_hold_what_is_let_through_once_newest_first(limit: int, server: RunningServer) -> None:
    tag, ids = four(server)
    assert list_ids(server, has_tag(tag), limit=limit) == ids[::-1]
    assert (
        list_ids(server, {"must": [has_tag(tag), {"key": "caption", "match": {"text": "FIRST"}}]}, limit=limit)
        == ids[:1]
    )
    assert list_ids(server, {"has_id": ["nothing"]}, limit=limit) == []


REFUSED: list[tuple[str, str]] = [
    ("x", "JSON"),
    ("", "JSON"),
    ("null", "expected an object"),
    ('{"key": "tag", "match": {"value": "x"}}', "tags"),
    ('{"key": "width", "match": {"value": "wide"}}', "width"),
    ('{"key": "width", "range": {"gte": NaN}}', "NaN"),
    (json.dumps({"should": [has_tag("x")] * 400}), "100 conditions"),
    ("[" * 10_000, "filter"),
]


@pytest.mark.parametrize(("filter", "named"), REFUSED, ids=[filter[:30] for filter, _ in REFUSED])
def test_a_bad_filter_is_refused_everywhere_and_names_what_is_wrong(
    filter: str, named: str, server: RunningServer
) -> None:
    http = server.http
    answers = [
        http.get("/v1/images", params={"filter": filter}),
        http.get("/v1/search", params={"q": "x", "filter": filter}),
    ]
    if filter:
        files = {"file": ("a.png", make_picture())}
        answers.append(http.post("/v1/search/image", files=files, data={"filter": filter}))
    for answer in answers:
        assert named in check_refusal(answer, 422, "validation")["detail"]


@pytest.mark.parametrize("path", ["/v1/search", "/v1/images/delete"])
def test_a_monstrous_filter_in_a_body_is_refused(path: str, server: RunningServer) -> None:
    filter: Any = has_tag("x")
    for _ in range(20):
        filter = {"must": [filter]}
    more = {"query": [{"text": "x"}]} if path == "/v1/search" else {"dry_run": True}
    assert (
        "nested 8 deep"
        in check_refusal(server.http.post(path, json={"filter": filter, **more}), 422, "validation")["detail"]
    )
    filter = {"should": [has_tag("x")] * 10_000}
    assert (
        "100 conditions"
        in check_refusal(server.http.post(path, json={"filter": filter, **more}), 422, "validation")["detail"]
    )
    filter = {"key": "tags", "match": {"any": ["x"] * 10_000}}
    assert (
        "1000 values"
        in check_refusal(server.http.post(path, json={"filter": filter, **more}), 422, "validation")["detail"]
    )


def delete(server: RunningServer, **body: Any) -> dict[str, Any]:
    response = server.http.post("/v1/images/delete", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_dry_run_says_what_would_be_deleted_and_deletes_nothing(server: RunningServer) -> None:
    tag, ids = four(server)
    answer = delete(server, filter=has_tag(tag), dry_run=True)
    assert (answer["matched"], answer["deleted"]) == (4, 0)
    assert [image["id"] for image in answer["examples"]] == ids[::-1]
    assert list_ids(server, has_tag(tag)) == ids[::-1]
    total = server.http.get("/v1/stats").json()["images"]["total"]
    answer = delete(server, all=True, dry_run=True)
    assert (answer["matched"], answer["deleted"], len(answer["examples"])) == (total, 0, 5)


def test_what_a_filter_lets_through_is_deleted_and_nothing_else(server: RunningServer) -> None:
    tag, ids = four(server)
    other, others = four(server)
    assert delete(server, filter={"must": [has_tag(tag), {"key": "metadata.n", "range": {"lt": 3}}]}) == {
        "matched": 3,
        "deleted": 3,
        "examples": [],
    }
    assert list_ids(server, has_tag(tag)) == ids[3:]
    for id in ids[:3]:
        check_refusal(server.http.get(f"/v1/images/{id}"), 404, "not_found")
    found = server.http.get("/v1/search", params={"q": "red", "k": 1000}).json()["hits"]
    assert not {hit["id"] for hit in found} & set(ids[:3])
    assert list_ids(server, has_tag(other)) == others[::-1]
    answer = delete(server, ids=[ids[3], others[0], "nothing"])
    assert (answer["matched"], answer["deleted"]) == (2, 2)
    assert list_ids(server, has_tag(other)) == others[:0:-1]


BODIES: list[tuple[Any, str]] = [
    ({}, "one of filter, ids and all"),
    ({"filter": {}}, "no condition"),
    ({"filter": {"must": [], "should": [{"must_not": []}]}}, "no condition"),
    ({"filter": None}, "one of filter, ids and all"),
    ({"filter": {}, "all": True}, "one of filter, ids and all"),
    ({"ids": ["x"], "filter": has_tag("x")}, "one of filter, ids and all"),
    ({"ids": []}, "ids"),
    ({"ids": ["../x"]}, "ids"),
    ({"all": "yes"}, "all"),
    ({"all": 1}, "all"),
    ({"all": False}, "one of filter, ids and all"),
    ({"filter": has_tag("x"), "dryrun": True}, "dryrun"),
    ({"filter": has_tag("x"), "dry_run": "true"}, "dry_run"),
    ({"filter": "x"}, "expected an object"),
    (None, ""),
]


@pytest.mark.parametrize(("body", "named"), BODIES, ids=[str(body) for body, _ in BODIES])
def test_a_deletion_that_is_not_clearly_meant_is_refused(body: Any, named: str, server: RunningServer) -> None:
    kept = upload_ready(server)["id"]
    assert named in check_refusal(server.http.post("/v1/images/delete", json=body), 422, "validation")["detail"]
    assert server.http.get(f"/v1/images/{kept}").status_code == 200


def test_another_collection_has_nothing_to_delete(server: RunningServer) -> None:
    body = {"all": True, "dry_run": True}
    check_refusal(server.http.post("/v1/images/delete", json=body, params={"collection": "other"}), 404, "not_found")
    check_refusal(server.http.post("/v1/images/delete", json={**body, "collection": "A b"}), 422, "validation")


def test_answers_say_why_a_filter_found_less_than_asked_for(server: RunningServer) -> None:
    where = {"collection": f"c{uuid.uuid4().hex[:12]}"}
    server.http.post("/v1/collections", json={"name": where["collection"]})
    upload_ready(server, metadata=json.dumps({"price": "9.99"}), **where)
    filter = {"key": "metadata.price", "range": {"lt": 20}}
    text = {"filter": json.dumps(filter)} | where
    http = server.http
    deletion = {"filter": filter, "dry_run": True}
    for answer in (
        http.get("/v1/images", params=text),
        http.get("/v1/search", params={"q": "red"} | text),
        http.post("/v1/images/delete", json=deletion, params=where),
    ):
        (warning,) = answer.json()["warnings"]
        assert (warning["code"], warning["field"]) == ("filter_other_values", "filter")
    page = http.get("/v1/images", params=where | {"filter": '{"key": "metadata.price", "match": {"value": "9.99"}}'})
    assert "warnings" not in page.json()
