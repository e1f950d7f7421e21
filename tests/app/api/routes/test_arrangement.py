"""Ordered lists, facets and vectors over HTTP; how hits are arranged."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from app.api.arrangement import decode_place, encode_place, split_fields
from app.core.errors import BadRequest
from app.storage.filters.values import Place, parse_order
from tests.app.api.asking import make_picture
from tests.support.servers import RunningServer

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
SHELVES = [2, "b", None, 10, "a", True]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two shades of each colour."""
    with RunningServer(tmp_path_factory.mktemp("shop")) as server:
        for n, colour in enumerate(COLOURS * 2):
            said: dict[str, Any] = {"shelf": SHELVES[n % 6], "kind": "warm" if n % 6 in (0, 3) else "cold"}
            fields: dict[str, Any] = {
                "metadata": json.dumps(said),
                "tags": [colour, "all"],
                "caption": f"a {colour} thing",
            }
            server.upload(make_picture(colour), id=f"{colour}-{n // 6}", wait=20, **fields)
        yield server


def get(server: RunningServer, path: str, status: int = 200, **params: Any) -> dict[str, Any]:
    response = server.http.get(path, params=params)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def list_ids(server: RunningServer, **params: Any) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = get(server, "/v1/images", **params, **cursor)
        ids += [image["id"] for image in page["images"]]
        if page["next_cursor"] is None:
            return ids
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_a_list_is_ordered_by_an_entry_of_many_types(limit: int, shop: RunningServer) -> None:
    shelf = {image["id"]: image["metadata"]["shelf"] for image in get(shop, "/v1/images", limit=1000)["images"]}
    rising = list_ids(shop, order_by="metadata.shelf", limit=limit)
    assert [shelf[id] for id in rising] == [2, 2, 10, 10, "a", "a", "b", "b", True, True, None, None]
    falling = list_ids(shop, order_by="-metadata.shelf", limit=limit)
    assert [shelf[id] for id in falling] == [True, True, "b", "b", "a", "a", 10, 10, 2, 2, None, None]
    assert rising[:2] == ["red-1", "red-0"]  # the newest first
    assert len(set(rising)) == len(set(falling)) == 12


def test_a_list_is_ordered_within_a_filter(shop: RunningServer) -> None:
    warm = json.dumps({"key": "metadata.kind", "match": {"value": "warm"}})
    assert list_ids(shop, order_by="created_at", filter=warm) == ["red-0", "yellow-0", "red-1", "yellow-1"]
    sizes = {image["id"]: image["bytes"] for image in get(shop, "/v1/images", limit=1000)["images"]}
    found = list_ids(shop, order_by="-bytes", limit=2)
    assert [sizes[id] for id in found] == sorted(sizes.values(), reverse=True)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order_by": "score"}, "only hits of a search have a score"),
        ({"order_by": "-score"}, "it takes no minus"),
        ({"order_by": "witdh"}, "did you mean width?"),
        ({"order_by": "taken"}, "did you mean taken_at?"),
        ({"order_by": ""}, "there is no field ''"),
        ({"order_by": "tags"}, "there are score, created_at, taken_at, width, bytes, t_ms and metadata"),
        ({"facets": "tag"}, "did you mean tags?"),
        ({"facets": ",".join(f"metadata.f{n}" for n in range(20))}, "counts 10 fields at most, these are 20"),
        ({"facets": "tags", "facet_size": 101}, "facet_size"),
        ({"facets": "tags", "facet_size": 0}, "facet_size"),
        ({"vectors": "true", "limit": 101}, "100 pictures at most"),
    ],
)
def test_odd_lists_are_refused(params: dict[str, Any], message: str, shop: RunningServer) -> None:
    problem = get(shop, "/v1/images", 422, **params)
    assert problem["code"] == "validation"
    assert message in problem["detail"]


def test_a_cursor_belongs_to_its_order(shop: RunningServer) -> None:
    cursor = get(shop, "/v1/images", order_by="width", limit=2)["next_cursor"]
    for order in ({}, {"order_by": "-width"}, {"order_by": "bytes"}):
        assert get(shop, "/v1/images", 400, cursor=cursor, **order)["code"] == "bad_request"
    newest = get(shop, "/v1/images", limit=2)["next_cursor"]
    assert get(shop, "/v1/images", 400, cursor=newest, order_by="width")["code"] == "bad_request"


@pytest.mark.parametrize("value", [None, 1, 1.5, "x" * 256, '"é,'])
def test_a_place_is_the_same_after_its_cursor(value: Any) -> None:
    order = parse_order("metadata.a", "images")
    place = Place(1, value, 7)
    assert decode_place(order, encode_place(order, place)) == place


@pytest.mark.parametrize(
    "said",
    [[], {}, ["metadata.a", 1, "x"], ["metadata.a", 9, 1, 1], ["metadata.a", 1, [], 1], ["metadata.a", 1, 1, True], 5],
)
def test_places_that_no_list_has_given_are_refused(said: Any) -> None:
    order = parse_order("metadata.a", "images")
    with pytest.raises(BadRequest):
        decode_place(order, base64.urlsafe_b64encode(json.dumps(said).encode()).decode())
    with pytest.raises(BadRequest):
        decode_place(order, "no place")


def test_fields_have_commas_between_them() -> None:
    assert split_fields(None) == []
    assert split_fields(['tags, metadata."a,b".c', "year"]) == ["tags", 'metadata."a,b".c', "year"]


def test_a_list_counts_facets(shop: RunningServer) -> None:
    page = get(shop, "/v1/images", limit=1, facets="tags,format,year,metadata.shelf,tags", facet_size=3)
    assert list(page["facets"]) == ["tags", "format", "year", "metadata.shelf"]
    assert page["facets"]["tags"] == [
        {"value": "all", "count": 12},
        *({"value": v, "count": 2} for v in ("black", "blue")),
    ]
    assert page["facets"]["format"] == [{"value": "png", "count": 12}]
    assert page["facets"]["metadata.shelf"] == [{"value": value, "count": 2} for value in (2, 10, "a")]
    cold = json.dumps({"key": "metadata.kind", "match": {"value": "cold"}})
    page = get(shop, "/v1/images", facets="metadata.kind", filter=cold)
    assert page["facets"] == {"metadata.kind": [{"value": "cold", "count": 8}]}
    assert "facets" not in get(shop, "/v1/images")
    assert list(get(shop, "/v1/images", facets=["tags", "format,year"])["facets"]) == ["tags", "format", "year"]


def test_vectors_come_as_they_are_stored(shop: RunningServer) -> None:
    found = get(shop, "/v1/images/red-0/vector")
    assert set(found) == {"id", "vector", "d", "space", "model"}
    assert (found["id"], found["model"], found["d"]) == ("red-0", "colours", len(found["vector"]))
    assert np.linalg.norm(found["vector"]) == pytest.approx(1, abs=1e-6)
    assert [float(str(one)) for one in np.array(found["vector"], np.float32)] == found["vector"]
    page = get(shop, "/v1/images", vectors="true", limit=100)
    assert {image["id"]: image["vector"] for image in page["images"]}["red-0"] == found["vector"]
    assert all("vector" not in image for image in get(shop, "/v1/images")["images"])
    answer = shop.http.post("/v1/search", json={"query": [{"vector": found["vector"]}], "k": 1}).json()
    assert answer["hits"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_a_vector_that_is_not_there_is_not_found(shop: RunningServer) -> None:
    assert get(shop, "/v1/images/none/vector", 404)["code"] == "not_found"
    assert get(shop, "/v1/images/red-0/vector", 404, collection="none")["code"] == "not_found"


# ---- searches


def search(server: RunningServer, status: int = 200, **body: Any) -> dict[str, Any]:
    """The answer to a search by parts; by the word "red" if the body has no query."""
    response = server.http.post("/v1/search", json={"query": [{"text": "red"}], "mode": "vector", **body})
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def hit_ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


ARRANGED: list[dict[str, Any]] = [
    {},
    {"mode": "hybrid"},
    {"mode": "keyword"},
    {"collapse": True},
    {"diversity": 0.5},
    {"group_by": "metadata.kind", "group_size": 2},
    {"group_by": "metadata.shelf"},
    {"collapse": True, "diversity": 1.0, "group_by": "metadata.kind", "group_size": 3},
    {"like": ["blue-0"], "unlike": ["green-0"]},
    {"exact": True},
]


@pytest.mark.parametrize("more", ARRANGED)
def test_pages_are_disjoint_and_do_not_depend_on_their_size(more: dict[str, Any], shop: RunningServer) -> None:
    whole = hit_ids(search(shop, k=1000, **more))
    assert len(whole) == len(set(whole)) >= 2
    for k in (1, 3, 5):
        assert hit_ids(search(shop, k=k, **more)) == whole[:k]
        pages = [hit_ids(search(shop, k=k, offset=offset, **more)) for offset in range(0, 12, k)]
        assert [id for page in pages for id in page] == whole
    assert search(shop, k=10, offset=9_990, **more)["hits"] == []


def test_hits_are_put_in_order_and_stay_the_same(shop: RunningServer) -> None:
    best = search(shop, k=4)
    ordered = search(shop, k=4, order_by="-metadata.shelf")
    assert set(hit_ids(ordered)) == set(hit_ids(best))
    shelves = [hit["image"]["metadata"]["shelf"] for hit in ordered["hits"]]
    kinds = [3 if one is None else 2 - ("int", "str", "bool").index(type(one).__name__) for one in shelves]
    assert kinds == sorted(kinds)
    assert ordered["applied"]["order_by"] == "-metadata.shelf"
    assert hit_ids(search(shop, k=4, order_by="score")) == hit_ids(best)
    made = [hit["image"]["created_at"] for hit in search(shop, k=12, order_by="created_at")["hits"]]
    assert made == sorted(made)


def test_odd_entries_are_told(shop: RunningServer) -> None:
    warnings = search(shop, k=12, order_by="metadata.shelf", group_by="metadata.none")["warnings"]
    assert [(one["code"], one["field"]) for one in warnings] == [
        ("field_other_values", "order_by"),
        ("field_no_value", "group_by"),
    ]


def test_each_group_has_its_first_hits(shop: RunningServer) -> None:
    best = search(shop, k=12)["hits"]
    for size in (1, 2):
        found = search(shop, k=12, group_by="metadata.kind", group_size=size)
        kinds = [hit["image"]["metadata"]["kind"] for hit in found["hits"]]
        assert sorted(kinds) == sorted(["warm", "cold"] * size)
        firsts = [hit["id"] for hit in best if hit["image"]["metadata"]["kind"] == "warm"][:size]
        assert [id for id in hit_ids(found) if id in firsts] == firsts
    assert len(search(shop, k=12, group_by="month")["hits"]) == 1
    assert len(search(shop, k=12, group_by="job_id")["hits"]) == 12  # they came one by one, without a job


def test_near_duplicates_are_listed_with_the_best(shop: RunningServer) -> None:
    found = search(shop, k=12, collapse=True)
    listed = [one["id"] for hit in found["hits"] for one in hit.get("duplicates", [])]
    assert sorted([*hit_ids(found), *listed]) == sorted(hit_ids(search(shop, k=12)))
    first = found["hits"][0]
    (other,) = first["duplicates"]
    assert {first["id"], other["id"]} == {"red-0", "red-1"}
    assert first["score"] >= other["score"]
    assert found["applied"]["collapse"] <= other["similarity"] <= 1.0001
    assert all("duplicates" not in hit for hit in search(shop)["hits"])


def test_diversity_shows_other_colours_sooner(shop: RunningServer) -> None:
    plain, other = (hit_ids(search(shop, k=3, diversity=d)) for d in (0, 0.8))
    assert {id.split("-")[0] for id in plain[:2]} == {"red"}
    assert other[0] == plain[0]
    assert len({id.split("-")[0] for id in other}) == 3


def test_liked_pictures_draw_the_query_and_unliked_ones_are_no_hits(shop: RunningServer) -> None:
    def place(answer: dict[str, Any]) -> int:
        return hit_ids(answer).index("blue-1")

    plain, liked = search(shop, k=12), search(shop, k=12, like=["blue-0"])
    assert place(liked) <= place(plain)
    score = {hit["id"]: hit["score"] for hit in liked["hits"]}["blue-1"]
    assert score > {hit["id"]: hit["score"] for hit in plain["hits"]}["blue-1"]
    assert liked["applied"]["like"] > 0
    turned = search(shop, k=12, unlike=["red-0"])
    assert "red-0" not in hit_ids(turned)
    assert turned["hits"][0]["score"] <= plain["hits"][0]["score"]
    by_picture = search(shop, k=12, query=[{"image_id": "red-0"}], like=["blue-0"])
    assert by_picture["applied"]["like"] > liked["applied"]["like"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"like": ["none"]}, 404, "there is no image 'none' in 'default'"),
        ({"unlike": ["none"]}, 404, "there is no image 'none' in 'default'"),
        ({"like": ["hidden"]}, 404, "there is no image 'hidden' in 'default'"),
        ({"like": ["red-0"], "unlike": ["red-0"]}, 422, "is in like and in unlike"),
        ({"like": ["red-0"], "mode": "keyword"}, 422, "which mode 'keyword' does not compare"),
        ({"like": [f"id-{n}" for n in range(33)]}, 422, "like"),
        ({"like": ["a b"]}, 422, "like"),
        ({"offset": 9_995, "k": 10}, 422, "offset + k must be 10000 at most"),
        ({"offset": 10_000}, 422, "offset"),
        ({"offset": -1}, 422, "offset"),
        ({"diversity": 1.5}, 422, "diversity"),
        ({"group_by": "jobid"}, 422, "did you mean job_id?"),
        ({"group_by": "video"}, 422, "did you mean video_id?"),
        ({"group_size": 0, "group_by": "day"}, 422, "group_size"),
        ({"order_by": "tags"}, 422, "there is no field 'tags'"),
        ({"order_by": "width", "target": "texts"}, 422, "there is no field 'width'"),
        ({"facets": ["camra"]}, 422, "did you mean camera?"),
        ({"facets": [f"metadata.n{n}" for n in range(20)]}, 422, "10 fields at most, these are 20"),
        ({"facets": "tags"}, 422, "facets"),
        ({"colapse": True}, 422, "did you mean 'collapse'?"),
    ],
)
def test_odd_arrangements_are_refused(body: dict[str, Any], status: int, message: str, shop: RunningServer) -> None:
    if body.get("like") == ["hidden"]:
        shop.http.post("/v1/collections", json={"name": "hidden"})
        shop.upload(make_picture("red"), id="hidden", wait=0, collection="hidden")
    assert message in search(shop, status, **body)["detail"]


def test_a_diversity_that_is_no_number_is_refused(shop: RunningServer) -> None:
    for value in ("nan", "inf", "x"):
        assert get(shop, "/v1/search", 422, q="red", diversity=value)["code"] == "validation"
    headers = {"Content-Type": "application/json"}
    body = '{"query": [{"text": "red"}], "diversity": NaN}'
    assert shop.http.post("/v1/search", content=body, headers=headers).status_code in (400, 422)


@pytest.mark.parametrize(("mode", "count"), [("vector", 12), ("hybrid", 12), ("keyword", 2)])
def test_facets_count_what_the_query_lets_through(mode: str, count: int, shop: RunningServer) -> None:
    answer = search(shop, k=1, mode=mode, facets=["format", "tags", "metadata.kind"], facet_size=1)
    assert answer["facets"]["format"] == [{"value": "png", "count": count}]
    assert [len(one) for one in answer["facets"].values()] == [1, 1, 1]
    warm = {"key": "metadata.kind", "match": {"value": "warm"}}
    answer = search(shop, k=1, mode=mode, facets=["metadata.kind"], filter=warm)
    assert answer["facets"]["metadata.kind"] == [{"value": "warm", "count": min(count, 4)}]
    assert "facets" not in search(shop, k=1)


def test_facets_of_texts_count_their_metadata(shop: RunningServer) -> None:
    texts = [{"id": f"t{n}", "text": f"a red {n}", "metadata": {"n": n % 2}} for n in range(3)]
    assert shop.http.post("/v1/texts", json={"texts": texts}).status_code == 200
    answer = search(shop, target="texts", facets=["metadata.n", "year"], order_by="-metadata.n", group_by="day")
    assert answer["facets"]["metadata.n"] == [{"value": 0, "count": 2}, {"value": 1, "count": 1}]
    assert len(answer["hits"]) == 1


def test_every_kind_of_search_takes_the_fields(shop: RunningServer) -> None:
    wanted = search(shop, k=2, offset=1, collapse=True, facets=["tags", "format"], facet_size=2)
    params: dict[str, Any] = {
        "q": "red",
        "mode": "vector",
        "k": 2,
        "offset": 1,
        "collapse": "true",
        "facets": "tags,format",
        "facet_size": 2,
    }
    found = get(shop, "/v1/search", **params)
    assert (found["hits"], found["facets"]) == (wanted["hits"], wanted["facets"])
    body = {"query": [{"text": "red"}], "mode": "vector", "k": 2, "offset": 1, "collapse": True}
    body |= {"facets": ["tags", "format"], "facet_size": 2}
    (batched,) = shop.http.post("/v1/search/batch", json={"searches": [body]}).json()["answers"]
    assert (batched["hits"], batched["facets"]) == (wanted["hits"], wanted["facets"])
    data = {"k": 2, "offset": 1, "collapse": "true", "facets": ["tags", "format"], "order_by": "-created_at"}
    files = {"file": ("a.png", make_picture("red"))}
    sent = shop.http.post("/v1/search/image", data=data, files=files)
    assert sent.status_code == 200, sent.text
    assert len(sent.json()["hits"]) == 2
    assert list(sent.json()["facets"]) == ["tags", "format"]


@pytest.mark.parametrize(
    ("search", "count", "message"),
    [
        ({"collapse": True}, 11, "10 searches may have collapse, group_by or diversity, not 11"),
        ({"offset": 9_000}, 2, "may ask for 10000 hits, these ask for 18020"),
        ({"facets": [f"metadata.n{n}" for n in range(10)]}, 11, "may count 100 facets, these count 110"),
    ],
)
def test_a_batch_is_bounded(search: dict[str, Any], count: int, message: str, shop: RunningServer) -> None:
    body = {"searches": [{"query": [{"text": "red"}], **search}] * count}
    response = shop.http.post("/v1/search/batch", json=body)
    assert response.status_code == 422
    assert message in response.json()["detail"]
