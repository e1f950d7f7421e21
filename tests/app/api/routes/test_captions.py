"""A server with a captioner, in real processes: captions come, are found, deleted and made again; questions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.api.asking import check_refusal, make_picture, upload_ready
from tests.support.chat_servers import ChatStub, fail, find_colour, read_prompt, say, tell_colour
from tests.support.servers import RunningServer, wait_until

WAIT = 60.0


@pytest.fixture(scope="module")
def stub() -> Iterator[ChatStub]:
    with ChatStub() as one:
        yield one


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, stub: ChatStub) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("captioned") / "data"
    said: dict[str, Any] = {
        "captioner": stub.url,
        "captioner_model": "llava",
        "captioner_key": "sk-secret-123",
        "captioner_seconds": 5,
    }
    with RunningServer(folder, **said) as server:
        yield server
        assert "sk-secret-123" not in server.output()
        assert "Traceback" not in server.output()


@pytest.fixture(autouse=True)
def see(stub: ChatStub) -> None:
    stub.reply = tell_colour


def get(server: RunningServer, id: str) -> dict[str, Any]:
    image: dict[str, Any] = server.http.get(f"/v1/images/{id}").json()
    return image


def wait_captioned(server: RunningServer, id: str) -> str:
    return str(wait_until(lambda: get(server, id)["generated_caption"], WAIT, server.output))


def find_check(server: RunningServer) -> dict[str, Any]:
    checks = server.http.get("/readyz").json()["checks"]
    return next(check for check in checks if check["name"] == "enrichment")


def ask(server: RunningServer, id: str, *answers: str, **more: Any) -> dict[str, Any]:
    body = {"question": "What colour is it?", "answers": list(answers), **more}
    response = server.http.post(f"/v1/images/{id}/ask", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_caption_comes_by_itself_and_is_found(served: RunningServer, stub: ChatStub) -> None:
    id = upload_ready(served, "blue", caption="ours")["id"]
    assert wait_captioned(served, id) == "A blue shape on a plain ground."
    assert get(served, id)["caption"] == "ours"
    hit = served.http.get("/v1/search", params={"q": "shape on a plain ground", "mode": "keyword"}).json()["hits"][0]
    assert (hit["id"], hit["matched"]) == (id, ["generated"])
    state = served.http.get(f"/v1/images/{id}/enrichments").json()["enrichments"]["caption"]
    assert (state["state"], state["result"]["model"]) == ("done", "llava")
    assert stub.headers[-1]["Authorization"] == "Bearer sk-secret-123"
    assert find_check(served)["ok"]


def test_a_generated_caption_is_deleted_and_made_again_on_request(served: RunningServer, stub: ChatStub) -> None:
    id = upload_ready(served, "green", caption="ours", tags="own")["id"]
    wait_captioned(served, id)
    changed = served.http.patch(f"/v1/images/{id}", json={"generated_caption": None})
    assert changed.status_code == 200, changed.text
    image = changed.json()
    assert (image["generated_caption"], image["caption"], image["tags"]) == (None, "ours", ["own"])
    found = served.http.get("/v1/search", params={"q": "green shape on a plain ground", "mode": "keyword"}).json()
    assert id not in [hit["id"] for hit in found["hits"] if "generated" in hit["matched"]]
    stub.reply = say("Another text.")
    asked = served.http.post("/v1/enrichments", json={"kind": "caption", "ids": [id]})
    assert asked.status_code == 202, asked.text
    assert wait_captioned(served, id) == "Another text."


def test_nobody_writes_a_generated_caption_by_hand(served: RunningServer) -> None:
    id = upload_ready(served, "red")["id"]
    for value in ("mine", "", 7):
        refused = served.http.patch(f"/v1/images/{id}", json={"generated_caption": value})
        check_refusal(refused, 422, "validation")


def test_pictures_wait_and_are_searched_while_the_captioner_is_away(served: RunningServer, stub: ChatStub) -> None:
    stub.reply = fail(503)
    id = upload_ready(served, "yellow")["id"]  # embedding goes on
    wait_until(lambda: not find_check(served)["ok"], WAIT, served.output)
    ready = served.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "caption waits: the captioner: it answered 503" in find_check(served)["detail"]
    metrics = served.http.get("/metrics").text
    assert 'sightline_enrichments_waiting{kind="caption"} ' in metrics
    assert 'sightline_check{check="enrichment"} 0.0' in metrics
    assert served.http.get("/v1/stats").json()["enrichments"]["caption"]["waiting"] > 0
    stub.reply = tell_colour
    assert wait_captioned(served, id)
    wait_until(lambda: find_check(served)["ok"], WAIT, served.output)


def test_the_captioner_answers_questions_with_probabilities(served: RunningServer, stub: ChatStub) -> None:
    id = upload_ready(served, "blue")["id"]
    wait_captioned(served, id)
    stub.reply = say("B", tokens=[{"B": math.log(0.75), "A": math.log(0.25)}])
    found = ask(served, id, "red", "blue")
    assert (found["by"], found["model"], found["warnings"]) == ("captioner", "llava", [])
    assert found["answers"] == [
        {"answer": "blue", "probability": pytest.approx(0.75)},
        {"answer": "red", "probability": pytest.approx(0.25)},
    ]
    request = stub.requests[-1]
    assert find_colour(request) == "blue"
    assert "Question: What colour is it?\nAnswers:\nA. red\nB. blue\n" in read_prompt(request)


def test_a_captioner_without_probabilities_says_one_answer(served: RunningServer, stub: ChatStub) -> None:
    id = upload_ready(served, "red")["id"]
    stub.reply = say("A. red")
    found = ask(served, id, "red", "blue")
    assert [one["probability"] for one in found["answers"]] == [1.0, 0.0]
    assert [one["code"] for one in found["warnings"]] == ["no_probabilities"]


@pytest.mark.parametrize("reply", [fail(500), say("I think it is teal.")], ids=["away", "another answer"])
def test_the_encoder_answers_where_the_captioner_does_not(reply: Any, served: RunningServer, stub: ChatStub) -> None:
    id = upload_ready(served, "red")["id"]
    stub.reply = reply
    found = ask(served, id, "blue", "red", by="captioner")
    assert (found["by"], found["model"], found["answers"][0]["answer"]) == ("encoder", "colours", "red")
    assert [one["code"] for one in found["warnings"]] == ["captioner_failed"]
    assert ask(served, id, "blue", "red", by="encoder")["warnings"] == []


def test_a_question_about_no_picture_is_not_sent(served: RunningServer, stub: ChatStub) -> None:
    stub.requests.clear()
    body = {"question": "What is it?", "answers": ["a", "b"]}
    check_refusal(served.http.post("/v1/images/nothing/ask", json=body), 404, "not_found")
    assert not [one for one in stub.requests if "What is it?" in read_prompt(one)]


def test_a_file_that_is_gone_is_said(served: RunningServer) -> None:
    image = served.upload(make_picture("red")).json()
    for path in (served.data_dir / "media").rglob(f"{image['sha256']}*"):
        path.unlink()
    body = {"question": "What is it?", "answers": ["a", "b"]}
    check_refusal(served.http.post(f"/v1/images/{image['id']}/ask", json=body), 410, "blob_missing")
