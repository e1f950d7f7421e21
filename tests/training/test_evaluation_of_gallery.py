"""The figures of `sightline evaluate` on the demo gallery are those of `clip_benchmark`, with the starter model."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from app.cli.main import main
from app.decode.limits import PictureLimits
from app.decode.picture import decode_picture
from app.encoder.loader import EncoderOptions, load_encoder
from app.encoder.protocol import Encoder
from app.service.demo_gallery import ARCHIVE, find_gallery

COUNT = 400  # pictures of the gallery
KS = (1, 5, 10)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first pictures of the gallery that have captions, and `set.jsonl`."""
    folder = tmp_path_factory.mktemp("gallery")
    with zipfile.ZipFile(find_gallery() / ARCHIVE) as archive:
        rows = [json.loads(line) for line in archive.read("metadata.jsonl").decode().splitlines()]
        chosen = [row for row in rows if row.get("caption")][:COUNT]
        for row in chosen:
            archive.extract(row["file"], folder)
    # Two texts for some pictures, as COCO has five: the definition of recall differs from that for one.
    lines = [{"file": row["file"], "texts": [row["caption"], *row.get("tags", [])[:1]]} for row in chosen]
    (folder / "set.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


class Texts(list[str]):
    """What a tokenizer returns, with the method of a tensor."""

    def to(self, _device: str) -> Texts:
        return self


class OwnModel:
    """Our encoder as `clip_benchmark` calls a model: both compare the same vectors."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._encoder.encode_images(pixels.numpy()))

    def encode_text(self, texts: Texts) -> torch.Tensor:
        return torch.from_numpy(self._encoder.encode_texts(texts))


def load_batches(folder: Path, encoder: Encoder) -> Iterator[tuple[torch.Tensor, Sequence[list[str]]]]:
    rows = [json.loads(line) for line in (folder / "set.jsonl").read_text("utf-8").splitlines()]
    for start in range(0, len(rows), 64):
        some = rows[start : start + 64]
        paths = [folder / row["file"] for row in some]
        pixels = [decode_picture(path, encoder.preprocessing, PictureLimits()).pixels for path in paths]
        yield torch.from_numpy(np.stack(pixels)), [row["texts"] for row in some]


def test_recall_is_that_of_clip_benchmark(gallery: Path) -> None:
    retrieval = pytest.importorskip(
        "clip_benchmark.metrics.zeroshot_retrieval",
        reason="clip_benchmark needs an old scikit-learn, pycocoevalcap and more: install it with --no-deps",
    )
    encoder = load_encoder("starter", gallery, EncoderOptions(threads=2))
    batches = list(load_batches(gallery, encoder))
    theirs: dict[str, Any] = retrieval.evaluate(OwnModel(encoder), batches, Texts, "cpu", False, list(KS))
    command = ["evaluate", str(gallery / "set.jsonl"), "--pictures", str(gallery), "--model", "starter", "--json"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    ours = json.loads(done.stdout)
    for k in KS:
        for direction, name in (("text_to_image", "image"), ("image_to_text", "text")):
            expected = theirs[f"{name}_retrieval_recall@{k}"]
            assert ours[direction][f"R@{k}"] == pytest.approx(expected, abs=5e-4), (direction, k)
    assert ours["n"] == COUNT
