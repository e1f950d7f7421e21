"""The main job on real input: the starter model, through upload, worker, index and search over HTTP."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.samples import gallery
from tests.servers import RunningServer

K = 10
# Recall that the shipped weights must keep, over 300 unseen scenes: (language, at 1, at 10).
KEPT = (("en", 0.92, 0.98), ("zh", 0.92, 0.98))


@pytest.fixture(scope="module")
def scenes() -> list[dict[str, Any]]:
    """Each unseen scene: `file`, its `picture`, and captions `en` and `zh` that are true of no other."""
    with zipfile.ZipFile(gallery() / "evaluation.zip") as archive:
        rows = [json.loads(line) for line in archive.read("captions.jsonl").splitlines()]
        return [{**row, "picture": archive.read(row["file"])} for row in rows]


@pytest.fixture(scope="module")
def loaded(scenes: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the starter model that has taken in every scene, and every caption as a text."""
    with RunningServer(tmp_path_factory.mktemp("starter"), model="starter") as server:
        job = server.bulk([(Path(scene["file"]).name, scene["picture"]) for scene in scenes])
        ended = server.wait_job(job["id"])
        assert ended["done"] == len(scenes)
        texts = [{"text": scene[language]} for scene in scenes for language in ("en", "zh")]
        assert server.http.post("/v1/texts", json={"texts": texts}).status_code == 200
        yield server


@pytest.mark.parametrize(("language", "first", "tenth"), KEPT)
def test_unseen_scenes_are_found_by_their_captions(
    loaded: RunningServer, scenes: list[dict[str, Any]], language: str, first: float, tenth: float
) -> None:
    ranks = []
    for scene in scenes:
        hits = loaded.http.get("/v1/search", params={"q": scene[language], "k": K}).json()["hits"]
        found = [hit["image"]["source"] for hit in hits]
        name = Path(scene["file"]).name
        ranks.append(found.index(name) if name in found else K)
    assert sum(rank < 1 for rank in ranks) / len(ranks) >= first
    assert sum(rank < K for rank in ranks) / len(ranks) >= tenth


def test_a_picture_finds_its_own_words(loaded: RunningServer, scenes: list[dict[str, Any]]) -> None:
    right = 0
    for scene in scenes[:60]:
        sent = {"file": ("scene", io.BytesIO(scene["picture"]))}
        answer = loaded.http.post("/v1/search/image", files=sent, data={"target": "texts", "k": "4"}).json()
        right += bool({scene["en"], scene["zh"]} & {hit["text"]["text"] for hit in answer["hits"]})
    assert right / 60 >= 0.9


def test_a_picture_finds_itself_first(loaded: RunningServer, scenes: list[dict[str, Any]]) -> None:
    sent = {"file": ("scene", io.BytesIO(scenes[0]["picture"]))}
    best = loaded.http.post("/v1/search/image", files=sent).json()["hits"][0]
    assert best["score"] == pytest.approx(1, abs=1e-3)
    assert best["image"]["source"] == Path(scenes[0]["file"]).name
