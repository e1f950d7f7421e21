"""clip-retrieval's calls, as its client sends them (`tests/acceptance/test_clip_retrieval_client.py` runs that)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from tests.app.api.asking import make_picture
from tests.app.api.guarded import Guarded
from tests.support.mutations import mutate_json
from tests.support.pictures import picture
from tests.support.servers import RunningServer
from tests.support.web_servers import WebServer, content

COLLECTION = "clip-retrieval"
# What `ClipClient("...", "clip-retrieval").query(...)` of clip-retrieval 2.45.0 sends, but for what is looked for.
SENT: dict[str, Any] = {
    "text": None,
    "image": None,
    "image_url": None,
    "embedding_input": None,
    "deduplicate": True,
    "use_safety_model": True,
    "use_violence_detector": True,
    "indice_name": COLLECTION,
    "use_mclip": False,
    "aesthetic_score": 9,
    "aesthetic_weight": 0.5,
    "modality": "image",
    "num_images": 40,
    "num_result_ids": 40,
}


def query(server: RunningServer, **fields: Any) -> httpx.Response:
    """Ask as ClipClient does, which names no Content-Type."""
    return server.http.post("/knn-service", content=json.dumps({**SENT, **fields}).encode())


def hits(server: RunningServer, **fields: Any) -> list[dict[str, Any]]:
    answer = query(server, **fields)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def read_picture(server: RunningServer, id: str) -> str:
    """The file of a picture in base64."""
    answer = server.http.get(f"/v1/images/{id}/file", params={"collection": COLLECTION})
    return base64.b64encode(answer.content).decode()


def check_error(answer: httpx.Response, status: int, code: str, said: str = "") -> None:
    """A refusal in the shape in which clip-retrieval's clients see one."""
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert set(error) == {"message", "code"}
    assert error["code"] == code
    assert said in error["message"]


@pytest.fixture(scope="module")
def stored(server: RunningServer) -> Iterator[dict[str, str]]:
    """The ids of three pictures, by their names, and two texts."""
    server.http.post("/v1/collections", json={"name": COLLECTION})
    ids = {}
    for name, colour in (("red", "red"), ("blue", "blue"), ("rouge", "red")):
        fields: dict[str, Any] = {
            "collection": COLLECTION,
            "caption": f"a {name} thing",
            "metadata": '{"NSFW": "UNLIKELY"}',
        }
        ids[name] = server.upload(make_picture(colour), name=f"{name}.png", **fields).json()["id"]
    texts = [{"id": "sky", "text": "blue", "metadata": {"page": 3}}, {"id": "rose", "text": "red"}]
    assert server.http.post("/v1/texts", json={"texts": texts, "collection": COLLECTION}).status_code == 200
    yield ids
    server.http.delete(f"/v1/collections/{COLLECTION}")


def test_words_find_pictures_with_their_columns(server: RunningServer, stored: dict[str, str]) -> None:
    found = hits(server, text="red", deduplicate=False)
    assert {one["image_id"] for one in found[:2]} == {stored["red"], stored["rouge"]}
    assert found[2]["image_id"] == stored["blue"]
    assert [one["similarity"] for one in found] == sorted((one["similarity"] for one in found), reverse=True)
    first = next(one for one in found if one["image_id"] == stored["red"])
    assert first["caption"] == "a red thing"
    assert first["NSFW"] == "UNLIKELY"
    assert first["image_path"] == "red.png"
    assert base64.b64encode(server.http.get(first["url"]).content).decode() == read_picture(server, stored["red"])
    thumbnail = server.http.get(f"/v1/images/{stored['red']}/thumbnail", params={"collection": COLLECTION})
    assert base64.b64decode(first["image"]) == thumbnail.content


def test_the_similarity_is_that_of_a_plain_search(server: RunningServer, stored: dict[str, str]) -> None:
    params: dict[str, Any] = {"q": "red", "collection": COLLECTION, "exact": True}
    plain = {one["id"]: one["score"] for one in server.http.get("/v1/search", params=params).json()["hits"]}
    found = {one["image_id"]: one["similarity"] for one in hits(server, text="red", deduplicate=False)}
    assert found == pytest.approx(plain, abs=1e-5)


def test_near_duplicates_are_one_hit(server: RunningServer, stored: dict[str, str]) -> None:
    found = hits(server, text="red")
    assert len(found) == 2
    assert found[1]["image_id"] == stored["blue"]


def test_a_picture_finds_itself(server: RunningServer, stored: dict[str, str]) -> None:
    found = hits(server, image=read_picture(server, stored["blue"]))
    assert found[0]["image_id"] == stored["blue"]
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-3)


def test_a_vector_counts_with_its_length(server: RunningServer, stored: dict[str, str]) -> None:
    vector = server.http.get(f"/v1/images/{stored['red']}/vector", params={"collection": COLLECTION}).json()["vector"]
    assert hits(server, embedding_input=vector)[0]["similarity"] == pytest.approx(1, abs=1e-5)
    doubled = (2 * np.array(vector)).tolist()
    assert hits(server, embedding_input=doubled)[0]["similarity"] == pytest.approx(2, abs=1e-5)


def test_words_come_before_a_picture_and_empty_words_are_none(server: RunningServer, stored: dict[str, str]) -> None:
    image = read_picture(server, stored["blue"])
    assert hits(server, text="red", image=image)[0]["image_id"] != stored["blue"]
    assert hits(server, text="", image=image)[0]["image_id"] == stored["blue"]


def test_words_that_are_too_long_are_cut_as_the_model_does(server: RunningServer, stored: dict[str, str]) -> None:
    assert hits(server, text="red " * 2_000)[0]["image_id"] in (stored["red"], stored["rouge"])


def test_hits_past_num_images_have_id_and_similarity_alone(server: RunningServer, stored: dict[str, str]) -> None:
    found = hits(server, text="red", num_images=1, num_result_ids=3, deduplicate=False)
    assert len(found) == 3
    assert "url" in found[0]
    assert [set(one) for one in found[1:]] == [{"id", "similarity"}] * 2
    assert len(hits(server, text="red", num_images=40, num_result_ids=1)) == 1
    assert len(hits(server, text="red", num_images=2, num_result_ids=None, deduplicate=False)) == 2
    assert hits(server, text="red", num_images=0) == [
        {"id": one["id"], "similarity": one["similarity"]} for one in hits(server, text="red")
    ]
    assert hits(server, text="red", num_result_ids=0) == []
    assert len(hits(server, text="red", num_images=10**9, num_result_ids=10**9, deduplicate=False)) == 3


def test_an_id_leads_to_what_is_known(server: RunningServer, stored: dict[str, str]) -> None:
    pictures, texts = hits(server, text="red", deduplicate=False), hits(server, text="red", modality="text")
    assert all(one["id"] > 0 for one in pictures)
    assert all(one["id"] < -1 for one in texts)
    ids = [pictures[2]["id"], texts[0]["id"], 10**15, pictures[0]["id"], -(1 << 63)]
    answer = server.http.post("/metadata", content=json.dumps({"ids": ids, "indice_name": COLLECTION}))
    found = answer.json()
    assert [one["id"] for one in found] == [ids[0], ids[1], ids[3]]
    assert found[0]["metadata"] == {k: v for k, v in pictures[2].items() if k not in ("id", "similarity", "image")}
    assert found[1]["metadata"] == {"caption": "red", "text_id": "rose"}
    assert server.http.post("/metadata", content=b'{"ids": [], "indice_name": "x"}').json() == []
    elsewhere = server.http.post("/metadata", json={"ids": ids, "indice_name": "default"}).json()
    assert not {one["metadata"].get("image_id") for one in elsewhere} & set(stored.values())


def test_texts_are_found_with_their_metadata(server: RunningServer, stored: dict[str, str]) -> None:
    found = hits(server, text="blue", modality="text")
    assert {k: v for k, v in found[0].items() if k not in ("id", "similarity")} == {
        "caption": "blue",
        "page": 3,
        "text_id": "sky",
    }


def test_collections_are_the_indices(server: RunningServer, stored: dict[str, str]) -> None:
    names = server.http.get("/indices-list").json()
    assert names[0] == "default"
    assert COLLECTION in names
    assert query(server, text="red", indice_name=None).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({"text": "red", "indice_name": "laion5B"}, 404, "not_found", "'laion5B'"),
        ({"text": "red", "indice_name": "nowhere"}, 404, "not_found", "'nowhere'"),
        ({}, 400, "validation", "send text, image, image_url or embedding_input"),
        ({"image": "not base64!"}, 400, "validation", "base64"),
        ({"image": "QUJD"}, 400, "unsupported_media_type", "not a picture"),
        ({"image_url": "http://example.com/x.png"}, 400, "url_not_allowed", "SIGHTLINE_FETCH"),
        ({"embedding_input": [1, 2]}, 400, "validation", "a vector of this model has 60 numbers"),
        ({"embedding_input": [0.0] * 60}, 400, "validation", "not zero"),
        ({"text": "red", "modality": "video"}, 400, "validation", "modality"),
        ({"text": "red", "num_images": -1}, 400, "validation", "num_images"),
    ],
)
def test_a_refusal_says_what_is_wrong_where_the_client_looks(
    server: RunningServer, stored: dict[str, str], fields: dict[str, Any], status: int, code: str, said: str
) -> None:
    check_error(query(server, **fields), status, code, said)


def test_a_body_that_is_no_query_is_refused(server: RunningServer) -> None:
    for body in (b"", b"[]", b"red", b"{"):
        answer = server.http.post("/knn-service", content=body, headers={"Content-Type": "text/plain"})
        assert answer.json()["message"], body
        assert answer.status_code == 400, body


def test_more_ids_than_a_call_takes_are_refused(server: RunningServer) -> None:
    check_error(server.http.post("/metadata", json={"ids": list(range(1_001))}), 400, "validation")
    check_error(server.http.post("/metadata", json={"ids": [1 << 63]}), 400, "validation")


def test_a_picture_comes_by_its_url_where_that_is_allowed(open_server: RunningServer) -> None:
    own, web = open_server, WebServer()
    web.pages["/a.png"] = content(picture("green", seed=7, size=(64, 48)))
    with closing(web):
        own.http.post("/v1/collections", json={"name": "fetched"})
        body = {"source": "urls", "items": [{"url": f"{web.url}/a.png"}], "collection": "fetched"}
        assert own.wait_job(own.http.post("/v1/images/ingest", json=body).json()["id"])["done"] == 1
        (found,) = hits(own, image_url=f"{web.url}/a.png", indice_name="fetched")
        assert found["url"] == f"{web.url}/a.png"
        assert not {"image", "image_path"} & set(found)  # it has a URL of its own
        check_error(query(own, image_url=f"{web.url}/gone.png", indice_name="fetched"), 400, "url_unreachable")
        check_error(query(own, image_url="http://10.0.0.1/a.png", indice_name="fetched"), 400, "url_not_allowed")
        check_error(query(own, image_url="x" * 3_000, indice_name="fetched"), 400, "validation")


@pytest.mark.parametrize(("kind", "status"), [("none", 401), ("unknown", 401), ("search", 200), ("bound", 200)])
def test_a_key_comes_in_the_url_as_a_password(guarded: Guarded, kind: str, status: int) -> None:
    auth = None if kind == "none" else ("key", guarded.keys[kind])
    headers = {"X-Forwarded-For": guarded.address()}
    answer = httpx.post(
        f"{guarded.server.url}/knn-service",
        json={"text": "red", "modality": "image", "num_images": 3},
        auth=auth,
        headers=headers,
        trust_env=False,
    )
    assert answer.status_code == status
    if status == 401:
        check_error(answer, 401, "unauthorized", "key")


def test_a_password_that_is_no_key_is_for_a_proxy(guarded: Guarded) -> None:
    for credentials in ("Basic !", f"Basic {base64.b64encode(bytes([255])).decode()}", "Basic YTpi"):
        headers = {"Authorization": credentials, "X-API-Key": guarded.keys["search"]}
        assert guarded.server.http.get("/indices-list", headers=headers).status_code == 200


def test_a_bound_key_sees_its_collections_alone(guarded: Guarded) -> None:
    made = guarded.ask("admin", "POST", "/v1/collections", json={"name": "elsewhere"})
    assert made.status_code == 201
    try:
        sent = {"text": "red", "modality": "image", "num_images": 3}
        assert guarded.ask("elsewhere", "GET", "/indices-list").json() == ["elsewhere"]
        assert guarded.ask("bound", "GET", "/indices-list").json() == ["default"]
        assert guarded.ask("elsewhere", "POST", "/knn-service", json=sent).json() == []
        assert len(guarded.ask("bound", "POST", "/knn-service", json=sent).json()) > 0
        foreign = guarded.ask("elsewhere", "POST", "/knn-service", json={**sent, "indice_name": "default"})
        check_error(foreign, 404, "not_found")
        ids = {"ids": list(range(20))}
        assert guarded.ask("bound", "POST", "/metadata", json=ids).json() != []
        assert guarded.ask("elsewhere", "POST", "/metadata", json=ids).json() == []
    finally:
        guarded.ask("admin", "DELETE", "/v1/collections/elsewhere")


def test_no_mutation_of_a_recorded_request_is_an_error_of_the_server(
    server: RunningServer, stored: dict[str, str]
) -> None:
    image = base64.b64encode(make_picture()).decode()
    recorded = {**SENT, "text": "red", "embedding_input": [0.5] * 60}
    statuses = {answer.status_code for answer in send_mutations(server, recorded, image)}
    assert 200 in statuses
    assert not {status for status in statuses if status >= 500}, statuses


def send_mutations(server: RunningServer, recorded: dict[str, Any], image: str) -> Iterator[httpx.Response]:
    for body in mutate_json(recorded, 120):
        yield server.http.post("/knn-service", content=body)
    for body in mutate_json({**recorded, "text": None, "image": image}, 60, seed=1):
        yield server.http.post("/knn-service", content=body)
    for body in mutate_json({"ids": [1, 2, -2], "indice_name": COLLECTION}, 80):
        yield server.http.post("/metadata", content=body)
