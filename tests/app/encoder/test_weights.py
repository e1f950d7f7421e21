"""Weights files: counted from their header, refused when they are something else, never executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from app.core.errors import StartupError
from app.core.files import sha256_file
from app.encoder.loader import EncoderOptions, load_located
from app.encoder.weights import LocatedModel, ParameterCount, count_parameters, read_logit_bias


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file({"visual.proj": np.zeros((2, 3), np.float16), "x": np.zeros(4), "logit_scale": np.array(1.0)}, path)
    return path


def test_numbers_are_counted_from_the_header(path: Path) -> None:
    assert count_parameters("m", path) == ParameterCount(whole=11, image=6)


def test_the_bias_of_a_sigmoid_is_read(tmp_path: Path, path: Path) -> None:
    assert read_logit_bias(path) is None
    assert read_logit_bias(tmp_path / "nothing") is None
    save_file({"logit_bias": np.array([-12.5], np.float32)}, path)
    assert read_logit_bias(path) == -12.5


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_file(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("begins", [b"", b"PK\x03\x04"], ids=["pickle", "zip"])
def test_a_pickle_under_another_name_is_refused_and_not_run(begins: bytes, tmp_path: Path) -> None:
    path, mark = tmp_path / "w.safetensors", tmp_path / "mark"
    path.write_bytes(begins + pickle.dumps(Evil(mark)))
    for runtime in ("openvino", "torch"):
        with pytest.raises(StartupError, match=r"w\.safetensors is a pickle in spite of its name") as refused:
            load_located(LocatedModel("m", "ViT-B-32", path), tmp_path, EncoderOptions("cpu", runtime=runtime))
        assert "\n" not in refused.value.detail
    assert not mark.exists()


@pytest.mark.parametrize("left", [0, 1, 9, -1])
def test_a_file_that_was_cut_is_refused(left: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(StartupError, match="is cut short or is no safetensors file") as refused:
        count_parameters("m", path)
    assert refused.value.detail.endswith("; download or copy it again")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"gone\.safetensors cannot be read"):
        count_parameters("m", tmp_path / "gone.safetensors")
