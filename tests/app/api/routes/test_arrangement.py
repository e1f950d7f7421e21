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
            fields = {"metadata": json.dumps(said), "tags": [colour, "all"], "caption": f"a {colour} thing"}
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
    cursor: dict[str, str] = {}
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
        ({"order_by": "taken_at"}, "does not know the taken_at"),
        ({"order_by": ""}, "there is no field ''"),
        ({"order_by": "tags"}, "there are score, created_at, width, bytes and metadata"),
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
    assert split_fields('tags, metadata."a,b".c,year') == ["tags", 'metadata."a,b".c', "year"]


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
