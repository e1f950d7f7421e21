"""What Immich asks its machine learning server for.

Immich cannot be installed here. The bodies are those that its source makes
(`server/src/repositories/machine-learning.repository.ts`: `FormData` with `entries` and a `Blob` without a name, or
words), in the bytes that Node's fetch sends; `tests/acceptance/test_immich_requests.py` has Node make them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from app.api.server import listen, listen_for_immich
from app.api.wires.immich import parse_immich_name, parse_model_name
from app.core.errors import StartupError
from app.core.settings import Settings
from tests.app.api.asking import check_refusal, make_picture
from tests.app.api.guarded import Guarded
from tests.app.api.wires.conftest import find_immich_url
from tests.support.mutations import mutate_bytes, mutate_json
from tests.support.pictures import picture
from tests.support.servers import RunningServer

BOUNDARY = "----formdata-undici-059023483621"
HEADERS = {
    "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
    "User-Agent": "node",
    "Accept": "*/*",
    "Accept-Language": "*",
    "Sec-Fetch-Mode": "cors",
}
VISUAL: dict[str, Any] = {"clip": {"visual": {"modelName": "colours"}}}
TEXTUAL: dict[str, Any] = {"clip": {"textual": {"modelName": "colours", "options": {"language": "de"}}}}
FACES: dict[str, Any] = {
    "facial-recognition": {
        "detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}},
        "recognition": {"modelName": "buffalo_l"},
    }
}
OCR: dict[str, Any] = {
    "ocr": {
        "detection": {"modelName": "PP-OCRv5_mobile", "options": {"minScore": 0.5, "maxResolution": 736}},
        "recognition": {"modelName": "PP-OCRv5_mobile", "options": {"minScore": 0.8}},
    }
}


def write_form(entries: Any, *, image: bytes | None = None, text: str | None = None) -> bytes:
    """The body that Node's fetch makes of Immich's FormData."""
    said = entries if isinstance(entries, bytes) else json.dumps(entries, separators=(",", ":")).encode()
    parts = [b'Content-Disposition: form-data; name="entries"\r\n\r\n' + said]
    if image is not None:
        head = b'Content-Disposition: form-data; name="image"; filename="blob"\r\n'
        parts.append(head + b"Content-Type: application/octet-stream\r\n\r\n" + image)
    if text is not None:
        parts.append(b'Content-Disposition: form-data; name="text"\r\n\r\n' + text.encode())
    edge = f"--{BOUNDARY}".encode()
    return b"".join(edge + b"\r\n" + part + b"\r\n" for part in parts) + edge + b"--\r\n"


@pytest.fixture(scope="module")
def immich(open_server: RunningServer) -> Iterator[httpx.Client]:
    """What Immich's repository does with a URL of its list, as far as HTTP goes."""
    with httpx.Client(base_url=find_immich_url(open_server), headers=HEADERS, timeout=60, trust_env=False) as client:
        yield client


def predict(immich: httpx.Client, entries: Any, **sent: Any) -> httpx.Response:
    return immich.post("/predict", content=write_form(entries, **sent))


def test_the_health_check_of_immich_passes(immich: httpx.Client) -> None:
    assert immich.get("/ping").text == "pong"
    assert immich.get("/").json() == {"message": "Immich ML"}


def test_a_picture_and_words_get_vectors_in_json_within_json(open_server: RunningServer, immich: httpx.Client) -> None:
    content = picture("blue", seed=4, size=(53, 41))
    id = open_server.upload(content).json()["id"]
    stored = np.array(open_server.http.get(f"/v1/images/{id}/vector").json()["vector"])
    seen = predict(immich, VISUAL, image=content).json()
    assert (seen["imageWidth"], seen["imageHeight"]) == (53, 41)
    assert np.array(json.loads(seen["clip"])) @ stored == pytest.approx(1, abs=1e-5)
    said = predict(immich, TEXTUAL, text="blue").json()
    assert set(said) == {"clip"}
    vector = np.array(json.loads(said["clip"]))
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert vector @ stored > 0.5
    assert len(json.loads(predict(immich, TEXTUAL, text="blue " * 3_000).json()["clip"])) == 60


@pytest.mark.parametrize(("entries", "task"), [(FACES, "facial-recognition"), (OCR, "ocr"), ({**VISUAL, **OCR}, "ocr")])
def test_another_task_is_refused_so_that_immich_asks_its_next_server(
    immich: httpx.Client, entries: Any, task: str
) -> None:
    assert task in check_refusal(predict(immich, entries, image=make_picture()), 501, "bad_request")["detail"]


@pytest.mark.parametrize("name", ["ViT-B-32__openai", "colours__x", "", "x" * 300])
def test_another_model_is_refused(immich: httpx.Client, name: str) -> None:
    entries = {"clip": {"visual": {"modelName": name}}}
    problem = check_refusal(predict(immich, entries, image=make_picture()), 404, "not_found")
    assert "this server has the model colours" in problem["detail"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("ViT-B-32__openai", "ViT-B-32/openai"),
        ("ViT-B-32__openai", "ViT-B-32-quickgelu/openai"),
        ("immich-app/ViT-B-32__openai", "ViT-B-32/openai"),
        ("ViT-B-32__laion2b-s34b-b79k", "ViT-B-32/laion2b_s34b_b79k"),
        ("ViT-H-14-quickgelu__dfn5b", "ViT-H-14-quickgelu/dfn5b"),
        ("XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k", "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k"),
        ("ViT-SO400M-14-SigLIP2__webli", "ViT-SO400M-14-SigLIP2/webli"),
    ],
)
def test_a_name_of_immich_means_a_model_of_open_clip(theirs: str, ours: str) -> None:
    assert parse_immich_name(theirs) == parse_model_name(ours)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("ViT-B-32__openai", "ViT-B-32/laion2b_s34b_b79k"),
        ("ViT-H-14__dfn5b", "ViT-H-14-quickgelu/dfn5b"),
        ("XLM-Roberta-Large-Vit-B-32", "xlm-roberta-large-ViT-H-14/frozen_laion5b_s13b_b90k"),
        ("ViT-B-32", "ViT-B-32/openai"),
    ],
)
def test_other_weights_are_another_model(theirs: str, ours: str) -> None:
    assert parse_immich_name(theirs) != parse_model_name(ours)


@pytest.mark.parametrize(
    ("entries", "sent", "status"),
    [
        (VISUAL, {}, 400),
        (TEXTUAL, {"text": ""}, 400),
        (VISUAL, {"text": "red"}, 422),
        (TEXTUAL, {"image": make_picture()}, 422),
        (VISUAL, {"image": b"no picture"}, 415),
        (VISUAL, {"image": make_picture()[:70]}, 422),
        (VISUAL, {"image": bytes(2_000_000)}, 413),
        (b"{", {"text": "red"}, 422),
        (b"[]", {"text": "red"}, 422),
        (b"{}", {"text": "red"}, 422),
        (b'{"clip": []}', {"text": "red"}, 422),
        (b'{"clip": {"other": {"modelName": "colours"}}}', {"text": "red"}, 422),
        (b'{"clip": {"textual": {}}}', {"text": "red"}, 422),
        (b'{"clip": {"textual": []}}', {"text": "red"}, 422),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(
    immich: httpx.Client, entries: Any, sent: dict[str, Any], status: int
) -> None:
    answer = predict(immich, entries, **sent)
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True), answer.text


def test_nothing_else_is_there(open_server: RunningServer, immich: httpx.Client) -> None:
    for path in ("/v1/stats", "/v1/images", "/metrics", "/livez", "/openapi.json", "/docs", "/web/main.js"):
        assert immich.get(path).status_code == 404, path
    assert immich.get("/predict").status_code == 405
    for path in ("/predict", "/ping"):
        assert open_server.http.request("POST" if path == "/predict" else "GET", path).status_code == 404


def test_a_page_cannot_ask_by_a_name_of_its_own_or_from_another_site(immich: httpx.Client) -> None:
    body = write_form(TEXTUAL, text="red")
    check_refusal(immich.post("/predict", content=body, headers={"Host": "evil.example"}), 403, "forbidden")
    check_refusal(immich.post("/predict", content=body, headers={"Origin": "http://evil.example"}), 403, "forbidden")


def test_immich_needs_no_key_where_the_server_has_some(guarded: Guarded) -> None:
    url = find_immich_url(guarded.server)
    answer = httpx.post(f"{url}/predict", content=write_form(TEXTUAL, text="red"), headers=HEADERS, trust_env=False)
    assert answer.status_code == 200
    assert guarded.ask("none", "GET", "/v1/stats").status_code == 401
    assert httpx.get(f"{url}/v1/stats", trust_env=False).status_code == 404


def test_no_mutation_of_a_recorded_request_is_an_error_of_the_server(immich: httpx.Client) -> None:
    rng = random.Random(0)
    bodies = [write_form(entries, text="red") for entries in mutate_json(TEXTUAL, 60)]
    bodies += [write_form(entries, image=make_picture()) for entries in mutate_json(VISUAL, 40)]
    bodies += [mutate_bytes(write_form(TEXTUAL, text="red"), rng) for _ in range(40)]
    bodies += [mutate_bytes(write_form(VISUAL, image=make_picture()), rng) for _ in range(40)]
    statuses = [immich.post("/predict", content=body).status_code for body in bodies]
    assert 200 in statuses
    assert {status for status in statuses if status >= 500} <= {501}, statuses


def test_the_two_ports_are_different_and_free() -> None:
    with pytest.raises(StartupError, match="must be two ports"), listen_for_immich(Settings(port=9, immich_port=9)):
        pass
    with listen(Settings(host="127.0.0.1", port=0)) as (listener,):
        port = listener.getsockname()[1]
        settings = Settings(port=0, immich_host="127.0.0.1", immich_port=port)
        with pytest.raises(StartupError, match="choose another with --immich-port"), listen_for_immich(settings):
            pass
    wrong = Settings(port=0, immich_host="192.0.2.1", immich_port=0)
    with pytest.raises(StartupError, match="--immich-host takes an address"), listen_for_immich(wrong):
        pass


def test_no_port_is_opened_unless_it_is_named(tmp_path: Path) -> None:
    with listen_for_immich(Settings(data_dir=tmp_path)) as listeners:
        assert listeners == []
