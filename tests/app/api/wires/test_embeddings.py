"""The embeddings wires: each dialect by its own bodies, with the vectors that searches have, and its own errors."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from app.api.json_body import LONG
from app.api.wires.dialect import WireRequest
from app.api.wires.embeddings import COMMON, ROUTES
from app.api.wires.infinity import InfinityRequest
from app.api.wires.jina import JinaRequest
from app.api.wires.nvidia import NvidiaRequest
from app.api.wires.openai import OpenAIRequest
from app.api.wires.voyage import VoyageTextRequest
from app.encoder.dummy import DummyEncoder
from app.encoder.protocol import Embeddings
from tests.app.api.asking import make_picture, raw, upload_ready
from tests.app.api.guarded import Guarded
from tests.support.pictures import picture
from tests.support.servers import RunningServer
from tests.support.web_servers import WebServer, content

RED, BLUE = picture("red"), picture("blue", size=(400, 400))  # the base64 of the second goes to a file
TEXTS = ["a red car", "the blue sea"]
NOT_A_PICTURE = "data:image/png;base64," + base64.b64encode(b"GIF" * 2000).decode()
WORDS = DummyEncoder().encode_texts(TEXTS)


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def uri(content: bytes) -> str:
    return f"data:image/png;base64,{encode(content)}"


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    one = WebServer()
    one.pages["/red.png"] = content(RED)
    yield one
    one.close()


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    allowed: dict[str, Any] = {"fetch": True, "fetch_also": "127.0.0.1", "served_names": " jina-clip-v2, clip"}
    with RunningServer(tmp_path_factory.mktemp("wires") / "data", **allowed) as one:
        yield one


@pytest.fixture(scope="module")
def seen(wires: RunningServer) -> dict[str, list[float]]:
    """The vectors that searches have of the two pictures."""
    found = {}
    for name, sent in (("red", RED), ("blue", BLUE)):
        assert wires.upload(sent, id=name).status_code == 200
        found[name] = wires.http.get(f"/v1/images/{name}/vector").json()["vector"]
    return found


def ask(server: RunningServer, body: Any, path: str = "/v1/embeddings") -> dict[str, Any]:
    answer = server.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def floats(rows: Any) -> Embeddings:
    return np.asarray(rows, np.float32)


def vectors(answer: dict[str, Any]) -> list[Any]:
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    assert {one["object"] for one in answer["data"]} == {"embedding"}
    return [one["embedding"] for one in answer["data"]]


def message(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def image_url(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def segment(content: bytes) -> dict[str, Any]:
    return {"type": "image_base64", "image_base64": uri(content)}


# By name: where the clients of a dialect send their pictures, and how they read the vectors.
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "infinity": (
        "/embeddings",
        {"input": [uri(RED), uri(BLUE)], "modality": "image", "model": "default/not-specified"},
    ),
    "infinity, older": ("/embeddings_image", {"input": [uri(RED), uri(BLUE)]}),
    "Jina": ("/v1/embeddings", {"input": [{"image": uri(RED)}, {"image": uri(BLUE)}], "model": "jina-clip-v2"}),
    "Jina, older": (
        "/v1/embeddings",
        {"input": [{"bytes": uri(RED)[22:]}, {"bytes": uri(BLUE)[22:]}], "model": "clip"},
    ),
    "NV-CLIP": ("/v1/embeddings", {"input": [uri(RED), uri(BLUE)], "model": "colours"}),
    "Voyage": (
        "/v1/multimodalembeddings",
        {"inputs": [{"content": [segment(RED)]}, {"content": [segment(BLUE)]}], "model": "CLIP"},
    ),
    "Cohere": ("/v2/embed", {"images": [uri(RED), uri(BLUE)], "input_type": "image"}),
    "Cohere, inputs": (
        "/v2/embed",
        {"inputs": [{"content": [image_url(uri(RED))]}, {"content": [image_url(uri(BLUE))]}], "model": "clip"},
    ),
}


@pytest.mark.parametrize("dialect", PICTURES)
def test_pictures_have_the_vectors_that_searches_have(
    dialect: str, wires: RunningServer, seen: dict[str, list[float]]
) -> None:
    path, body = PICTURES[dialect]
    answer = ask(wires, body, path)
    got = answer["embeddings"]["float"] if "embeddings" in answer else vectors(answer)
    assert np.array_equal(floats(got), floats([seen["red"], seen["blue"]]))


def test_one_conversation_is_one_vector(wires: RunningServer, seen: dict[str, list[float]]) -> None:
    answer = ask(wires, {"messages": message([image_url(uri(RED))]), "model": "colours"})
    assert np.array_equal(floats(vectors(answer)), floats([seen["red"]]))
    assert answer["id"].startswith("embd-")


def test_parts_of_one_input_are_averaged(wires: RunningServer, seen: dict[str, list[float]]) -> None:
    both = [{"type": "text", "text": TEXTS[1]}, segment(RED)]
    mean = WORDS[1] + floats(seen["red"])
    answer = ask(wires, {"inputs": [{"content": both}], "model": "colours"}, "/v1/multimodalembeddings")
    assert vectors(answer)[0] == pytest.approx((mean / np.linalg.norm(mean)).tolist(), abs=1e-6)
    assert answer["usage"] == {"text_tokens": 3, "image_pixels": 64 * 48, "video_pixels": 0, "total_tokens": 3 + 5}


def test_the_order_of_words_and_pictures_is_kept(wires: RunningServer, seen: dict[str, list[float]]) -> None:
    for mixed in ([uri(RED), TEXTS[0], uri(BLUE)], [{"image": uri(RED)}, {"text": TEXTS[0]}, {"image": uri(BLUE)}]):
        got = vectors(ask(wires, {"input": mixed, "model": "colours"}))
        assert np.array_equal(floats(got), floats([seen["red"], WORDS[0], seen["blue"]]))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"user": "me"},
        {"modality": "text"},
        {"task": "retrieval.query"},
        {"truncation": True},
        {"priority": 0},
        {"input_type": "passage", "encoding_format": "float", "truncate": "END"},
        {"input_type": "query", "embedding_type": "float"},
        {"truncate": "END"},
        {"modality": ["text"]},
        {"dimensions": 60},
    ],
    ids=str,
)
def test_texts_have_the_vectors_of_the_encoder_in_every_dialect(more: dict[str, Any], wires: RunningServer) -> None:
    answer = ask(wires, {"input": TEXTS, "model": "colours", **more})
    assert np.array_equal(floats(vectors(answer)), WORDS)
    assert answer["model"] == "colours"
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == 6
    assert np.array_equal(vectors(ask(wires, {"input": TEXTS[0], **more, "model": "clip"})), np.float64(WORDS[:1]))


VOYAGE_OR_NVIDIA = {"input": TEXTS, "encoding_format": "base64"}


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({**VOYAGE_OR_NVIDIA, "input_type": "document"}, VoyageTextRequest),
        ({**VOYAGE_OR_NVIDIA, "input_type": "query", "truncation": True}, VoyageTextRequest),
        ({**VOYAGE_OR_NVIDIA, "input_type": "passage"}, NvidiaRequest),
        ({**VOYAGE_OR_NVIDIA, "input_type": "query"}, NvidiaRequest),
        ({"input": TEXTS, "input_type": "query"}, VoyageTextRequest),
        ({"input": TEXTS, "input_type": None}, VoyageTextRequest),
        ({"input": TEXTS, "input_type": "passage"}, NvidiaRequest),
        ({"input": TEXTS, "input_type": "query", "embedding_type": "float"}, NvidiaRequest),
        ({"input": TEXTS, "embedding_type": "float"}, JinaRequest),
        ({"input": TEXTS, "embedding_type": "float", "truncate": True}, JinaRequest),
        ({"input": TEXTS, "embedding_type": "float", "truncate": "END"}, NvidiaRequest),
        ({"input": TEXTS, "truncate": "END"}, NvidiaRequest),
        ({"input": TEXTS, "modality": ["text", "text"]}, NvidiaRequest),
        ({"input": TEXTS, "modality": "text"}, InfinityRequest),
        ({"input": [uri(RED)], "modality": "image"}, InfinityRequest),
        ({"input": [uri(RED)], "input_type": "query"}, NvidiaRequest),
        ({"input": [uri(RED)]}, NvidiaRequest),
        ({"input": TEXTS, "encoding_format": "float"}, OpenAIRequest),
    ],
)
def test_a_body_is_claimed_by_its_values(
    body: dict[str, Any], dialect: type[WireRequest], wires: RunningServer
) -> None:
    assert next(one for one in COMMON if one.claims(body)) is dialect
    assert len(vectors(ask(wires, {**body, "model": "clip"}))) == len(body["input"])


def test_a_text_is_embedded_as_it_is(wires: RunningServer) -> None:
    """Without names for emoji, which searches put in."""
    (got,) = vectors(ask(wires, {"input": "🚗", "model": "colours"}))
    assert np.array_equal(floats(got), DummyEncoder().encode_texts(["🚗"])[0])


@pytest.mark.parametrize("text", ["data: the red sea", "data:text/plain;base64,QUJD", "data: red, " * 900], ids=len)
def test_a_text_that_begins_like_a_data_uri_is_a_text(text: str, wires: RunningServer) -> None:
    (got,) = vectors(ask(wires, {"input": text, "model": "colours"}))
    assert np.array_equal(floats(got), DummyEncoder().encode_texts([text])[0])


def test_a_url_is_no_picture_unless_the_dialect_says_so(wires: RunningServer, web: WebServer) -> None:
    url = f"{web.url}/red.png"
    (got,) = vectors(ask(wires, {"input": url, "model": "colours"}))
    assert np.array_equal(floats(got), DummyEncoder().encode_texts([url])[0])


def test_urls_are_fetched_where_that_is_on(wires: RunningServer, web: WebServer, seen: dict[str, list[float]]) -> None:
    url = f"{web.url}/red.png"
    for path, body in (
        ("/embeddings", {"input": [url], "modality": "image"}),
        ("/v1/embeddings", {"input": [{"url": url}], "model": "clip"}),
        ("/v1/embeddings", {"messages": message([image_url(url)])}),
    ):
        assert np.array_equal(floats(vectors(ask(wires, body, path))), floats([seen["red"]]))
    gone = wires.http.post("/embeddings", json={"input": [url, f"{web.url}/none.png"], "modality": "image"})
    assert gone.status_code == 400
    assert gone.json()["error"]["message"].startswith("input.1: the server answered 404")
    many = wires.http.post("/v1/embeddings", json={"input": [{"url": url}] * 33, "model": "clip"})
    assert (many.status_code, many.json()["detail"]) == (
        422,
        "the pictures of one request may have 32 URLs, these have 33",
    )


def test_numbers_come_as_they_are_asked_for(wires: RunningServer) -> None:
    bits = np.packbits(WORDS > 0, axis=1)
    jina = {
        form: ask(wires, {"input": TEXTS, "embedding_type": form, "model": "clip"}) for form in ("base64", "binary")
    }
    decoded = [np.frombuffer(base64.b64decode(one), "<f4") for one in vectors(jina["base64"])]
    assert np.array_equal(decoded, WORDS)
    assert np.array_equal(vectors(jina["binary"]), bits.astype(int) - 128)
    half = {"input": TEXTS, "encoding_format": "base64", "embed_dtype": "float16", "endianness": "big"}
    decoded = [np.frombuffer(base64.b64decode(one), ">f2") for one in vectors(ask(wires, half))]
    assert np.array_equal(decoded, WORDS.astype(np.float16))
    cohere = ask(wires, {"texts": TEXTS, "embedding_types": ["float", "ubinary", "base64"]}, "/v2/embed")
    assert np.array_equal(cohere["embeddings"]["ubinary"], bits)
    assert cohere["texts"] == TEXTS
    assert cohere["meta"] == {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 6}}
    voyage = {"input": TEXTS, "model": "clip", "output_dtype": "ubinary", "encoding_format": "base64"}
    assert [base64.b64decode(one) for one in vectors(ask(wires, voyage))] == [row.tobytes() for row in bits]
    assert np.array_equal(ask(wires, {"texts": TEXTS}, "/v1/embed")["embeddings"], WORDS.astype(float))


def test_many_texts_are_one_request(wires: RunningServer) -> None:
    texts = [f"text {n} red" for n in range(2048)]
    got = vectors(ask(wires, {"input": texts, "model": "colours"}))
    assert np.array_equal(floats(got), DummyEncoder().encode_texts(texts))


# What is refused: the path, the body, the status, and a path to the sentence in the body of the error.
OPENAI, DETAIL, MESSAGE = ("error", "message"), ("detail",), ("message",)
REFUSED: list[tuple[str, dict[str, Any], int, tuple[Any, ...], str]] = [
    ("/v1/embeddings", {"input": "x", "model": "ada"}, 404, OPENAI, "the model 'ada' is not served here"),
    ("/v1/embeddings", {"input": [1, 2, 3], "model": "clip"}, 400, OPENAI, "input: this model cannot read the tokens"),
    ("/v1/embeddings", {"input": [[1], [2]], "model": "clip"}, 400, OPENAI, "input: this model cannot read the tokens"),
    ("/v1/embeddings", {"input": ["x"] * 2049}, 400, OPENAI, "input: expected at most 2048"),
    ("/v1/embeddings", {"input": ""}, 400, OPENAI, "input.0: an empty text"),
    ("/v1/embeddings", {"input": []}, 400, OPENAI, "input: expected at least 1"),
    ("/v1/embeddings", {"input": None}, 400, OPENAI, "input: expected a list"),
    ("/v1/embeddings", {"input": "x" * 122_881}, 400, OPENAI, "input.0: "),
    ("/v1/embeddings", {"input": "x" * 5_000}, 400, OPENAI, "input.0: this is a picture, or a text without any space"),
    (
        "/v1/embeddings",
        {"input": "x", "dimensions": 32},
        400,
        OPENAI,
        "dimensions: the model colours has vectors of 60",
    ),
    ("/v1/embeddings", {"input": "x", "encoding_format": "int8"}, 400, OPENAI, "encoding_format: "),
    ("/v1/embeddings", {"input": "x", "inputs": "x"}, 400, OPENAI, "inputs: there is no field 'inputs'"),
    ("/v1/embeddings", {"messages": [], "input": "x"}, 400, OPENAI, "messages: expected at least 1"),
    (
        "/v1/embeddings",
        {"messages": message([{"type": "text", "text": "a"}]), "input": "x"},
        400,
        OPENAI,
        "send one of",
    ),
    (
        "/v1/embeddings",
        {"messages": message([{"type": "text"}])},
        400,
        OPENAI,
        "messages.0.content.0: the field 'text'",
    ),
    ("/v1/embeddings", {"input": "x", "truncation_side": "left"}, 400, OPENAI, "truncation_side: "),
    ("/v1/embeddings", {"input": "x", "truncate_prompt_tokens": 4}, 400, OPENAI, "truncate_prompt_tokens: "),
    ("/v1/embeddings", {"input": "x", "use_activation": False}, 400, OPENAI, "use_activation: "),
    ("/v1/embeddings", {"input": "x", "add_special_tokens": False}, 400, OPENAI, "add_special_tokens: "),
    ("/v1/embeddings", {"input": ["x", NOT_A_PICTURE]}, 400, OPENAI, "input.1: this is not a picture"),
    ("/v1/embeddings", {"input": ["x", NOT_A_PICTURE]}, 400, MESSAGE, "input.1: this is not a picture"),
    ("/v1/embeddings", {"input": "x", "input_type": "query", "truncate": "START"}, 400, MESSAGE, "truncate: "),
    ("/embeddings", {"input": [uri(RED), NOT_A_PICTURE], "modality": "image"}, 400, OPENAI, "input.1: this is not a"),
    ("/embeddings", {"input": ["x"], "modality": "image"}, 422, ("detail", 0, "msg"), "input.0: a picture is a URL or"),
    ("/embeddings", {"input": ["x"], "modality": "audio"}, 422, ("detail", 0, "msg"), "modality: "),
    (
        "/embeddings",
        {"input": [uri(RED)] * 33, "modality": "image"},
        422,
        ("detail", 0, "msg"),
        "input: expected at most 32",
    ),
    ("/embeddings", {"input": ["x"], "modality": "text", "model": "bge"}, 400, OPENAI, "the model 'bge' is not"),
    ("/embeddings", {"input": ["ftp://a/b.png"], "modality": "image"}, 422, ("detail", 0, "msg"), "input.0: "),
    ("/embeddings", {"input": ["http://10.0.0.1/b.png"], "modality": "image"}, 400, OPENAI, "input.0: "),
    ("/v1/embeddings", {"input": [{"url": "http://10.0.0.1/b.png"}]}, 422, DETAIL, "input.0.image: "),
    ("/v1/embeddings", {"input": [{"image": "????"}]}, 422, DETAIL, "input.0.image: image is not valid base64"),
    (
        "/v1/embeddings",
        {"input": [{"text": "a", "image": "b"}]},
        422,
        DETAIL,
        "input.0: expected one of text and image",
    ),
    ("/v1/embeddings", {"input": ["x"], "normalized": False}, 422, DETAIL, "normalized: "),
    ("/v1/embeddings", {"input": ["x"], "late_chunking": True}, 422, DETAIL, "late_chunking: "),
    ("/v1/embeddings", {"input": ["x"], "task": "x", "model": "v3"}, 404, DETAIL, "the model 'v3' is not served"),
    ("/v1/embeddings", {"input": ["x"], "output_dtype": "int8"}, 400, DETAIL, "output_dtype: int8 needs ranges"),
    ("/v1/multimodalembeddings", {"inputs": []}, 400, DETAIL, "model: required"),
    (
        "/v1/multimodalembeddings",
        {"model": "clip", "inputs": [{"content": [{"type": "video_url", "video_url": "http://a"}]}]},
        400,
        DETAIL,
        "inputs.0.content.0: this model embeds texts and pictures",
    ),
    (
        "/v1/multimodalembeddings",
        {"model": "clip", "inputs": [{"content": [{"type": "image_base64", "image_base64": "QUJD"}]}]},
        400,
        DETAIL,
        "inputs.0.content.0.image_base64: expected a data URI",
    ),
    (
        "/v1/multimodalembeddings",
        {"model": "clip", "inputs": [{"content": [{"type": "image_url", "image_url": "QUJD"}]}]},
        400,
        DETAIL,
        "inputs.0.content.0.image_url: expected a URL",
    ),
    (
        "/v1/multimodalembeddings",
        {"model": "clip", "inputs": [{"content": [{"type": "text"}]}]},
        400,
        DETAIL,
        "inputs.0.content.0: the field 'text' is missing",
    ),
    ("/v2/embed", {"texts": ["x"], "model": "embed-v4.0"}, 404, MESSAGE, "the model 'embed-v4.0' is not served"),
    ("/v2/embed", {"texts": ["x"], "images": [uri(RED)]}, 400, MESSAGE, "send one of texts, images and inputs"),
    ("/v2/embed", {"texts": ["x"], "truncate": "START"}, 400, MESSAGE, "truncate: "),
    ("/v2/embed", {"texts": ["x"], "max_tokens": 9}, 400, MESSAGE, "max_tokens: "),
    ("/v2/embed", {"texts": ["x"], "embedding_types": ["uint8"]}, 400, MESSAGE, "embedding_types: uint8 needs ranges"),
    ("/v2/embed", {"images": ["QUJD"]}, 400, MESSAGE, "images.0: a picture is a data URI"),
    ("/v2/embed", {"inputs": [{"content": [{"type": "image_url"}]}]}, 400, MESSAGE, "inputs.0.content.0: the field"),
    ("/v1/embed", {"texts": ["x"], "output_dimension": 7}, 400, MESSAGE, "dimensions: "),
    ("/embeddings_image", {"input": ["x"]}, 422, ("detail", 0, "msg"), "input.0: "),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "place", "sentence"), REFUSED, ids=[str(n) for n in range(len(REFUSED))]
)
def test_a_refusal_has_the_shape_of_its_dialect(
    path: str, body: dict[str, Any], status: int, place: tuple[Any, ...], sentence: str, wires: RunningServer
) -> None:
    answer = wires.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    said = answer.json()
    for step in place:
        said = said[step]
    assert said.startswith(sentence)


def test_an_error_of_openai_has_type_and_code(wires: RunningServer) -> None:
    error = wires.http.post("/v1/embeddings", json={"input": "x", "model": "ada"}).json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "model_not_found")


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/embeddings", "/embeddings_image", "/v1/multimodalembeddings", "/v2/embed", "/v1/embed"]
)
def test_before_a_body_is_read_its_address_decides_on_the_shape(path: str, wires: RunningServer) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for sent, status in (
        (f"{head}Content-Length: 900000000\r\n\r\n", 413),
        (f"{head}Content-Length: 1\r\n\r\n[", 422 if path == "/embeddings_image" else 400),
        (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab", 400),
    ):
        got, headers, content = raw(wires, sent.encode())
        said = json.loads(content)
        assert (got, headers["content-type"]) == (status, "application/json"), content
        assert {"error", "detail", "message"} & set(said)
        if path.endswith("embeddings") and "multi" not in path:
            assert said["error"]["message"] == said["detail"] == said["message"]


def test_keys_are_needed_where_others_are_and_told_in_the_dialects_shape(guarded: Guarded) -> None:
    body = {"input": "red", "model": "colours"}
    assert guarded.ask("search", "POST", "/v1/embeddings", json=body).status_code == 200
    assert guarded.ask("bound", "POST", "/v1/embeddings", json=body).status_code == 200
    for kind in ("none", "unknown", "revoked"):
        answer = guarded.ask(kind, "POST", "/v1/embeddings", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert guarded.ask("none", "POST", "/embeddings_image", json=body).json() == {"detail": "Unauthorized"}
    assert set(guarded.ask("none", "POST", "/v2/embed", json=body).json()) == {"message"}
    assert set(guarded.ask("none", "POST", "/v1/multimodalembeddings", json=body).json()) == {"detail"}


def test_a_caller_who_asks_too_often_is_told_when_to_come_back(guarded: Guarded) -> None:
    headers = {"Authorization": "Bearer wrong", "X-Forwarded-For": guarded.address()}
    answers = [guarded.server.http.post("/v2/embed", json={}, headers=headers) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert set(answers[-1].json()) == {"message"}


def test_the_models_are_listed_for_the_clients_of_other_systems(wires: RunningServer) -> None:
    ours = wires.http.get("/v1/models").json()
    assert ours["object"] == "list"
    assert [one["id"] for one in ours["data"]] == ["colours", "jina-clip-v2", "clip"]
    assert {(one["object"], one["owned_by"]) for one in ours["data"]} == {("model", "sightline")}
    assert ours["loaded"]["name"] == "colours"
    theirs = wires.http.get("/models").json()["data"][0]
    assert theirs["owned_by"] == "infinity"
    assert theirs["capabilities"] == ["embed", "image_embed"]
    assert wires.http.get("/health").json()["unix"] > 1_700_000_000


COHERE_TEXTS: tuple[str, dict[str, Any]] = (
    "/v2/embed",
    {
        "texts": TEXTS,
        "model": "clip",
        "input_type": "search_document",
        "embedding_types": ["float"],
        "truncate": "END",
    },
)
# Requests as Weaviate's modules build them, by the structs of their source (usecases/modulecomponents/clients).
WEAVIATE: dict[str, tuple[str, dict[str, Any]]] = {
    "text2vec-jinaai": (
        "/v1/embeddings",
        {"input": TEXTS, "model": "clip", "embedding_type": "float", "normalized": True, "task": "retrieval.passage"},
    ),
    "multi2vec-jinaai": (
        "/v1/embeddings",
        {
            "input": [{"text": TEXTS[0]}, {"text": TEXTS[1]}],
            "model": "clip",
            "embedding_type": "float",
            "dimensions": 60,
        },
    ),
    "text2vec-nvidia": (
        "/v1/embeddings",
        {"input": TEXTS, "model": "clip", "encoding_format": "float", "input_type": "passage", "truncate": "NONE"},
    ),
    "text2vec-voyageai": (
        "/v1/embeddings",
        {"input": TEXTS, "model": "clip", "truncation": True, "input_type": "document"},
    ),
    "text2vec-voyageai, a query": ("/v1/embeddings", {"input": TEXTS, "model": "clip", "input_type": "query"}),
    "multi2vec-voyageai": (
        "/v1/multimodalembeddings",
        {
            "inputs": [{"content": [{"type": "text", "text": text}]} for text in TEXTS],
            "model": "clip",
            "truncation": True,
        },
    ),
    "text2vec-openai": ("/v1/embeddings", {"input": TEXTS, "model": "clip", "dimensions": 60}),
    "text2vec-cohere": COHERE_TEXTS,
    "multi2vec-nvidia": ("/v1/embeddings", {"input": TEXTS, "model": "clip", "encoding_format": "float"}),
    "multi2vec-cohere": COHERE_TEXTS,
    "multi2vec-jinaai, pictures": (
        "/v1/embeddings",
        {
            "input": [{"image": encode(RED)}, {"image": encode(BLUE)}],
            "model": "clip",
            "embedding_type": "float",
            "normalized": True,
        },
    ),
    "multi2vec-voyageai, pictures": (
        "/v1/multimodalembeddings",
        {
            "inputs": [{"content": [segment(RED)]}, {"content": [segment(BLUE)]}],
            "model": "clip",
            "truncation": True,
            "input_type": "document",
        },
    ),
    "multi2vec-nvidia, pictures": (
        "/v1/embeddings",
        {"input": [uri(RED), uri(BLUE)], "model": "clip", "encoding_format": "float"},
    ),
    "multi2vec-cohere, pictures": (
        "/v2/embed",
        {"images": [uri(RED), uri(BLUE)], "model": "clip", "input_type": "image", "embedding_types": ["float"]},
    ),
}


@pytest.mark.parametrize("module", WEAVIATE)
def test_requests_of_weaviates_modules_are_answered(
    module: str, wires: RunningServer, seen: dict[str, list[float]]
) -> None:
    path, body = WEAVIATE[module]
    answer = ask(wires, body, path)
    got = answer["embeddings"]["float"] if "cohere" in module else vectors(answer)
    assert np.array_equal(floats(got), floats([seen["red"], seen["blue"]]) if "pictures" in module else WORDS)


def test_weaviates_nvidia_module_finds_the_sentence_of_a_refusal(wires: RunningServer) -> None:
    """It reads `message`; the texts of multi2vec-nvidia look like OpenAI's, its pictures do not."""
    for sent in (TEXTS, [NOT_A_PICTURE]):
        answer = wires.http.post("/v1/embeddings", json={"input": sent, "model": "x", "encoding_format": "float"})
        assert answer.json()["message"] == answer.json()["error"]["message"]


BOTH = [{"type": "text", "text": TEXTS[0]}, {**image_url(uri(RED)), "image_url": {"url": uri(RED), "detail": "low"}}]
SENT_BY_URL = [{"type": "image_url", "image_url": "http://127.0.0.1:1/a.png"}]
SENT_VIDEO = [{"type": "video_base64", "video_base64": "data:video/mp4;base64,AAAA"}]
# Requests that have, with those above, every field of every dialect.
COMPLETE: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/embeddings",
        {"input": TEXTS, "model": "clip", "encoding_format": "base64", "dimensions": 60, "user": "me"},
    ),
    (
        "/embeddings",
        {
            "input": [uri(RED)],
            "modality": "image",
            "model": "clip",
            "encoding_format": "float",
            "dimensions": 0,
            "user": "",
        },
    ),
    ("/embeddings_image", {"input": [uri(RED)], "modality": "image", "encoding_format": "float", "dimensions": 60}),
    ("/embeddings_image", {"input": uri(RED), "model": "clip", "user": "me"}),
    (
        "/v1/embeddings",
        {
            "input": [{"text": TEXTS[0]}, {"image": uri(RED)}],
            "model": "clip",
            "embedding_type": "binary",
            "encoding_type": "float",
            "normalized": True,
            "task": "retrieval.query",
            "dimensions": 60,
            "late_chunking": False,
            "truncate": True,
            "user": "me",
        },
    ),
    (
        "/v1/embeddings",
        {
            "input": [TEXTS[0], uri(RED)],
            "model": "clip",
            "input_type": "query",
            "modality": ["text", "image"],
            "encoding_format": "float",
            "embedding_type": "float",
            "truncate": "END",
            "dimensions": 60,
            "user": "me",
        },
    ),
    (
        "/v1/embeddings",
        {
            "messages": message(BOTH),
            "model": "clip",
            "encoding_format": "base64",
            "dimensions": 60,
            "user": "me",
            "truncate_prompt_tokens": -1,
            "truncation_side": "right",
            "embed_dtype": "float16",
            "endianness": "little",
            "use_activation": True,
            "priority": 1,
            "request_id": "r",
            "add_special_tokens": True,
            "padding": "max_length",
        },
    ),
    (
        "/v1/embeddings",
        {
            "input": TEXTS,
            "model": "clip",
            "input_type": "document",
            "truncation": False,
            "output_dimension": 60,
            "output_dtype": "binary",
            "encoding_format": "base64",
        },
    ),
    (
        "/v1/multimodalembeddings",
        {
            "inputs": [{"content": [{"type": "text", "text": "a"}, segment(RED)]}],
            "model": "clip",
            "input_type": "query",
            "truncation": True,
            "output_dimension": 60,
            "output_dtype": "ubinary",
            "encoding_format": "base64",
        },
    ),
    ("/v1/multimodalembeddings", {"inputs": [{"content": SENT_BY_URL}, {"content": SENT_VIDEO}], "model": "clip"}),
    *(
        (
            path,
            {
                "inputs": [{"content": BOTH}],
                "model": "clip",
                "input_type": "search_query",
                "embedding_types": ["float", "binary"],
                "output_dimension": 60,
                "truncate": "NONE",
                "priority": 3,
            },
        )
        for path in ("/v2/embed", "/v1/embed")
    ),
    ("/v1/embed", {"images": [uri(RED)], "max_tokens": 4}),
]


ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1.5,
        1 << 70,
        "",
        " ",
        "\x00",
        "x" * 5000,
        "data:",
        "data:image/png;base64,",
        "http://",
    ),
    *(NOT_A_PICTURE, "data:image/png,a", "\ud800", [], {}, [[]], [{}], [None], {"a": []}, ["x", 1], [["x"]]),
    *("data:image/png;base64," + "A" * 9000, "A" * 9000, "http://127.0.0.1:1/a.png", "image", "text", [1] * 70),
)
RECORDED = [*COMPLETE, *PICTURES.values(), *WEAVIATE.values(), *((path, body) for path, body, *_ in REFUSED)]


def list_names(value: Any) -> Iterator[str]:
    """The names of all fields in a body."""
    if isinstance(value, dict):
        yield from value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from list_names(one)


@pytest.mark.parametrize(("path", "dialect"), [(path, one) for path in ROUTES for one in ROUTES[path]], ids=str)
def test_the_recorded_requests_have_every_field_of_every_dialect(path: str, dialect: type[WireRequest]) -> None:
    schema = dialect.model_json_schema()
    fields = {name for one in (schema, *schema.get("$defs", {}).values()) for name in one.get("properties", ())}
    addresses = [other for other in ROUTES if dialect in ROUTES[other]]
    bodies = [body for other, body in RECORDED if other in addresses]
    mine = [body for body in bodies if next(one for one in ROUTES[path] if one.claims(body)) is dialect]
    assert fields - {name for body in mine for name in list_names(body)} == set()


@pytest.mark.parametrize("n", range(len(COMPLETE)))
def test_a_request_with_every_field_is_answered(n: int, wires: RunningServer) -> None:
    path, body = COMPLETE[n]
    answer = wires.http.post(path, json=body)
    is_refused = "video" in str(body) or "max_tokens" in body
    assert answer.status_code == (400 if is_refused else 200), answer.text


def mutate(body: Any, dice: random.Random) -> Any:
    """The body with one value somewhere replaced, removed or doubled, or with one more field."""
    holders: list[Any] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict | list) and value:
            holders.append(value)
            for one in value.values() if isinstance(value, dict) else value:
                collect(one)

    changed = copy.deepcopy(body)
    collect(changed)
    holder = dice.choice(holders)
    key = dice.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    chance = dice.random()
    if chance < 0.6:
        holder[key] = copy.deepcopy(dice.choice(ODD))
    elif chance < 0.8:
        del holder[key]
    elif isinstance(holder, dict):
        fields = [name for _, one in RECORDED for name in one]
        holder[dice.choice(fields)] = copy.deepcopy(dice.choice(ODD))
    else:
        holder.append(copy.deepcopy(holder[key]))
    return changed


def check_mutations(server: RunningServer, count: int, seed: int) -> dict[int, int]:
    """Send mutations of recorded requests; the statuses that were answered."""
    dice = random.Random(seed)
    found: dict[int, int] = {}
    for _ in range(count):
        path, body = dice.choice(RECORDED)
        for _ in range(dice.choice((1, 1, 2, 4))):
            body = mutate(body, dice) if body else body
        answer: httpx.Response = server.http.post(
            path, content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (200, 400, 404, 413, 422), (path, str(body)[:300], answer.text)
        assert answer.headers["content-type"] == "application/json"
        said = answer.json()
        if answer.status_code == 200:
            assert {"data", "embeddings"} & set(said), (path, said)
        else:
            assert {"error", "detail", "message"} & set(said), (path, said)
        found[answer.status_code] = found.get(answer.status_code, 0) + 1
    return found


def test_no_mutation_of_a_request_gives_a_5xx(wires: RunningServer) -> None:
    found = check_mutations(wires, 250, seed=18)
    assert found[200] > 10
    assert found[400] + found[422] > 50
    assert "unexpected error" not in wires.output()


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_no_mutation_of_many_requests_gives_a_5xx(wires: RunningServer) -> None:
    found = check_mutations(wires, 6_000, seed=1)
    assert found[200] > 200
    assert "unexpected error" not in wires.output()


@pytest.mark.slow
def test_a_data_uri_of_30_mb_is_read_or_refused_in_the_dialects_shape(wires: RunningServer) -> None:
    large = uri(RED + bytes(22_500_000))  # what follows the picture is not looked at
    assert len(large) > 30_000_000
    assert len(vectors(ask(wires, {"input": [large], "modality": "image"}, "/embeddings"))) == 1
    garbage = "data:image/png;base64," + "QUJD" * 7_500_000
    answer = wires.http.post("/v2/embed", json={"images": [garbage]})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("images.0: this is not a picture")


def test_a_request_that_follows_one_with_pictures_has_a_folder_of_its_own(wires: RunningServer) -> None:
    """Sent at once on one connection: the server begins the second where it ends the first."""
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (64, 64, 3), np.uint8)).save(noise, "PNG")
    assert noise.tell() > LONG  # so it is written to a file
    body = json.dumps({"input": [uri(noise.getvalue())], "modality": "image"}).encode()
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    form += make_picture("blue") + b"\r\n--b--\r\n"
    head = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}\r\n"
    first = head.format("/embeddings", "application/json", len(body), "").encode() + body
    kind = "multipart/form-data; boundary=b"
    second = head.format("/v1/images?wait=0", kind, len(form), "Connection: close\r\n").encode() + form
    url = httpx.URL(wires.url)
    with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
        connection.sendall(first + second)
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) in ([b"200", b"200"], [b"200", b"202"]), answers[-500:]


def test_what_a_long_body_sets_does_not_reach_later_requests_of_its_connection(wires: RunningServer) -> None:
    """The server goes on to read a connection where a request reads its body."""
    for length in (300_000, 1_000_000, 3_000_000):
        large = uri(RED + bytes(length))
        assert len(vectors(ask(wires, {"input": [large], "modality": "image"}, "/embeddings"))) == 1
        upload_ready(wires, "blue")


def test_a_picture_that_other_calls_take_is_embedded_by_its_format(wires: RunningServer) -> None:
    stored = upload_ready(wires, "green", id="webp")
    assert stored["id"] == "webp"
    sent = make_picture("green", format="WEBP")
    answer = ask(wires, {"input": [uri(sent)], "modality": "image"}, "/embeddings")
    assert len(vectors(answer)[0]) == 60
