"""Duplicates over HTTP: searched by a job, listed in pages, kept fresh."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tests.app.api.asking import check_refusal
from tests.support.sample_pictures import encode_image
from tests.support.servers import RunningServer

_names = itertools.count()


def draw(seed: int, size: tuple[int, int] = (200, 150)) -> Image.Image:
    """A picture of large, soft shapes."""
    levels = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def twins(server: RunningServer) -> Iterator[dict[str, Any]]:
    """The parameter that names a new collection."""
    name = f"twins{next(_names)}"
    assert server.http.post("/v1/collections", json={"name": name}).status_code == 201
    yield {"collection": name}
    server.http.delete(f"/v1/collections/{name}")


def add(
    server: RunningServer, where: dict[str, Any], id: str, image: Image.Image, kind: str = "png", **said: Any
) -> None:
    response = server.upload(encode_image(image, kind), id=id, **where, **said)
    assert (response.status_code, response.json()["status"]) == (200, "ready"), response.text


def add_copies(server: RunningServer, where: dict[str, Any], seed: int, name: str) -> None:
    """A picture, and two copies of it: a small JPEG and a recoloured one."""
    original = draw(seed)
    add(server, where, f"{name}-best", original)
    add(server, where, f"{name}-small", original.resize((100, 75)), "jpeg")
    add(server, where, f"{name}-pale", ImageEnhance.Color(original).enhance(0.8), "jpeg")


def scan(server: RunningServer, where: dict[str, Any]) -> dict[str, Any]:
    """Search for duplicates; returns the job when it has ended."""
    begun = server.http.post("/v1/duplicates", params=where)
    assert begun.status_code == 202, begun.text
    job = server.wait_job(begun.json()["id"])
    assert job["state"] == "succeeded", job
    return job


def ask(server: RunningServer, where: dict[str, Any], **asked: Any) -> dict[str, Any]:
    response = server.http.get("/v1/duplicates", params={**where, **asked})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids_of(answer: dict[str, Any]) -> list[list[str]]:
    return [[one["id"] for one in group["images"]] for group in answer["groups"]]


def test_nothing_is_listed_before_a_search(server: RunningServer, twins: dict[str, Any]) -> None:
    add_copies(server, twins, 1, "a")
    before = ask(server, twins)
    assert (before["groups"], before["total"], before["extra"]) == ([], 0, 0)
    assert before["scan"] == {"finished_at": None, "compared": 0, "waiting": 3, "job_id": None}
    (warning,) = before["warnings"]
    assert (warning["code"], "POST /v1/duplicates" in warning["detail"]) == ("not_scanned", True)


def test_copies_are_found_and_the_best_comes_first(server: RunningServer, twins: dict[str, Any]) -> None:
    for n, name in enumerate("abc"):
        add_copies(server, twins, n, name)
    add(server, twins, "alone", draw(50))
    job = scan(server, twins)
    assert (job["is_task"], job["kind"], job["done"]) == (True, "duplicates", job["total"])
    assert {name: job["result"][name] for name in ("pictures", "compared")} == {"pictures": 10, "compared": 10}
    assert job["result"]["groups"] == {"exact": 3, "near": 3}
    for kind in ("exact", "near"):
        found = ask(server, twins, kind=kind)
        assert [(group[0], set(group[1:])) for group in ids_of(found)] == [
            (f"{name}-best", {f"{name}-small", f"{name}-pale"}) for name in "cba"
        ]
        assert (found["total"], found["extra"], found["next_cursor"], found["warnings"]) == (3, 6, None, [])
        (first, *others) = found["groups"][0]["images"]
        assert (first["distance"], found["groups"][0]["size"], first["image"]["width"]) == (0, 3, 200)
        assert all(0 <= one["distance"] <= found["threshold"] for one in others)
    assert found["scan"]["compared"] == 10
    assert ask(server, twins, threshold=0)["total"] < 3


def test_pages_are_disjoint_and_belong_to_their_query(server: RunningServer, twins: dict[str, Any]) -> None:
    for n, name in enumerate("abc"):
        add_copies(server, twins, n, name)
    scan(server, twins)
    page = ask(server, twins, limit=1)
    pages = ids_of(page)
    while cursor := page["next_cursor"]:
        last = cursor
        page = ask(server, twins, limit=1, cursor=cursor)
        pages += ids_of(page)
    assert [group[0] for group in pages] == ["c-best", "b-best", "a-best"]
    for other in ({"kind": "exact"}, {"threshold": 0.1}, {"collection": "default"}):
        refused = server.http.get("/v1/duplicates", params={**twins, "cursor": last, **other})
        assert "another" in check_refusal(refused, 400, "bad_request")["detail"]
    for broken in ("x", "!!!", "4pyT"):
        check_refusal(server.http.get("/v1/duplicates", params={**twins, "cursor": broken}), 400, "bad_request")


def test_groups_stay_fresh_when_pictures_go_and_come(server: RunningServer, twins: dict[str, Any]) -> None:
    add_copies(server, twins, 1, "a")
    scan(server, twins)
    assert server.http.delete("/v1/images/a-best", params=twins).status_code == 204
    assert ids_of(ask(server, twins, kind="exact")) == [["a-pale", "a-small"]]
    replaced = server.upload(encode_image(draw(77), "png"), id="a-small", replace="true", **twins)
    assert replaced.json()["status"] == "ready"
    changed = ask(server, twins, kind="exact")
    assert (changed["groups"], changed["scan"]["waiting"]) == ([], 1)
    assert changed["warnings"][0]["code"] == "scan_outdated"
    add(server, twins, "again", draw(77).resize((150, 112)), "jpeg")
    job = scan(server, twins)
    assert (job["result"]["compared"], job["result"]["pictures"]) == (2, 3), "only what is new is compared"
    assert ids_of(ask(server, twins, kind="exact")) == [["a-small", "again"]]
    assert scan(server, twins)["result"]["compared"] == 0


def test_an_empty_collection_is_searched_too(server: RunningServer, twins: dict[str, Any]) -> None:
    assert scan(server, twins)["result"] == {
        "pictures": 0,
        "compared": 0,
        "pairs": 0,
        "groups": {"exact": 0, "near": 0},
    }
    after = ask(server, twins)
    assert (after["groups"], after["warnings"]) == ([], [])
    assert after["scan"]["finished_at"] is not None


def test_bad_input_is_refused(server: RunningServer) -> None:
    for asked in (
        {"threshold": "nan"},
        {"threshold": "-1"},
        {"threshold": "inf"},
        {"threshold": "0.31"},
        {"threshold": "17", "kind": "exact"},
        {"kind": "similar"},
        {"limit": "0"},
        {"limit": "101"},
        {"treshold": "0.1"},
    ):
        check_refusal(server.http.get("/v1/duplicates", params=asked), 422, "validation")
    for method in ("GET", "POST"):
        answer = server.http.request(method, "/v1/duplicates", params={"collection": "none"})
        check_refusal(answer, 404, "not_found")
        check_refusal(server.http.request(method, "/v1/duplicates", params={"collection": "A B"}), 422, "validation")
