"""The benchmark of a GPU, run small on the processor: what it prints is another machine's business, its code is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from click.testing import CliRunner, Result

from app.decode.limits import PictureLimits
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from bench.gpu import main, open_encoder, write_random_weights
from bench.jpeg import Source, decode_on_device, encode_from_gpu, write_jpegs
from tests.app.encoder.small import CONFIG
from tests.support.pictures import picture

NAME = "sightline-bench-small"


@pytest.fixture(scope="module", autouse=True)
def architecture(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Makes a small architecture known to open_clip by name."""
    path = tmp_path_factory.mktemp("configs") / f"{NAME}.json"
    path.write_text(json.dumps({**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "vocab_size": 49408}}))
    open_clip.add_model_config(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_ends_with_one_line() -> None:
    ended = CliRunner().invoke(main, [])
    assert ended.exit_code == 1
    assert ended.output.splitlines() == [
        "bench.gpu: no CUDA device was found; use --device cpu, or check the driver with nvidia-smi"
    ]


def run(*pictures: str) -> Result:
    return CliRunner().invoke(main, ["--device", "cpu", "--model", NAME, "--decoders", "1", "--pictures", *pictures])


def test_on_a_processor_it_prints_every_row_and_finds_the_vectors_right() -> None:
    ended = run("3")
    assert ended.exit_code == 0, ended.output
    rows = [line.split("│")[2:5] for line in ended.output.splitlines() if NAME in line]
    figures = {work.strip(): figure.strip() for work, figure, _ in rows}
    assert list(figures) == [
        "fp32: least cosine to fp32",
        "from pixels, 1 at once",
        "from pixels, 4 at once",
        "from JPEG, with thumbnails",
        "from JPEG, without thumbnails",
        "from JPEG, read by torchvision, 0 fell back",
    ]
    cosine, *rates = figures.values()
    assert 0.999 <= float(cosine) <= 1.001
    assert all(float(rate.removesuffix("/s").replace(",", "")) > 0 for rate in rates)
    assert "a trial run without a GPU" in ended.output


def test_vectors_that_are_not_those_of_fp32_end_it_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.gpu.ALIKE", 1.5)
    ended = run("1")
    assert ended.exit_code == 1
    assert ended.output.splitlines()[-1] == "bench.gpu: vectors are not those of fp32 (cosine below 1.5)"


def test_a_picture_that_the_device_refuses_is_read_by_a_child_and_its_neighbours_are_not(tmp_path: Path) -> None:
    files = write_jpegs(tmp_path, 2)
    refused = tmp_path / "no-jpeg.jpg"
    refused.write_bytes(picture("red", size=(300, 200)))
    files.insert(1, refused)
    encoder = open_encoder(NAME, write_random_weights(NAME, tmp_path / "weights.safetensors"), "cpu", "fp32")
    with DecodePool(1) as pool:
        source = Source(files, 5, pool, tmp_path)
        rows = decode_on_device(files, encoder, pool).numpy()
        fallen, vectors = encode_from_gpu(source, encoder, 2)
        found = np.concatenate(list(vectors))
    ours = np.stack([decode_picture(file, encoder.preprocessing, PictureLimits()).pixels for file in files])
    np.testing.assert_array_equal(rows[1], ours[1])
    assert np.abs(rows.astype(int) - ours.astype(int)).mean() < 2  # of 255: scaled by another library
    assert (fallen, found.shape) == (1, (5, 24))
    expected = encoder.encode_images(ours)[[0, 1, 2, 0, 1]]
    assert ((found * expected).sum(axis=1) > 0.99).all()
