"""The starter model as it ships: it loads with open_clip, and finds unseen scenes by their captions."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from training.evaluate import Model, recall, shrink
from training.gallery import DEMO
from training.model import STARTER, load
from training.sprites import LANGUAGES


@pytest.fixture(scope="module")
def starter() -> Model:
    return Model(*load())


def test_starter_is_small() -> None:
    assert sum(path.stat().st_size for path in STARTER.iterdir() if path.is_file()) <= 20_000_000


def test_starter_loads_with_open_clip(starter: Model) -> None:
    model = open_clip.create_model(f"local-dir:{STARTER}")
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        ours, theirs = starter.clip.encode_image(images), model.eval().encode_image(images)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("language", "first", "tenth"), [("en", 0.92, 0.98), ("zh", 0.92, 0.98)])
def test_unseen_scenes_are_found_both_ways(starter: Model, language: str, first: float, tenth: float) -> None:
    with zipfile.ZipFile(DEMO / "evaluation.zip") as archive:
        rows = [json.loads(line) for line in archive.read("captions.jsonl").splitlines()]
        pictures = [np.asarray(Image.open(io.BytesIO(archive.read(row["file"]))).convert("RGB")) for row in rows]
    assert len(rows) == 300
    images, words = starter.images(np.stack([shrink(p) for p in pictures])), starter.texts([r[language] for r in rows])
    for queries, candidates in ((words, images), (images, words)):
        assert recall(queries, candidates, 1) >= first
        assert recall(queries, candidates, 10) >= tenth


def test_languages_of_the_evaluation_are_those_of_the_trainer() -> None:
    assert LANGUAGES == ("en", "zh")
