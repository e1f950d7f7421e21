"""Whether anything fits: matches of a picture and texts, verdicts, thresholds and templates of searches."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.encoder.dummy import PALETTE
from tests.app.api.asking import check_refusal, make_picture, upload_ready
from tests.support.servers import RunningServer, wait_until

RGB = {names[0]: colour for names, colour in PALETTE.items()}
SHOWN = list(RGB)[:6]  # the collection shows these colours, and no others
PICTURES = [
    *[(one,) for one in SHOWN],
    *itertools.combinations(SHOWN, 2),
    *[(one, one, other) for one, other in itertools.permutations(SHOWN, 2)],
    *itertools.combinations(SHOWN, 3),
]


def draw(colours: tuple[str, ...]) -> bytes:
    columns = [RGB[colours[n * len(colours) // 32]] for n in range(32)]
    out = io.BytesIO()
    Image.fromarray(np.tile(np.array(columns, np.uint8), (32, 1, 1))).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def measured_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose collection of colours, each picture with its caption, has been measured."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for colours in PICTURES:
            file.writestr("-".join(colours) + ".png", draw(colours))
            file.writestr("-".join(colours) + ".txt", " and ".join(colours))
    with RunningServer(tmp_path_factory.mktemp("measured") / "data") as server:
        job = server.http.post("/v1/images/bulk", files={"files": ("a.zip", archive.getvalue())}).json()
        assert server.wait_job(job["id"])["done"] == len(PICTURES)
        wait_until(lambda: search(server, "pink")["verdict"]["match"] == "none", 60, server.output)
        yield server


def search(server: RunningServer, words: str, **more: Any) -> dict[str, Any]:
    answer = server.http.get("/v1/search", params={"q": words, "mode": "vector", **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def post(server: RunningServer, **body: Any) -> dict[str, Any]:
    answer = server.http.post("/v1/search", json={"query": [{"text": "a red thing"}], **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_verdict_tells_what_is_there_from_what_is_not(measured_server: RunningServer) -> None:
    present = [search(measured_server, " and ".join(colours))["verdict"] for colours in PICTURES]
    absent = [
        search(measured_server, words)["verdict"] for words in ("pink", "black and white", "a purple house", "brown")
    ]
    assert [one["match"] for one in present].count("good") > 0.8 * len(PICTURES)
    assert [one["match"] for one in absent] == ["none"] * 4
    assert all(0 <= one["confidence"] <= 1 for one in [*present, *absent])


def test_words_that_were_found_are_good_whatever_the_vectors_say(measured_server: RunningServer) -> None:
    assert search(measured_server, "pink", mode="hybrid")["verdict"]["match"] == "none"
    id = search(measured_server, "red", k=1)["hits"][0]["id"]
    measured_server.http.patch(f"/v1/images/{id}", json={"tags": ["umbrella"]})
    verdict = search(measured_server, "umbrella", mode="hybrid")["verdict"]
    assert (verdict["match"], verdict["confidence"]) == ("good", 1)
    assert 0 < verdict["threshold"] < 1  # of the cosines: what is below it has the words alone
    assert search(measured_server, "umbrella", mode="keyword")["verdict"]["match"] == "good"
    assert search(measured_server, "umbrella", mode="vector")["verdict"]["match"] == "none"
    verdict = search(measured_server, "xylophones", mode="keyword")["verdict"]
    assert verdict == {"match": "none", "confidence": 1, "threshold": None}


def test_the_verdict_can_be_left_out(measured_server: RunningServer) -> None:
    assert search(measured_server, "red", calibrate="false")["verdict"] is None
    assert search(measured_server, "red", exact="true", mode="vector")["verdict"] is None
    assert search(measured_server, "red", target="texts")["verdict"] is None
    assert post(measured_server, calibrate=False)["verdict"] is None
    picture = {"file": ("a.png", make_picture("red"))}
    assert measured_server.http.post("/v1/search/image", files=picture).json()["verdict"] is None


def test_a_collection_that_is_too_small_is_uncertain(server: RunningServer) -> None:
    upload_ready(server, "red")
    server.http.post("/v1/collections", json={"name": "few"})
    assert search(server, "red", collection="few")["verdict"] == {"match": "none", "confidence": 1, "threshold": None}
    sent = server.http.post("/v1/images?wait=30&collection=few", files={"file": ("a.png", make_picture("red"))})
    assert sent.json()["status"] == "ready"
    assert search(server, "red", collection="few")["verdict"] == {"match": "weak", "confidence": 0, "threshold": None}


def test_hits_below_the_threshold_are_left_out(measured_server: RunningServer) -> None:
    whole = search(measured_server, "red", k=1000)["hits"]
    scores = [hit["score"] for hit in whole]
    assert min(scores) < 0.5 < max(scores)
    for mode in ("vector", "hybrid", "keyword"):
        found = search(measured_server, "red", k=1000, score_threshold=0.5, mode=mode)["hits"]
        allowed = [
            hit["id"] for hit in search(measured_server, "red", k=1000, mode=mode)["hits"] if hit["score"] >= 0.5
        ]
        assert [hit["id"] for hit in found] == allowed
    assert search(measured_server, "red", k=3, score_threshold=0.5)["hits"] == whole[:3]
    assert search(measured_server, "pink", score_threshold=0.9)["hits"] == []
    assert post(measured_server, score_threshold=1)["hits"] == []
    picture = {"file": ("a.png", make_picture("red"))}
    for more in ({"data": {"score_threshold": "0.9"}}, {"params": {"score_threshold": "0.9"}}):
        hits = measured_server.http.post("/v1/search/image", files=picture, **more).json()["hits"]  # type: ignore[arg-type]
        assert 0 < len(hits) < 10
        assert all(hit["score"] >= 0.9 for hit in hits)
    batch = {"searches": [{"query": [{"text": "red"}], "score_threshold": 0.5}, {"query": [{"text": "red"}]}]}
    some, more_hits = measured_server.http.post("/v1/search/batch", json=batch).json()["answers"]
    assert all(hit["score"] >= 0.5 for hit in some["hits"])
    assert len(more_hits["hits"]) == 10


@pytest.mark.parametrize("threshold", ["NaN", "inf", "-Infinity", "1.1", "-2", "x", ""])
def test_a_threshold_is_a_cosine(threshold: str, server: RunningServer) -> None:
    params = {"q": "red", "score_threshold": threshold}
    check_refusal(server.http.get("/v1/search", params=params), 422, "validation")
    content = f'{{"query": [{{"text": "red"}}], "score_threshold": {threshold or "[]"}}}'
    answer = server.http.post("/v1/search", content=content, headers={"Content-Type": "application/json"})
    check_refusal(answer, answer.status_code, answer.json()["code"])
    assert answer.status_code in (400, 422)


def test_templates_are_averaged(measured_server: RunningServer) -> None:
    plain = search(measured_server, "red")
    assert plain["applied"]["templates"] == []
    assert plain["applied"]["normalisation"] in ("nnn", "off")
    for given in ("auto", "none"):
        assert search(measured_server, "red", templates=given)["hits"] == plain["hits"]
    mixed = search(measured_server, "red", templates=["{}", "{} and green"])
    assert mixed["applied"]["templates"] == ["{}", "{} and green"]
    both = measured_server.http.post(
        "/v1/search", json={"query": [{"text": "red"}, {"text": "red and green"}], "mode": "vector"}
    ).json()
    assert [hit["id"] for hit in mixed["hits"]] == [hit["id"] for hit in both["hits"]]
    body = post(measured_server, query=[{"text": "red"}], templates=["{}", "{} and green"], mode="vector")
    assert body["hits"] == mixed["hits"]
    assert post(measured_server, templates="none")["applied"]["templates"] == []


@pytest.mark.parametrize(
    ("templates", "told"),
    [
        (["a photo"], "has no {}"),
        ([], "templates"),
        (["{}" + "x" * n for n in range(17)], "templates"),
        (["{}" + "x" * 1_000], "1000 characters"),
        ("often", "templates"),
        ([1], "templates"),
    ],
)
def test_bad_templates_are_refused(templates: Any, told: str, server: RunningServer) -> None:
    body = {"query": [{"text": "red"}], "templates": templates}
    assert told in check_refusal(server.http.post("/v1/search", json=body), 422, "validation")["detail"]


def test_templates_have_limits(server: RunningServer) -> None:
    many = [f"{{}} {n}" for n in range(16)]
    parts = [{"text": f"red {n}"} for n in range(5)]
    refused = server.http.post("/v1/search", json={"query": parts, "templates": many})
    assert "64 at most" in check_refusal(refused, 422, "validation")["detail"]
    batch = {"searches": [{"query": parts[:4], "templates": many}] * 6}
    refused = server.http.post("/v1/search/batch", json=batch)
    assert "320 texts" in check_refusal(refused, 422, "validation")["detail"]
    refused = server.http.get("/v1/search", params={"q": "red", "exact": "true", "templates": "a {}"})
    assert "exact" in check_refusal(refused, 422, "validation")["detail"]
    refused = server.http.get("/v1/search", params={"q": "red", "templates": [*many, "{} x"]})
    assert "16 at most" in check_refusal(refused, 422, "validation")["detail"]
    check_refusal(server.http.get("/v1/search", params={"q": "red", "templates": "photo"}), 422, "validation")
    check_refusal(server.http.get("/v1/search", params={"q": ["red", "blue"]}), 422, "validation")


def match(server: RunningServer, *texts: str, colour: str = "red") -> dict[str, Any]:
    answer = server.http.post("/v1/match", files={"file": ("a.png", make_picture(colour))}, data={"text": list(texts)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_text_fits_or_does_not(measured_server: RunningServer) -> None:
    found = match(measured_server, "red", "blue", "black and white")
    assert [one["text"] for one in found["matches"]] == ["red", "blue", "black and white"]
    assert [one["match"] for one in found["matches"]] == [True, False, False]
    assert all(set(one) == {"text", "score", "probability", "match"} for one in found["matches"])
    assert found["matches"][0]["probability"] > 0.5 > found["matches"][1]["probability"]
    assert found["warnings"] == []
    id = search(measured_server, "blue", k=1)["hits"][0]["id"]
    by_id = measured_server.http.post("/v1/match", json={"image_id": id, "text": ["blue", "red"]}).json()["matches"]
    assert [one["match"] for one in by_id] == [True, False]


def test_without_a_measure_only_the_score_is_known(server: RunningServer) -> None:
    server.http.post("/v1/collections", json={"name": "none-yet"})
    answer = server.http.post(
        "/v1/match",
        files={"file": ("a.png", make_picture("red"))},
        data={"text": ["red"], "collection": "none-yet"},
    ).json()
    assert (answer["matches"][0]["probability"], answer["matches"][0]["match"]) == (None, None)
    assert answer["matches"][0]["score"] > 0.9
    assert [one["code"] for one in answer["warnings"]] == ["not_calibrated"]


def ask(server: RunningServer, id: str, question: str, *answers: str, **more: Any) -> dict[str, Any]:
    body = {"question": question, "answers": list(answers), **more}
    answer = server.http.post(f"/v1/images/{id}/ask", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_yes_or_no_is_decided_by_how_well_the_statement_fits(measured_server: RunningServer) -> None:
    id = search(measured_server, "blue", k=1)["hits"][0]["id"]
    yes, no = (ask(measured_server, id, question, "yes", "no") for question in ("Is it blue?", "Is it red?"))
    assert [one["answer"] for one in yes["answers"]] == ["yes", "no"]
    assert [one["answer"] for one in no["answers"]] == ["no", "yes"]
    assert sum(one["probability"] for one in no["answers"]) == pytest.approx(1)
    assert yes["warnings"] == no["warnings"] == []


def test_yes_or_no_is_a_guess_where_nothing_is_measured(server: RunningServer) -> None:
    server.http.post("/v1/collections", json={"name": "none-yet"})
    id = upload_ready(server, "red", collection="none-yet")["id"]
    found = ask(server, id, "Is it red?", "yes", "no", collection="none-yet")
    assert [one["code"] for one in found["warnings"]] == ["not_calibrated"]


def test_the_encoder_answers_where_there_is_no_captioner(server: RunningServer) -> None:
    id = upload_ready(server, "green")["id"]
    found = ask(server, id, "What colour is it?", "red", "green", "blue")
    assert (found["question"], found["by"], found["model"]) == ("What colour is it?", "encoder", "colours")
    assert found["answers"][0]["answer"] == "green"
    assert sum(one["probability"] for one in found["answers"]) == pytest.approx(1)
    assert ask(server, id, "这是什么颜色？", "红色", "绿色", by="encoder")["by"] == "encoder"
    body = {"question": "x", "answers": ["a", "b"], "by": "captioner"}
    assert (
        "--captioner" in check_refusal(server.http.post(f"/v1/images/{id}/ask", json=body), 422, "validation")["detail"]
    )


@pytest.mark.parametrize(
    "body",
    [
        {"answers": ["a", "b"]},
        {"question": "x"},
        {"question": " ", "answers": ["a", "b"]},
        {"question": "x" * 1_001, "answers": ["a", "b"]},
        {"question": "x", "answers": ["a"]},
        {"question": "x", "answers": ["a", " "]},
        {"question": "x", "answers": ["a", "a"]},
        {"question": "x", "answers": ["a", 7]},
        {"question": "x", "answers": [f"{n}" for n in range(27)]},
        {"question": "x", "answers": ["a", "b"], "by": "me"},
        {"question": "x", "answers": ["a", "b"], "labels": []},
    ],
)
def test_a_bad_question_is_refused(body: dict[str, Any], server: RunningServer) -> None:
    check_refusal(server.http.post("/v1/images/x/ask", json=body), 422, "validation")


def test_a_question_needs_its_picture_and_its_collection(server: RunningServer) -> None:
    body = {"question": "What is it?", "answers": ["a", "b"]}
    check_refusal(server.http.post("/v1/images/nothing/ask", json=body), 404, "not_found")
    check_refusal(server.http.post("/v1/images/nothing/ask", json={**body, "collection": "other"}), 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {"image_id": "x"},
        {"image_id": "x", "text": []},
        {"image_id": "x", "text": [" "]},
        {"image_id": "x", "text": ["y" * 1_001]},
        {"image_id": "x", "text": "y"},
        {"image_id": "x", "text": [f"{n}" for n in range(1_001)]},
        {"text": ["y"]},
        {"image_id": "x", "text": ["y"], "labels": ["z"]},
    ],
)
def test_a_bad_match_is_refused(body: dict[str, Any], server: RunningServer) -> None:
    check_refusal(server.http.post("/v1/match", json=body), 422, "validation")
    fields = {name: value for name, value in body.items() if name != "image_id"}
    picture = {"file": ("a.png", make_picture())}
    if "text" not in body or body["text"] not in (["y"], "y"):
        check_refusal(server.http.post("/v1/match", files=picture, data=fields), 422, "validation")


def test_a_match_needs_its_picture_and_its_collection(server: RunningServer) -> None:
    body = {"image_id": "nothing", "text": ["x"]}
    check_refusal(server.http.post("/v1/match", json=body), 404, "not_found")
    check_refusal(server.http.post("/v1/match", json={**body, "collection": "other"}), 404, "not_found")
    broken = server.http.post("/v1/match", files={"file": ("a.png", b"x")}, data={"text": ["x"]})
    assert broken.status_code in (415, 422)
