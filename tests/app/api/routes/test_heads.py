"""Heads over HTTP: taught, listed, used, taken off, deleted; also after the server was killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.app.api.asking import check_refusal
from tests.support.lessons import fill_data_dir, make_captions, make_vectors
from tests.support.servers import RunningServer, wait_until

COUNT = 130
CAPTIONS = make_captions(COUNT)
TABLE = "".join(json.dumps({"id": f"p{n}", "text": caption}) + "\n" for n, caption in enumerate(CAPTIONS))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of pictures whose captions swap colours."""
    folder = tmp_path_factory.mktemp("taught")
    fill_data_dir(folder / "data", CAPTIONS, make_vectors(CAPTIONS))
    (folder / "sets").mkdir()
    (folder / "sets/pairs.jsonl").write_text(TABLE, "utf-8")
    with RunningServer(folder / "data", workers=0, folders=folder / "sets") as one:
        yield one


@pytest.fixture(scope="module")
def head(server: RunningServer) -> str:
    """The id of the head that the captions teach."""
    job = teach(server, source="captions")
    assert job["state"] == "succeeded", job
    assert server.http.get("/v1/collections/default").json()["head"] == job["result"]["head"]
    return str(job["result"]["head"])


def teach(server: RunningServer, **body: Any) -> dict[str, Any]:
    """The ended job."""
    begun = server.http.post("/v1/heads", json=body)
    assert begun.status_code == 202, begun.text
    assert (begun.json()["kind"], begun.json()["is_task"]) == ("teach", True)
    return server.wait_job(begun.json()["id"])


def use(server: RunningServer, head: str | None) -> httpx.Response:
    return server.http.put("/v1/collections/default/head", json={"head": head})


def search(server: RunningServer, **params: Any) -> dict[str, Any]:
    answer: dict[str, Any] = server.http.get("/v1/search", params={"q": CAPTIONS[0], **params}).json()
    return answer


def test_a_head_is_listed_with_its_figures_and_searches_tell_it(server: RunningServer, head: str) -> None:
    (listed,) = server.http.get("/v1/heads", params={"collection": "default"}).json()["heads"]
    assert server.http.get("/v1/heads").json()["heads"] == [listed]
    assert server.http.get(f"/v1/heads/{head}").json() == listed
    assert (listed["id"], listed["collection"], listed["is_used"]) == (head, "default", True)
    assert listed["space"]["model"] == "colours"
    figures = listed["figures"]
    assert figures["confidence"][0] > 0
    assert figures["gain"] == pytest.approx(
        figures["text_to_image"]["after"]["R@10"] - figures["text_to_image"]["before"]["R@10"], abs=2e-4
    )
    assert search(server)["applied"]["head"] == head
    assert search(server, exact=True)["applied"]["head"] is None


def test_a_head_is_taken_off_and_on(server: RunningServer, head: str) -> None:
    with_head = search(server, mode="vector")["hits"]
    assert use(server, None).json()["head"] is None
    without = search(server, mode="vector")
    assert without["applied"]["head"] is None
    assert without["hits"] != with_head
    assert use(server, head).json()["head"] == head
    assert search(server, mode="vector")["hits"] == with_head


def test_a_set_may_be_sent_or_lie_on_the_server(server: RunningServer, head: str) -> None:
    file = {"file": ("pairs.jsonl", TABLE.encode())}
    sent = server.http.post("/v1/heads", files=file, data={"dry_run": "true"})
    assert sent.status_code == 202, sent.text
    first = server.wait_job(sent.json()["id"])
    path = server.data_dir.parent / "sets/pairs.jsonl"
    second = teach(server, source=f"pairs:{path}", dry_run=True)
    assert first["result"] == second["result"]
    assert first["result"]["texts"] == COUNT
    assert "head" not in first["result"]
    assert len(server.http.get("/v1/heads").json()["heads"]) == 1


def test_what_cannot_be_taught_is_told(server: RunningServer, head: str, tmp_path: Path) -> None:
    post = server.http.post
    for body in (
        {},
        {"source": "caption"},
        {"source": "captions", "k": [1]},
        {"source": "captions", "dry_run": 1},
        {"source": f"pairs:{tmp_path}/none.csv"},
    ):
        check_refusal(post("/v1/heads", json=body), 422, "validation")
    check_refusal(post("/v1/heads", json={"source": "captions", "collection": "none"}), 404, "not_found")
    check_refusal(post("/v1/heads", files={"file": ("a.csv", b"id,text\n")}), 422, "validation")
    check_refusal(post("/v1/heads", files={"file": ("a.png", b"id,text\n")}), 422, "validation")
    few = {"file": ("a.csv", b"id,text\np0,red\np1,blue\np2,green\n")}
    job = server.wait_job(post("/v1/heads", files=few).json()["id"])
    assert (job["state"], job["error"]["code"]) == ("failed", "head_refused")
    assert job["result"]["texts"] == 3
    assert search(server)["applied"]["head"] == head


def test_heads_that_are_not_there_and_bodies_that_are_none(server: RunningServer) -> None:
    http = server.http
    for call in (http.get("/v1/heads/" + "0" * 16), http.delete("/v1/heads/" + "0" * 16), use(server, "0" * 16)):
        check_refusal(call, 404, "not_found")
    check_refusal(http.get("/v1/heads/nothing"), 422, "validation")
    check_refusal(use(server, "nothing"), 422, "validation")
    check_refusal(http.put("/v1/collections/default/head", json={}), 422, "validation")
    check_refusal(http.put("/v1/collections/none/head", json={"head": None}), 404, "not_found")
    check_refusal(http.get("/v1/heads", params={"collection": "none"}), 404, "not_found")


@pytest.mark.slow
def test_a_task_that_a_kill_interrupts_goes_on_and_a_deleted_head_is_gone(tmp_path: Path) -> None:
    fill_data_dir(tmp_path / "data", CAPTIONS, make_vectors(CAPTIONS))
    killed = RunningServer(tmp_path / "data", workers=0)
    id = killed.http.post("/v1/heads", json={"source": "captions"}).json()["id"]
    wait_until(lambda: killed.http.get(f"/v1/jobs/{id}").json()["state"] != "queued", 60)
    killed.kill()
    with RunningServer(tmp_path / "data", workers=0) as server:
        head = server.wait_job(id)["result"]["head"]
        assert search(server)["applied"]["head"] == head
        assert server.http.delete(f"/v1/heads/{head}", params={"dry_run": True}).json()["matched"] == 1
        assert search(server)["applied"]["head"] == head
        assert server.http.delete(f"/v1/heads/{head}").status_code == 204
        assert search(server)["applied"]["head"] is None
        assert server.http.get("/v1/heads").json() == {"heads": []}
