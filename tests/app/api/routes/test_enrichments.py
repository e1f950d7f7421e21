"""A server that reads the words in pictures: one for all tests of this file."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.cli.main import main
from tests.support.pictures import picture
from tests.support.printed import CHINESE, find_font, printed
from tests.support.servers import RunningServer, wait_until

pytestmark = pytest.mark.slow  # a server that loads a second model; tests/app/worker/test_ocr.py is quick
WAIT = 60.0


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("reading")
    with RunningServer(folder / "data", ocr=True) as server:
        yield server


def read(server: RunningServer, id: str, state: str = "done") -> dict[str, Any]:
    """What was read in a picture, once it is."""

    def look() -> dict[str, Any] | None:
        answer = server.http.get(f"/v1/images/{id}/enrichments")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["enrichments"].get("ocr", {})
        return found if found.get("state") == state else None

    found: dict[str, Any] = wait_until(look, WAIT, server.output)
    return found


def search(server: RunningServer, words: str) -> list[dict[str, Any]]:
    answer = server.http.get("/v1/search", params={"q": words, "mode": "keyword"})
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def test_words_in_a_picture_are_read_and_found(reading: RunningServer) -> None:
    assert reading.upload(printed("Harbour lantern", "quarterly report"), id="sign").status_code == 200
    found = read(reading, "sign")
    assert set(found["result"]) == {"lines"}
    lines = found["result"]["lines"]
    assert [line["text"] for line in lines] == ["Harbour lantern", "quarterly report"]
    for line, top in zip(lines, (40 / 360, 104 / 360), strict=True):
        xs, ys = zip(*line["box"], strict=True)
        assert 0.02 < min(xs) < 0.08
        assert abs(min(ys) - top) < 0.04
        assert line["score"] > 0.9
    image = reading.http.get("/v1/images/sign").json()
    assert image["ocr_text"] == "Harbour lantern\nquarterly report"
    (hit,) = search(reading, "quarterly")
    assert (hit["id"], hit["matched"], hit["highlights"]) == ("sign", ["ocr"], {"ocr": ["quarterly"]})


def test_chinese_is_read_and_found(reading: RunningServer) -> None:
    font = find_font(CHINESE)
    if font is None:
        pytest.skip("no font of this machine has Chinese characters")
    reading.upload(printed("图书馆 开放时间", font=font), id="library")
    assert "图书馆" in read(reading, "library")["result"]["lines"][0]["text"]
    assert [hit["id"] for hit in search(reading, "图书馆")] == ["library"]


def test_a_picture_without_words_gets_none(reading: RunningServer) -> None:
    reading.upload(picture("blue"), id="blank")
    assert read(reading, "blank")["result"] == {"lines": []}
    assert reading.http.get("/v1/images/blank").json()["ocr_text"] is None


def test_what_waits_is_told(reading: RunningServer) -> None:
    reading.upload(printed("counted"), id="counted")
    read(reading, "counted")
    stats = reading.http.get("/v1/stats").json()
    now = stats["enrichments"]["ocr"]
    assert now["done"] + now["waiting"] + now["failed"] == stats["images"]["ready"]
    checks = {one["name"]: one for one in reading.http.get("/readyz").json()["checks"]}
    assert checks["enrichment"] == {"name": "enrichment", "ok": True, "detail": "ocr works"}

    def counted() -> bool:  # the process writes its numbers every two seconds
        text = reading.http.get("/metrics").text
        assert 'sightline_enrichments_waiting{kind="ocr"}' in text
        return 'sightline_enrichments_total{kind="ocr",outcome="done"} 0.0' not in text

    wait_until(counted, WAIT)
    assert "sightline_workers 1.0" in reading.http.get("/metrics").text


def test_a_killed_process_loses_nothing(reading: RunningServer) -> None:
    owners = list((reading.data_dir / "workers").glob("enrich-ocr-*"))
    assert len(owners) == 1
    children = reading.pids()
    for pid in children:
        if "app.worker.enrich" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    reading.upload(printed("after the kill"), id="survivor")
    assert read(reading, "survivor")["result"]["lines"][0]["text"] == "after the kill"


def test_pictures_are_read_again_on_request(reading: RunningServer) -> None:
    reading.upload(printed("read me twice"), id="twice")
    read(reading, "twice")
    answer = reading.http.post("/v1/enrichments", json={"kind": "ocr", "ids": ["twice"]})
    assert answer.status_code == 202
    job = reading.wait_job(answer.json()["id"])
    assert (job["kind"], job["state"], job["result"]) == ("enrich", "succeeded", {"kind": "ocr", "queued": 1})
    assert read(reading, "twice")["result"]["lines"]
    for body, queued in (({"all": True, "failed_only": True}, 0), ({"filter": {"has_id": ["twice", "sign"]}}, 2)):
        answer = reading.http.post("/v1/enrichments", json={"kind": "ocr", **body})
        assert reading.wait_job(answer.json()["id"])["result"]["queued"] == queued


def test_the_command_waits_until_the_pictures_are_queued(reading: RunningServer) -> None:
    reading.upload(printed("by command"), id="typed")
    read(reading, "typed")
    environment = {"SIGHTLINE_SERVER": reading.url}
    done = CliRunner().invoke(main, ["enrich", "ocr", "--id", "typed"], env=environment)
    assert (done.exit_code, done.stdout.strip()) == (0, "1 pictures wait for ocr")
    status = CliRunner().invoke(main, ["status"], env=environment)
    assert re.search(r"^ocr     \d+ pictures done, \d+ wait$", status.stdout, re.MULTILINE), status.stdout


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "caption", "all": True}, "'caption' is off here; start the server with --captioner"),
        ({"kind": "smell", "all": True}, "kind"),
        ({"kind": "ocr"}, "send one of filter, ids and all, got none"),
        ({"kind": "ocr", "filter": {}}, "this one has no condition"),
        ({"kind": "ocr", "all": True, "ids": ["a"]}, "got ids, all"),
        ({"kind": "ocr", "all": True, "dry_run": True}, "dry_run"),
        ({"kind": "ocr", "ids": ["a"] * 1001}, "ids"),
    ],
)
def test_bad_requests_are_refused(reading: RunningServer, body: dict[str, Any], said: str) -> None:
    answer = reading.http.post("/v1/enrichments", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_what_is_not_there_is_not_found(reading: RunningServer) -> None:
    assert reading.http.get("/v1/images/nowhere/enrichments").status_code == 404
    answer = reading.http.post("/v1/enrichments", json={"kind": "ocr", "all": True, "collection": "nowhere"})
    assert answer.status_code == 404
