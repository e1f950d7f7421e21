"""Every call with every kind of key, by the table and by the server; a call that the table forgets fails here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.api.app import create_app
from app.api.permissions import ALL_COLLECTIONS_ROUTES, PERMISSIONS, ROUTE_SCOPES
from app.core.settings import Settings
from app.service.service import Service, open_service
from tests.app.api.asking import check_refusal
from tests.app.api.guarded import Guarded
from tests.reliability.proofs.roles import fill_path, list_faults, list_operations


def list_calls(service: Service) -> Iterator[str]:
    """Every method and path that the application's router knows, those that its description leaves out too.

    HEAD is answered as a GET, before the router.
    """
    for route in iter_route_contexts(create_app(service).routes):
        if route.methods is None:  # what is mounted
            yield f"GET {route.path}/{{path:path}}"
        else:
            yield from (f"{method} {route.path}" for method in route.methods - {"HEAD"})


def test_the_table_holds_every_call_of_the_application_and_no_other(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, model="colours", workers=0)
    service = open_service(settings)
    try:
        assert set(list_calls(service)) == set(ROUTE_SCOPES)
    finally:
        service.close()
    assert set(ROUTE_SCOPES) >= ALL_COLLECTIONS_ROUTES


@pytest.mark.parametrize(
    ("method", "path", "called"),
    [
        ("GET", "/v1/images/abc", "/v1/images/{id}"),
        ("POST", "/v1/images/bulk", "/v1/images/bulk"),
        ("GET", "/v1/images/bulk", "/v1/images/{id}"),
        ("GET", "/web/docs/x.js", "/web/{path:path}"),
        ("GET", "/web", None),
        ("PUT", "/v1/images", None),
        ("GET", "/v1/images/", None),
        ("GET", "//v1/images", None),
        ("GET", "/v1/images/a/b", None),
        ("GET", "/v1/stats\n", None),
    ],
)
def test_a_request_is_looked_up_as_the_router_does(method: str, path: str, called: str | None) -> None:
    call = PERMISSIONS.find(method, path)
    assert (call and call.path) == called


def test_what_else_is_offered_at_an_address() -> None:
    assert PERMISSIONS.list_methods("/v1/images/abc") == ["DELETE", "GET", "HEAD", "PATCH"]
    assert PERMISSIONS.list_methods("/nothing") == []


@pytest.mark.parametrize("call", ROUTE_SCOPES)
def test_a_call_is_answered_for_those_alone_who_may(call: str, guarded: Guarded) -> None:
    assert list_faults(call, guarded) == []


def test_every_call_that_is_described_is_in_the_table(guarded: Guarded) -> None:
    assert list_operations(guarded) <= set(ROUTE_SCOPES)


@pytest.mark.parametrize("call", [call for call in ROUTE_SCOPES if call.split(" ")[1].startswith("/v1/")])
def test_a_key_of_another_collection_finds_nothing_here(call: str, guarded: Guarded) -> None:
    """Neither what is there nor that it is there: the answers are those for a collection that does not exist."""
    method, path = call.split(" ")
    if (
        call in ("GET /v1/models", "GET /v1/sources")
        or "/v1/session" in call
        or "/v1/embed" in call
        or "multimodal" in call
    ):
        return  # they are about no collection
    where = [fill_path(guarded, path, name) for name in ("default", "nowhere")]
    bare = ("/jobs/{id}", "/heads/{id}", "/saved-searches/{id}", "/watches/{id}", "/collections")
    if any(one in path for one in bare):  # which take no collection
        where = [one.split("?")[0] for one in where]
    here = guarded.ask("elsewhere", method, where[0], **make_request(call, "default"))
    nowhere = guarded.ask(
        "elsewhere",
        method,
        where[1]
        .replace(guarded.job, "nothing")
        .replace(guarded.head, "0" * 16)
        .replace(guarded.saved, "0" * 16)
        .replace(guarded.watch, "nothing"),
        **make_request(call, "nowhere"),
    )
    assert (here.status_code, shape(here)) == (nowhere.status_code, shape(nowhere))
    if here.status_code == 200:
        nothing: tuple[dict[str, list[str]], ...] = (
            {"jobs": []},
            {"collections": []},
            {"heads": []},
            {"saved_searches": []},
            {"watches": []},
        )
        assert here.json() in nothing
    else:
        assert here.status_code == (403 if call in ALL_COLLECTIONS_ROUTES else 404), here.text


def make_request(call: str, collection: str) -> dict[str, object]:
    """What a call must bring so that only the collection is in its way."""
    if call == "GET /v1/search":
        return {"params": {"q": "red", "collection": collection}}
    bodies: dict[str, object] = {
        "POST /v1/search": {"query": [{"text": "red"}]},
        "POST /v1/texts": {"texts": [{"text": "red"}]},
        "POST /v1/classify": {"image_id": "inside", "labels": ["red", "blue"]},
        "PATCH /v1/images/{id}": {"caption": "mine now"},
        "PATCH /v1/collections/{name}": {"description": "mine now"},
        "PUT /v1/collections/{name}/head": {"head": None},
        "PUT /v1/collections/{name}/labels": {"labels": []},
        "POST /v1/saved-searches": {"name": "a", "query": {"query": [{"text": "red"}], "mode": "keyword"}},
        "PATCH /v1/saved-searches/{id}": {"seen": True},
        "POST /v1/heads": {"source": "captions"},
        "POST /v1/evaluations": {"source": "captions"},
        "POST /v1/watches": {"source": "client:x"},
        "POST /v1/watches/{id}/changes": {"changes": []},
    }
    if call in bodies:
        return {"json": bodies[call]}
    if call in ("POST /v1/images", "POST /v1/images/bulk", "POST /v1/search/image"):
        return {"files": {"files" if "bulk" in call else "file": ("a.png", b"x")}}
    return {}


def shape(answer: httpx.Response) -> str:
    text = re.sub(r'"request_id":"\w+"', "", answer.text)
    return re.sub(r"no (job|head|saved search|watched folder) '\w+'", r"no \1", text).replace("nowhere", "default")


@pytest.mark.parametrize("call", ["POST /v1/images", "POST /v1/images/bulk", "POST /v1/search/image"])
def test_a_collection_in_a_form_is_no_way_around(call: str, guarded: Guarded) -> None:
    files = {"files" if "bulk" in call else "file": ("a.png", b"x")}
    path = call.split(" ")[1]
    for query, status, code in (("", 404, "not_found"), ("?collection=elsewhere", 422, "validation")):
        answer = guarded.ask("elsewhere", "POST", path + query, files=files, data={"collection": "default"})
        check_refusal(answer, status, code)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/texts", {"texts": [{"text": "red"}]}),
        ("/v1/search", {"query": [{"text": "red"}]}),
        ("/v1/classify", {"image_id": "inside", "labels": ["red", "blue"]}),
    ],
)
def test_a_collection_in_a_body_is_no_way_around(path: str, body: dict[str, object], guarded: Guarded) -> None:
    for query, status, code in (("", 404, "not_found"), ("?collection=elsewhere", 422, "validation")):
        answer = guarded.ask("elsewhere", "POST", path + query, json={**body, "collection": "default"})
        check_refusal(answer, status, code)


def test_a_bound_key_is_told_of_no_other_collection(guarded: Guarded) -> None:
    guarded.ask("admin", "POST", "/v1/collections", json={"name": "elsewhere-2"})
    for kind, hint in (("admin", "; did you mean 'elsewhere-2'?"), ("elsewhere", "")):
        answer = guarded.ask(kind, "GET", "/v1/stats?collection=elsewhere")
        assert answer.json()["detail"] == f"there is no collection 'elsewhere'{hint}", kind
    assert guarded.ask("admin", "DELETE", "/v1/collections/elsewhere-2").status_code == 204


def test_a_key_bound_to_this_collection_works_in_it(guarded: Guarded) -> None:
    assert guarded.ask("bound", "GET", "/v1/search?q=red").status_code == 200
    assert guarded.job in [one["id"] for one in guarded.ask("bound", "GET", "/v1/jobs").json()["jobs"]]
    assert [one["name"] for one in guarded.ask("bound", "GET", "/v1/collections").json()["collections"]] == ["default"]
    assert guarded.ask("bound", "GET", f"/v1/images/{guarded.image}/thumbnail").status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/texts", {"texts": [{"text": "red"}]}), ("/v1/search", {"query": [{"text": "red"}]})],
)
def test_a_bound_key_may_name_its_collection_in_the_body_alone(
    path: str, body: dict[str, object], guarded: Guarded
) -> None:
    named = guarded.ask("elsewhere", "POST", path, json={**body, "collection": "elsewhere"})
    assert "'elsewhere'" in check_refusal(named, 404, "not_found")["detail"]  # its own, which nobody has made
    assert "'default'" in check_refusal(guarded.ask("elsewhere", "POST", path, json=body), 404, "not_found")["detail"]


def test_a_bound_key_sees_and_imports_the_folders_of_its_collections_alone(guarded: Guarded) -> None:
    albums, theirs = (str(guarded.server.data_dir.parent / name) for name in ("albums", "theirs"))
    for kind, listed in (("write", [albums, theirs]), ("elsewhere", [theirs]), ("bound", [])):
        assert guarded.ask(kind, "GET", "/v1/sources").json()["folders"] == listed
        collection = "elsewhere" if kind == "elsewhere" else "default"
        for place in (f"folder:{albums}", f"folder:{theirs}", "s3://albums/a"):
            body = {"source": place, "collection": collection, "items": [{"url": "http://example.com/a.png"}]}
            answer = check_refusal(guarded.ask(kind, "POST", "/v1/images/ingest", json=body), 422, "validation")
            may = kind == "write" or place.removeprefix("folder:") in listed
            assert ("belong to the source urls" in answer["detail"]) == may, answer
