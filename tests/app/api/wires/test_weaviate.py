"""The calls of Weaviate's module multi2vec-clip.

Weaviate's server cannot be installed here: bodies and headers are what its Go source makes of them
(`modules/multi2vec-clip/clients/vectorizer.go`: the struct `vecRequest`, a request without Content-Type).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from app.api.wires.weaviate import MAX_PROPERTY_CHARS, WeaviateRequest
from tests.app.api.asking import make_picture
from tests.app.api.guarded import Guarded
from tests.support.mutations import mutate_json
from tests.support.pictures import picture
from tests.support.servers import RunningServer

HEADERS = {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}


def encode(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def write_request(texts: Sequence[str] | None, images: Sequence[str] | None) -> bytes:
    """`json.Marshal(vecRequest{...})`: compact, a nil slice is null, and <, > and & are escaped."""
    text = json.dumps({"texts": texts, "images": images}, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode()


def ask(server: RunningServer, body: bytes) -> httpx.Response:
    return server.http.post("/compat/weaviate/vectorize", content=body, headers=HEADERS)


def vectorize(server: RunningServer, texts: Sequence[str] | None, images: Sequence[str] | None) -> dict[str, Any]:
    answer = ask(server, write_request(texts, images))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert set(found) == {"textVectors", "imageVectors"}
    return found


def test_an_object_gets_the_vectors_of_its_texts_and_pictures_in_their_order(server: RunningServer) -> None:
    id = server.upload(make_picture("blue")).json()["id"]
    stored = server.http.get(f"/v1/images/{id}/vector").json()["vector"]
    content = server.http.get(f"/v1/images/{id}/file").content
    found = vectorize(server, ["red", "blue", "red"], [encode(make_picture("red")), encode(content)])
    texts, images = np.array(found["textVectors"]), np.array(found["imageVectors"])
    assert texts.shape == (3, 60)
    assert np.allclose(texts[0], texts[2])
    assert not np.allclose(texts[0], texts[1])
    assert np.allclose(np.linalg.norm(np.vstack([texts, images]), axis=1), 1, atol=1e-5)
    assert images[1] @ np.array(stored) == pytest.approx(1, abs=1e-5)
    assert images[1] @ texts[1] > images[0] @ texts[1]


def test_a_nil_slice_and_an_empty_one_are_the_same(server: RunningServer) -> None:
    nothing: dict[str, Any] = {"textVectors": [], "imageVectors": []}
    assert vectorize(server, None, None) == vectorize(server, [], []) == nothing
    assert len(vectorize(server, ["<red> & blue"], None)["textVectors"]) == 1
    assert len(vectorize(server, None, [encode(make_picture())])["imageVectors"]) == 1


def test_a_whole_import_comes_in_one_request(server: RunningServer) -> None:
    """Pictures that are longer than what a body without pictures may have."""
    colours = ("red", "blue", "green")
    large = [encode(picture(colour, seed=n, size=(90, 90), format="BMP")) for n, colour in enumerate(colours)]
    pictures = (large * 20)[:50]
    assert sum(map(len, pictures)) > 1 << 20
    found = vectorize(server, [f"red {n}" for n in range(300)], pictures)
    assert len(found["textVectors"]) == 300
    assert np.allclose(found["imageVectors"][0], found["imageVectors"][48], atol=1e-6)
    assert not np.allclose(found["imageVectors"][0], found["imageVectors"][1], atol=1e-2)


def test_a_long_property_is_cut_where_the_model_would_stop_reading(server: RunningServer) -> None:
    found = vectorize(server, ["red " * 25_000, ""], [])
    assert len(found["textVectors"]) == 2


@pytest.mark.parametrize("start", ["", "data:image/png;base64,"])
def test_a_long_property_without_a_space_is_a_text(server: RunningServer, start: str) -> None:
    """Base64 alone, as that of a picture; Weaviate's `texts` are never pictures."""
    found = vectorize(server, [start + "red" * 40_000, "blue"], [encode(picture("red", size=(400, 400)))])
    assert np.array(found["textVectors"]).shape == (2, 60)
    assert len(found["imageVectors"]) == 1


def test_a_property_is_cut_before_the_bound_of_a_text() -> None:
    asked = WeaviateRequest.model_validate({"texts": ["é" * (MAX_PROPERTY_CHARS + 9)]})
    assert asked.texts == ["é" * MAX_PROPERTY_CHARS]


@pytest.mark.parametrize(
    ("images", "status", "code", "said"),
    [
        (["!!"], 400, "validation", "base64"),
        (["QUJD"], 400, "unsupported_media_type", "not a picture"),
        (["", "QUJD"], 400, "unsupported_media_type", "empty"),
        ([encode(make_picture()), encode(make_picture()[:60])], 400, "image_corrupt", "damaged"),
        ([encode(make_picture()), "A" * 9_000 + "!"], 400, "validation", "base64"),
        (["QUJD"] * 2_049, 400, "validation", "images"),
    ],
)
def test_a_bad_picture_fails_the_request_with_an_error_that_weaviate_shows(
    server: RunningServer, images: list[str], status: int, code: str, said: str
) -> None:
    answer = ask(server, write_request(["red"], images))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert said in answer.json()["error"]


def test_the_model_is_described(server: RunningServer) -> None:
    meta = server.http.get("/compat/weaviate/meta", headers=HEADERS).json()
    assert meta["name"] == "colours"
    assert meta["d"] == 60


def test_a_server_that_is_ready_says_so(server: RunningServer) -> None:
    for name in ("live", "ready"):
        answer = server.http.get(f"/compat/weaviate/.well-known/{name}", headers=HEADERS)
        assert (answer.status_code, answer.content) == (204, b"")


def test_a_key_comes_in_the_url_as_go_sends_it(guarded: Guarded) -> None:
    """Go's http.Client makes Basic credentials of http://key:sl_...@host."""
    url = f"{guarded.server.url}/compat/weaviate"
    for kind, status in (("none", 401), ("unknown", 401), ("bound", 200)):
        auth = None if kind == "none" else ("key", guarded.keys[kind])
        headers = {**HEADERS, "X-Forwarded-For": guarded.address()}
        sent = write_request(["red"], None)
        answer = httpx.post(f"{url}/vectorize", content=sent, auth=auth, headers=headers, trust_env=False)
        assert answer.status_code == status
        assert ("error" in answer.json()) == (status != 200)
        assert httpx.get(f"{url}/.well-known/ready", headers=headers, trust_env=False).status_code == 204


def test_no_mutation_of_a_recorded_request_is_an_error_of_the_server(server: RunningServer) -> None:
    recorded = {"texts": ["red", "a blue car"], "images": [encode(make_picture()), encode(make_picture("blue"))]}
    statuses = [ask(server, body).status_code for body in mutate_json(recorded, 150)]
    assert 200 in statuses
    assert max(statuses) < 500, statuses
