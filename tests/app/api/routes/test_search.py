"""Searches and classification over HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.app.api.asking import (
    check_refusal,
    field_part,
    file_part,
    form,
    make_picture,
    post_form,
    raw,
    search_ids,
    upload_ready,
)
from tests.support.servers import RunningServer

D = 60  # of the colours model


def ask(server: RunningServer, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The answer of a search by parts."""
    response = server.http.post("/v1/search", json={"query": list(parts), "k": 1000, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def rank_ids(answer: dict[str, Any], *ids: str) -> list[str]:
    """Those of the ids that were found, best first."""
    return [hit["id"] for hit in answer["hits"] if hit["id"] in ids]


def test_an_answer_says_everything(server: RunningServer) -> None:
    image = upload_ready(server, "green", caption="c")
    answer = server.http.get("/v1/search", params={"q": "green", "k": 1000, "mode": "vector"}).json()
    assert set(answer) == {"hits", "took_ms", "model", "target", "searched", "applied", "verdict", "warnings"}
    assert answer["warnings"] == []
    assert set(answer["took_ms"]) == {"encode", "search", "fetch", "total"}
    assert (answer["model"], answer["target"]) == ("colours", "images")
    assert answer["searched"] >= len(answer["hits"]) >= 1
    hit = next(hit for hit in answer["hits"] if hit["id"] == image["id"])
    assert hit["image"] == image
    assert hit["text"] is None
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert all(-1.0001 <= score <= 1.0001 for score in scores)


def test_words_in_two_languages_find_the_right_colour(server: RunningServer) -> None:
    red, blue = upload_ready(server, "red")["id"], upload_ready(server, "blue")["id"]
    for words, first in (("red", red), ("红色", red), ("a BLUE car", blue), ("蓝", blue)):
        answer = server.http.get("/v1/search", params={"q": words, "k": 1000}).json()
        assert rank_ids(answer, red, blue)[0] == first


def test_k_is_how_many_are_found(own_server: RunningServer) -> None:
    server = own_server
    empty = server.http.get("/v1/search", params={"q": "red"}).json()
    assert (empty["hits"], empty["searched"]) == ([], 0)
    assert ask(server, {"text": "red"}, target="texts")["hits"] == []
    ids = {upload_ready(server)["id"] for _ in range(4)}
    for k, count in ((1, 1), (3, 3), (4, 4), (5, 4), (1000, 4)):
        assert len(search_ids(server, "red", k=k)) == count
        assert len(ask(server, {"text": "red"}, k=k)["hits"]) == count
    assert set(search_ids(server, "red")) == ids
    assert len(server.http.get("/v1/search", params={"q": "red"}).json()["hits"]) == 4
    for id in ids:
        server.http.delete(f"/v1/images/{id}")
    assert search_ids(server, "red") == []


@pytest.mark.parametrize("effort", ["fast", "normal", "exact"])
def test_a_search_says_its_effort_and_keeps_its_mode(server: RunningServer, effort: str) -> None:
    red = upload_ready(server, "red")["id"]
    in_path = server.http.get("/v1/search", params={"q": "red", "k": 100, "effort": effort}).json()
    in_body = ask(server, {"text": "red"}, k=100, effort=effort)
    file = {"file": ("red.png", make_picture("red"))}
    by_picture = server.http.post("/v1/search/image", files=file, data={"k": 100, "effort": effort}).json()
    search = {"query": [{"text": "red"}], "k": 100, "effort": effort}
    in_batch = server.http.post("/v1/search/batch", json={"searches": [search]})
    for answer in (in_path, in_body, by_picture, in_batch.json()["answers"][0]):
        assert answer["applied"]["effort"] == effort
        assert red in [hit["id"] for hit in answer["hits"]]
    assert in_path["applied"]["mode"] == "hybrid"


def test_an_exact_search_and_one_with_parameters_can_be_asked_for(server: RunningServer) -> None:
    red = upload_ready(server, "red")["id"]
    plain = ask(server, {"image_id": red})
    more: dict[str, Any]
    params: list[dict[str, int] | None] = [
        {"nprobe": 65_536, "refine_k": 1},
        {"probes": 65_536, "rerank": 1},
        {"nprobe": 1, "rerank": 1},
        {},
        None,
    ]
    searches: list[dict[str, Any]] = [{"exact": True}, *[{"params": one} for one in params]]
    for more in searches:
        assert ask(server, {"image_id": red}, **more)["hits"] == plain["hits"], more
    words: dict[str, Any] = {"q": "red", "k": 1000}
    exact = server.http.get("/v1/search", params={**words, "exact": "true"}).json()
    assert exact["applied"] == {
        "mode": "vector",
        "effort": "exact",
        "model_trust": None,
        "normalisation": "off",
        "templates": [],
        "head": None,
    }
    assert exact["hits"] == server.http.get("/v1/search", params={**words, "mode": "vector"}).json()["hits"]
    check_refusal(server.http.get("/v1/search", params={**words, "exact": "perhaps"}), 422, "validation")


@pytest.mark.parametrize("k", ["0", "-1", "1001", "x", "1.5", "", "NaN", "1e3", "9" * 30, "9" * 5_000])
def test_k_is_bounded(k: str, server: RunningServer) -> None:
    check_refusal(server.http.get("/v1/search", params={"q": "red", "k": k}), 422, "validation")
    number = f'{{"query": [{{"text": "red"}}], "k": {k or "null"}}}'
    response = server.http.post("/v1/search", content=number, headers={"Content-Type": "application/json"})
    if k == "1e3":
        assert response.status_code == 200
    else:
        check_refusal(response, response.status_code, response.json()["code"])
        assert response.status_code in (400, 422)
    if k != "":
        body = form([field_part(b"k", k.encode()), file_part(make_picture())])
        check_refusal(post_form(server, "/v1/search/image", body), 422, "validation")


QUERIES = ["", " ", "\t\n", "x" * 1_001, "字" * 1_001, "x" * 1_000_000]


@pytest.mark.parametrize("words", QUERIES, ids=lambda words: f"{words[:3]!r}x{len(words)}")
def test_words_are_bounded(words: str, server: RunningServer) -> None:
    if len(words) < 1 << 16:
        check_refusal(server.http.get("/v1/search", params={"q": words}), 422, "validation")
    body = {"query": [{"text": words}]}
    check_refusal(server.http.post("/v1/search", json=body), 422, "validation")


def test_a_query_string_of_a_megabyte_is_refused(server: RunningServer) -> None:
    line = b"GET /v1/search?q=" + b"x" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    status, _, _ = raw(server, line)
    assert status in (400, 414, 422, 431)
    assert server.http.get("/livez").status_code == 200


@pytest.mark.parametrize(
    "words", ["x" * 1_000, "笑" * 1_000, "a\0b", "‮red", "😀", "\u200b red", "' OR 1=1 --", "&amp;" * 200]
)
def test_odd_words_are_answered(words: str, server: RunningServer) -> None:
    assert server.http.get("/v1/search", params={"q": words, "k": 1}).status_code == 200
    ask(server, {"text": words}, k=1)


def test_words_after_a_minus_are_turned_away_from(server: RunningServer) -> None:
    red, blue = (upload_ready(server, colour)["id"] for colour in ("red", "blue"))
    both = server.http.get("/v1/search", params={"q": "red blue", "k": 1000}).json()
    assert {red, blue} <= {hit["id"] for hit in both["hits"]}
    away = server.http.get("/v1/search", params={"q": "-red blue", "k": 1000}).json()
    assert rank_ids(away, red, blue) == [blue, red]
    assert next(hit["score"] for hit in away["hits"] if hit["id"] == red) < 0
    check_refusal(server.http.get("/v1/search", params={"q": " - "}), 422, "validation")


def test_a_query_is_asked_for(server: RunningServer) -> None:
    check_refusal(server.http.get("/v1/search"), 422, "validation")
    check_refusal(server.http.get("/v1/search", params={"q": "red", "target": "x"}), 422, "validation")


def test_parts_are_added_by_their_weights(server: RunningServer) -> None:
    red, blue, green = (upload_ready(server, colour)["id"] for colour in ("red", "blue", "green"))
    two = ask(server, {"text": "red"}, {"text": "blue", "weight": 0.5})
    assert rank_ids(two, red, blue, green) == [red, blue, green]
    away = ask(server, {"text": "green"}, {"image_id": red, "weight": -1.0}, {"text": "blue", "weight": 0.5})
    assert rank_ids(away, red, blue, green) == [green, blue, red]
    assert next(hit["score"] for hit in away["hits"] if hit["id"] == red) < 0


def test_every_kind_of_part_finds_its_picture(server: RunningServer) -> None:
    content = make_picture("purple")
    image = server.upload(content).json()["id"]
    server.http.post("/v1/texts", json={"texts": [{"id": "purple-part", "text": "purple"}]})
    plain = base64.b64encode(content).decode()
    vector = [0.0] * D
    vector[6] = 2.5  # purple is the seventh colour; any length will do
    for part in (
        {"text": "purple"},
        {"image_id": image},
        {"text_id": "purple-part"},
        {"image": plain},
        {"image": f"data:image/png;base64,{plain}"},
        {"vector": vector},
    ):
        hit = next(hit for hit in ask(server, part)["hits"] if hit["id"] == image)
        assert hit["score"] > 0.9, part
    assert ask(server, {"image": plain}, k=1)["hits"][0]["score"] > 0.999


def test_a_picture_finds_itself_and_its_like(server: RunningServer) -> None:
    content = make_picture("black")
    image, other = server.upload(content).json()["id"], upload_ready(server, "white")["id"]
    response = server.http.post("/v1/search/image", files={"file": ("a.png", content)}, data={"k": "1000"})
    assert response.status_code == 200, response.text
    assert rank_ids(response.json(), image, other)[0] == image
    assert response.json()["hits"][0]["score"] > 0.999
    texts = server.http.post(
        "/v1/search/image", files={"file": ("a.png", content)}, data={"target": "texts"}, params={"k": 3}
    )
    assert texts.json()["target"] == "texts"


BAD: list[tuple[Any, int, str]] = [
    ({}, 422, "validation"),
    ({"query": []}, 422, "validation"),
    ({"query": "red"}, 422, "validation"),
    ({"query": [{"text": "x"}] * 33}, 422, "validation"),
    ({"query": [{}]}, 422, "validation"),
    ({"query": [{"weight": 1}]}, 422, "validation"),
    ({"query": [{"text": "x", "image_id": "y"}]}, 422, "validation"),
    ({"query": [{"text": "x", "more": 1}]}, 422, "validation"),
    ({"query": [{"text": "red"}, {"text": "red", "weight": -1}]}, 422, "validation"),
    ({"query": [{"text": "red", "weight": 0}]}, 422, "validation"),
    ({"query": [{"text": "red", "weight": "x"}]}, 422, "validation"),
    ({"query": [{"text": "red", "weight": 1e300}]}, 422, "validation"),
    ({"query": [{"image_id": "nothing"}]}, 404, "not_found"),
    ({"query": [{"text_id": "nothing"}]}, 404, "not_found"),
    ({"query": [{"image_id": "../x"}]}, 422, "validation"),
    ({"query": [{"image": "no base64!"}]}, 422, "validation"),
    ({"query": [{"image": ""}]}, 415, "unsupported_media_type"),
    ({"query": [{"image": "data:image/png,xxx"}]}, 422, "validation"),
    ({"query": [{"image": "data:"}]}, 422, "validation"),
    ({"query": [{"image": base64.b64encode(b"text").decode()}]}, 415, "unsupported_media_type"),
    ({"query": [{"image": base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 50).decode()}]}, 422, "image_corrupt"),
    ({"query": [{"vector": []}]}, 422, "validation"),
    ({"query": [{"vector": [0.0] * D}]}, 422, "validation"),
    ({"query": [{"vector": [1.0] * (D + 1)}]}, 422, "validation"),
    ({"query": [{"vector": ["x"] * D}]}, 422, "validation"),
    ({"query": [{"text": "x"}], "target": "both"}, 422, "validation"),
    ({"query": [{"text": "x"}], "filter": {"tags": "x"}}, 422, "validation"),
    ({"query": [{"text": "x"}], "filter": ""}, 422, "validation"),
    ({"query": [{"text": "x"}], "more": 1}, 422, "validation"),
    ({"query": [{"text": "x"}], "exact": "perhaps"}, 422, "validation"),
    ({"query": [{"text": "x"}], "params": {"probes": 0}}, 422, "validation"),
    ({"query": [{"text": "x"}], "params": {"nprobe": 0}}, 422, "validation"),
    ({"query": [{"text": "x"}], "params": {"nprobe": 8, "probes": 8}}, 422, "validation"),
    ({"query": [{"text": "x"}], "params": {"refine_k": 8, "rerank": 9}}, 422, "validation"),
    ({"query": [{"text": "x"}], "params": {"probes": 65_537}}, 422, "validation"),
    ({"query": [{"text": "x"}], "params": {"rerank": -1}}, 422, "validation"),
    ({"query": [{"text": "x"}], "params": {"rerank": 1.5}}, 422, "validation"),
    ({"query": [{"text": "x"}], "params": {"ef": 1}}, 422, "validation"),
    ({"query": [{"text": "x"}], "effort": "slow"}, 422, "validation"),
    ({"query": [{"text": "x"}], "effort": "fast", "exact": True}, 422, "validation"),
    ({"query": [{"text": "x"}], "effort": "normal", "params": {"probes": 8}}, 422, "validation"),
    ({"query": [{"text": "x"}], "effort": "exact", "params": {"rerank": 8}}, 422, "validation"),
    ({"query": [{"text": "x"}], "collection": "other"}, 404, "not_found"),
    ({"query": [{"text": "x"}], "collection": "A b"}, 422, "validation"),
    (None, 422, "validation"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD, ids=[str(body)[:50] for body, _, _ in BAD])
def test_a_bad_query_is_refused(body: Any, status: int, code: str, server: RunningServer) -> None:
    check_refusal(server.http.post("/v1/search", json=body), status, code)


RAW = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"query": [{"text": "\xff"}]}',
    "lone surrogate": b'{"query": [{"text": "\\ud800"}]}',
    "surrogate as a name": b'{"query": [{"text": "x"}], "\\ud800": 1}',
    "NaN": b'{"query": [{"text": "x", "weight": NaN}]}',
    "infinity": b'{"query": [{"text": "x", "weight": -Infinity}]}',
    "too large a number": b'{"query": [{"text": "x", "weight": 1e999}]}',
    "NaN in a vector": b'{"query": [{"vector": [' + b"NaN," * (D - 1) + b"NaN]}]}",
    "a number of 5,000 digits": b'{"query": [{"text": "x"}], "k": ' + b"9" * 5_000 + b"}",
    "100,000 deep": b'{"query":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 deep and open": b"[" * 100_000,
    "objects 50,000 deep": b'{"query":' * 50_000 + b"1" + b"}" * 50_000,
    "a filter 900 deep": b'{"query": [{"text": "x"}], "filter": ' + b"[" * 900 + b"]" * 900 + b"}",
    "the same name twice": b'{"query": [{"text": "x"}], "query": []}',
    "a list": b"[]",
    "UTF-16": '{"query": [{"text": "x"}]}'.encode("utf-16") + b"\xd8",
}


@pytest.mark.parametrize("path", ["/v1/search", "/v1/texts", "/v1/classify", "/v1/images/x"])
@pytest.mark.parametrize("name", RAW)
def test_hostile_json_is_refused(name: str, path: str, server: RunningServer) -> None:
    method = "PATCH" if path == "/v1/images/x" else "POST"
    response = server.http.request(method, path, content=RAW[name], headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 404, 422), response.text
    check_refusal(response, response.status_code, response.json()["code"])
    assert response.json()["code"] in ("bad_request", "validation", "not_found")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", ""])
def test_json_under_another_name_is_refused(kind: str, server: RunningServer) -> None:
    content = json.dumps({"query": [{"text": "red"}]})
    response = server.http.post("/v1/search", content=content, headers={"Content-Type": kind})
    check_refusal(response, response.status_code, response.json()["code"])
    assert response.status_code in (415, 422)


def test_json_bodies_are_bounded(server: RunningServer) -> None:
    calls = [("POST", f"/v1/{name}") for name in ("texts", "classify", "search", "search/batch")]
    large = json.dumps({"texts": [{"text": "x"}], "more": "x" * (1 << 20)})
    for method, path in (*calls, ("PATCH", "/v1/images/x")):
        response = server.http.request(method, path, content=large, headers={"Content-Type": "application/json"})
        check_refusal(response, 413, "payload_too_large")
        pieces = (large[at : at + 99_999].encode() for at in range(0, len(large), 99_999))
        response = server.http.request(method, path, content=pieces, headers={"Content-Type": "application/json"})
        check_refusal(response, 413, "payload_too_large")


def classify(server: RunningServer, content: bytes, **fields: Any) -> list[dict[str, Any]]:
    """The labels of a picture."""
    response = server.http.post("/v1/classify", files={"file": ("a.png", content)}, data=fields)
    assert response.status_code == 200, response.text
    labels: list[dict[str, Any]] = response.json()["labels"]
    return labels


def test_a_picture_is_named(server: RunningServer) -> None:
    content = make_picture("blue")
    labels = classify(server, content, labels=["red", "blue", "green"], template="a {} thing")
    assert labels[0]["label"] == "blue"
    assert labels[0]["probability"] > 0.9
    assert sum(label["probability"] for label in labels) == pytest.approx(1)
    assert [set(label) for label in labels] == [{"label", "probability"}] * 3
    id = server.upload(content).json()["id"]
    body = {"image_id": id, "labels": ["red", "blue", "green"], "template": "a {} thing"}
    by_id = server.http.post("/v1/classify", json=body).json()["labels"]
    assert [label["label"] for label in by_id] == [label["label"] for label in labels]
    problem = check_refusal(
        server.http.post("/v1/classify", files={"file": ("a.png", content)}, data={"labels": "a cat,a car"}),
        422,
        "validation",
    )
    assert "each in a field of its own" in problem["detail"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"labels": [""]},
        {"labels": ["x" * 1_001]},
        {"labels": [f"{n}" for n in range(1_001)]},
        {"labels": ["x"]},
        {"labels": ["x", ""]},
        {"labels": ["x", "y"], "template": "no place"},
        {"labels": ["x", "y"], "template": "{}" + "x" * 1_000},
        {"labels": ["x", "y"], "template": ["{}", "{}"]},
        {"labels": ["x", "y"], "collection": "A"},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_labels_are_bounded(fields: dict[str, Any], server: RunningServer) -> None:
    check_refusal(
        server.http.post("/v1/classify", files={"file": ("a.png", make_picture())}, data=fields), 422, "validation"
    )
    if not isinstance(fields.get("template"), list):
        response = server.http.post("/v1/classify", json={"image_id": "x", **fields})
        check_refusal(response, 422, "validation")


def test_a_picture_that_is_not_there_is_not_named(server: RunningServer) -> None:
    body = {"image_id": "nothing", "labels": ["x", "y"]}
    check_refusal(server.http.post("/v1/classify", json=body), 404, "not_found")
    check_refusal(server.http.post("/v1/classify", json={**body, "collection": "other"}), 404, "not_found")


def test_searches_of_another_collection_are_refused(server: RunningServer) -> None:
    check_refusal(server.http.get("/v1/search", params={"q": "red", "collection": "other"}), 404, "not_found")
    for path, more in (("/v1/search/image", {}), ("/v1/classify", {"labels": ["x", "y"]})):
        files, data = (
            {"file": ("a.png", make_picture())},
            {"collection": "other", **more},
        )
        check_refusal(server.http.post(path, files=files, data=data), 404, "not_found")
    check_refusal(
        server.http.post("/v1/search/image", files={"file": ("a.png", make_picture())}, data={"filter": "x"}),
        422,
        "validation",
    )


def test_a_question_is_not_kept(server: RunningServer) -> None:
    before = server.http.get("/v1/stats").json()["images"]["total"]
    content = make_picture("yellow")
    server.http.post("/v1/search/image", files={"file": ("a.png", content)})
    ask(server, {"image": base64.b64encode(content).decode()})
    assert server.http.get("/v1/stats").json()["images"]["total"] == before
    assert not list((server.data_dir / "media" / ".incoming").iterdir())


def test_every_kind_of_search_tells_what_is_odd_about_its_words(server: RunningServer) -> None:
    image = upload_ready(server, "red")["id"]
    (by_words,) = server.http.get("/v1/search", params={"q": "красный"}).json()["warnings"]
    assert (by_words["code"], by_words["field"]) == ("language_unknown", "q")
    assert "English and Chinese" in by_words["detail"]
    parts: list[dict[str, Any]] = [{"text": "red"}, {"text": "?!", "weight": -0.5}, {"image_id": image}]
    (by_parts,) = ask(server, *parts)["warnings"]
    assert (by_parts["code"], by_parts["field"]) == ("no_words", "query.1.text")
    searches = [{"query": parts}, {"query": [{"image_id": image}]}]
    answers = server.http.post("/v1/search/batch", json={"searches": searches}).json()["answers"]
    assert [one["warnings"] for one in answers] == [[by_parts], []]
    by_picture = post_form(server, "/v1/search/image", form([file_part(make_picture())])).json()
    assert by_picture["warnings"] == []
    labels = ["red", "voiture rouge", "blue"]
    (by_label,) = server.http.post("/v1/classify", json={"image_id": image, "labels": labels}).json()["warnings"]
    assert (by_label["code"], by_label["field"]) == ("language_unknown", "labels.1")
    body = {"image_id": image, "labels": ["red", "blue"], "template": "фотография {}"}
    (by_template,) = server.http.post("/v1/classify", json=body).json()["warnings"]
    assert (by_template["code"], by_template["field"]) == ("language_unknown", "template")


def test_an_emoji_finds_what_its_name_finds(server: RunningServer) -> None:
    red, blue = upload_ready(server, "red")["id"], upload_ready(server, "blue")["id"]
    answer = server.http.get("/v1/search", params={"q": "🔴", "k": 1000}).json()
    assert rank_ids(answer, red, blue)[0] == red
    assert [warning["code"] for warning in answer["warnings"]] == ["emoji_named"]
    named = server.http.get("/v1/search", params={"q": "red circle", "k": 1000}).json()
    assert answer["hits"] == named["hits"]
    assert named["warnings"] == []
    shares = {}
    for label in ("🔵", "blue circle"):
        told = server.http.post("/v1/classify", json={"image_id": blue, "labels": [label, "red"]}).json()
        shares[label] = {one["label"]: one["probability"] for one in told["labels"]}[label]
    assert shares["🔵"] == pytest.approx(shares["blue circle"])


def test_words_find_captions_tags_and_names_before_what_only_looks_like_them(own_server: RunningServer) -> None:
    server = own_server
    look = upload_ready(server, "red")["id"]
    caption = upload_ready(server, "blue", caption="Two frogs in the red grass")["id"]
    tag = upload_ready(server, "green", tags="zebra")["id"]
    answer = server.http.get("/v1/search", params={"q": "a frog"}).json()
    assert (answer["applied"]["mode"], answer["hits"][0]["id"]) == ("hybrid", caption)
    assert answer["hits"][0]["matched"] == ["caption"]
    assert answer["hits"][0]["highlights"] == {"caption": ["frogs"]}
    assert answer["hits"][0]["ranks"]["keyword"] == 1
    assert answer["hits"][1]["ranks"]["keyword"] is None
    assert ask(server, {"text": "zebra"}, mode="keyword")["hits"][0]["id"] == tag
    assert len(ask(server, {"text": "zebra"}, mode="keyword")["hits"]) == 1
    vector = ask(server, {"text": "red"}, mode="vector")
    assert (vector["applied"]["mode"], vector["hits"][0]["id"], vector["hits"][0]["matched"]) == ("vector", look, [])
    only_vectors = ask(server, {"text": "red"}, weights={"keyword": 0})
    assert [hit["id"] for hit in only_vectors["hits"]] == [hit["id"] for hit in vector["hits"]]
    filtered = ask(server, {"text": "frog"}, filter={"key": "tags", "match": {"value": "zebra"}})
    assert [hit["id"] for hit in filtered["hits"]] == [tag]
    mixed = ask(server, {"text": "frog"}, {"image_id": look})
    assert (mixed["applied"]["mode"], mixed["hits"][0]["id"]) == ("vector", look)
    assert ask(server, {"text": "frog"}, {"image_id": look}, mode="hybrid")["applied"]["mode"] == "hybrid"


@pytest.mark.parametrize(
    ("part", "more", "reason"),
    [
        ({"text": "red"}, {"mode": "keywords"}, "mode"),
        ({"text": "red"}, {"mode": "keyword", "exact": True}, "exact compares vectors"),
        ({"text": "red"}, {"mode": "hybrid", "target": "texts"}, "texts are searched by their vectors"),
        ({"vector": [1.0] * 60}, {"mode": "keyword"}, "no words"),
        ({"text": "red", "weight": -1}, {"mode": "keyword"}, "no words"),
        ({"text": "red"}, {"weights": {"keyword": -1}}, "weights.keyword"),
        ({"text": "red"}, {"weights": {"keywrd": 1}}, "did you mean 'keyword'"),
    ],
)
def test_a_mode_that_cannot_be_is_refused(
    part: dict[str, Any], more: dict[str, Any], reason: str, server: RunningServer
) -> None:
    response = server.http.post("/v1/search", json={"query": [part], **more})
    check_refusal(response, 422, "validation")
    assert reason in response.json()["detail"]


def test_a_picture_is_searched_by_its_vector_alone(server: RunningServer) -> None:
    sent = {"file": ("a.png", make_picture())}
    answer = server.http.post("/v1/search/image", files=sent, data={"mode": "vector"})
    assert (answer.status_code, answer.json()["applied"]["mode"]) == (200, "vector")
    refused = server.http.post("/v1/search/image", files=sent, data={"mode": "hybrid"})
    check_refusal(refused, 422, "validation")
    assert "no words" in refused.json()["detail"]
