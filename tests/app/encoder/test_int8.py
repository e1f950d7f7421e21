"""int8: when it is refused, when its vectors are a space of their own, and which towers run in which precision."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import StartupError
from app.encoder.conversion import COMPILED, choose_precision, find_enclosed
from app.encoder.int8 import Int8Report, Samples, add_int8, compare_encoders, measure_recall
from app.encoder.loader import STARTER, EncoderOptions, check_weights, load_encoder, locate_model
from app.encoder.memory_check import ModelProcesses, estimate_openvino
from app.encoder.openvino import CompiledModelInfo, OpenVinoEncoder, detect_precision
from app.encoder.protocol import Embeddings, Pixels
from app.encoder.weights import LocatedModel, ParameterCount
from tests.support.callers import caller_python

GOOD = Int8Report("a", "a", 1000, 0.9, 0.9, 0.9, 0.995, 0.998, 1.5, True)


def locate(name: str) -> LocatedModel:
    located = locate_model(name, Path())
    return replace(located, digest=check_weights(located))


def label_as_int8(folder: Path) -> None:
    """Let the card of converted towers say that they are in int8."""
    replace(CompiledModelInfo.read(folder), precision="int8").write(folder)


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER, tmp_path / "model"))


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        (GOOD, None),
        (replace(GOOD, recall=0.873), None),
        (replace(GOOD, recall=0.872), "0.872 of 1,000 captions' own pictures .* 16 bits 0.900: that is 0.969 of it"),
        (replace(GOOD, recall_before=0.049, recall=0.049), "cannot tell what int8 loses"),
        (replace(GOOD, recall_before=0.0, recall=0.0), "cannot tell what int8 loses"),
    ],
)
def test_int8_is_refused_below_its_recall_and_where_the_pictures_tell_nothing(
    report: Int8Report, fault: str | None
) -> None:
    found = report.find_fault()
    assert (found is None) if fault is None else re.search(fault, found or "")


def test_a_model_that_knows_nothing_of_the_pictures_has_no_ratio() -> None:
    assert replace(GOOD, recall_before=0.0).ratio == 0.0


@pytest.mark.parametrize(
    ("report", "is_same"),
    [
        (GOOD, True),
        (replace(GOOD, cosine_p5=0.989), False),
        (replace(GOOD, recall_mixed=0.89), False),
        (replace(GOOD, has_same_golden=False), False),
        (replace(GOOD, recall_before=0.001, recall_mixed=0.9), False),
    ],
)
def test_the_space_stays_only_where_both_precisions_can_be_in_one_index(report: Int8Report, is_same: bool) -> None:
    assert report.is_same_space is is_same


def test_recall_counts_the_texts_whose_own_picture_is_among_the_first_ten() -> None:
    texts = np.eye(12, dtype=np.float32)
    assert measure_recall(texts, texts) == 1.0
    pictures = texts + 0.5
    pictures[0] = 0.0  # behind the eleven others
    assert measure_recall(texts, pictures) == pytest.approx(11 / 12)


class Blurred(OpenVinoEncoder):
    """An encoder whose vectors of pictures are those of another picture."""

    def encode_images(self, pixels: Pixels) -> Embeddings:
        return super().encode_images(np.roll(pixels, 1, axis=0))


def draw_samples(size: int, captions: Sequence[str]) -> Samples:
    pixels = np.random.default_rng(0).integers(0, 256, (len(captions), size, size, 3)).astype(np.uint8)
    return Samples(pixels, pixels, captions, "noise", "noise")


def test_the_comparison_tells_equal_vectors_from_others(starter: Path) -> None:
    encoder = OpenVinoEncoder(starter / COMPILED, "fp32")
    samples = draw_samples(encoder.preprocessing.size, [f"red {n}" for n in range(16)])
    same = compare_encoders(encoder, encoder, samples)
    assert (same.captions, same.recall) == (16, same.recall_before)
    assert same.recall_mixed == same.recall
    assert same.cosine_p5 == pytest.approx(1.0, abs=1e-4)
    assert same.has_same_golden
    other = compare_encoders(encoder, Blurred(starter / COMPILED, "fp32"), samples)
    assert other.cosine_p5 < 0.99
    assert not other.has_same_golden
    assert same.speed > 0


def test_a_folder_with_int8_runs_in_it_and_another_precision_leaves_it(starter: Path, tmp_path: Path) -> None:
    label_as_int8(starter / COMPILED)
    spec = locate(f"local-dir:{starter}")
    assert choose_precision(spec, "auto") == "int8"
    assert find_enclosed(spec, "int8") == starter / COMPILED
    assert find_enclosed(spec, "fp32") is None
    assert choose_precision(spec, "fp32") == "fp32"
    encoder = load_encoder(spec.name, tmp_path / "cache", EncoderOptions(device="cpu"))
    assert encoder.runtime == "OpenVINO int8"
    assert encoder.encode_texts(["a red car"]).shape == (1, encoder.space.d)


def test_int8_in_a_space_of_its_own_is_known_by_the_weights_it_was_made_of(starter: Path, tmp_path: Path) -> None:
    original = CompiledModelInfo.read(starter / COMPILED)
    own = replace(original, space=replace(original.space, weights="ab" * 32), made_of=original.space.weights)
    own.write(starter / COMPILED)
    label_as_int8(starter / COMPILED)
    encoder = load_encoder(f"local-dir:{starter}", tmp_path / "cache", EncoderOptions(device="cpu"))
    assert encoder.space.weights == "ab" * 32
    assert encoder.space.fingerprint != original.space.fingerprint
    replace(own, made_of="cd" * 32).write(starter / COMPILED)
    assert find_enclosed(locate(f"local-dir:{starter}"), "int8") is None


def test_int8_is_refused_where_the_model_has_none_and_elsewhere_than_in_openvino(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="convert starter FOLDER --precision int8"):
        load_encoder("starter", tmp_path, EncoderOptions(device="cpu", precision="int8"))
    assert choose_precision(locate("starter"), "auto") == detect_precision()
    for options in (EncoderOptions(precision="int8", runtime="torch"), EncoderOptions("cuda", "int8")):
        with pytest.raises(StartupError, match="int8 runs on a CPU"):
            load_encoder("starter", tmp_path, options)
    assert EncoderOptions(precision="int8").reason_for_torch() == ""


def test_damaged_int8_is_not_replaced_by_another_precision(starter: Path, tmp_path: Path) -> None:
    label_as_int8(starter / COMPILED)
    (starter / COMPILED / "image.xml").write_text("<")
    with pytest.raises(StartupError, match="are damaged; write them again"):
        load_encoder(f"local-dir:{starter}", tmp_path, EncoderOptions(device="cpu"))


def test_int8_needs_less_memory_for_pictures_alone() -> None:
    size = ParameterCount(whole=1000, image=600)
    worker, server = ModelProcesses(workers=1), ModelProcesses(servers=1)
    assert estimate_openvino(size, worker, "bf16") - estimate_openvino(size, worker, "int8") == 600
    assert estimate_openvino(size, server, "bf16") - estimate_openvino(size, server, "int8") == 600


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nncf_writes_a_tower_in_int8_that_is_refused_unless_forced(
    starter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = next(caller_python("int8").parents[1].glob("lib/python*/site-packages"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])  # behind ours, whose numpy is loaded already
    folder = starter / COMPILED
    before = CompiledModelInfo.read(folder)
    samples = draw_samples(before.preprocessing.size, [f"red {n}" for n in range(160)])
    with pytest.raises(StartupError, match=r"cannot tell what int8 loses.*--force"):
        add_int8(folder, replace(samples, calibration=samples.pictures[:4]))
    assert CompiledModelInfo.read(folder) == before
    assert sorted(path.name for path in starter.iterdir()) == sorted(path.name for path in STARTER.iterdir())
    report = add_int8(folder, replace(samples, calibration=samples.pictures[:4]), force=True)
    assert "FakeQuantize" in (folder / "image.xml").read_text()
    info = CompiledModelInfo.read(folder)
    assert (info.precision, info.made_of) == ("int8", before.space.weights)
    assert info.space.fingerprint != before.space.fingerprint
    encoder = load_encoder(f"local-dir:{starter}", tmp_path / "cache", EncoderOptions(device="cpu"))
    assert encoder.space.weights == info.space.weights
    assert report.cosine_mean > 0.9
