"""Names of models and where their files come from. What they compute is in test_open_clip.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import StartupError
from app.encoder import loader
from app.encoder.dummy import DummyEncoder
from app.encoder.loader import STARTER, WEIGHTS, EncoderOptions, load_encoder, locate_model
from app.encoder.weights import LocatedModel


def refusal_of(name: str, cache: Path) -> str:
    with pytest.raises(StartupError) as raised:
        locate_model(name, cache)
    assert "\n" not in raised.value.detail
    return raised.value.detail


def test_colours_needs_no_files(tmp_path: Path) -> None:
    assert locate_model("colours", tmp_path) == LocatedModel("colours", "colours")
    assert isinstance(load_encoder("colours", tmp_path), DummyEncoder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "clip", "Starter"])
def test_an_unknown_name_points_to_the_list(name: str, tmp_path: Path) -> None:
    assert "sightline models" in refusal_of(name, tmp_path)


def test_the_starter_is_a_folder_of_ours(tmp_path: Path) -> None:
    if not (STARTER / WEIGHTS).is_file():
        assert "is missing in" in refusal_of("starter", tmp_path)
        return
    assert locate_model("starter", tmp_path) == LocatedModel("starter", f"local-dir:{STARTER}", STARTER / WEIGHTS)


@pytest.mark.parametrize("present", [(), ("open_clip_config.json",), (WEIGHTS,)])
def test_a_folder_without_its_files_says_which_is_missing(present: tuple[str, ...], tmp_path: Path) -> None:
    for name in present:
        (tmp_path / name).touch()
    (first, *_) = [name for name in ("open_clip_config.json", WEIGHTS) if name not in present]
    assert f"{first} is missing in {tmp_path}" in refusal_of(f"local-dir:{tmp_path}", tmp_path)


def test_a_folder_with_its_files_is_found(tmp_path: Path) -> None:
    for name in ("open_clip_config.json", WEIGHTS):
        (tmp_path / name).touch()
    located = locate_model(f"local-dir:{tmp_path}", tmp_path)
    assert (located.architecture, located.weights) == (f"local-dir:{tmp_path}", tmp_path / WEIGHTS)


@pytest.mark.parametrize("suffix", ["pt", "bin", "pth", "ckpt", "safetensors.pt", ""])
def test_weights_that_could_run_code_are_refused_unread(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    assert "must be a .safetensors file; other formats can run code" in refusal_of(f"ViT-B-32:{path}", tmp_path)


def test_a_weights_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    assert f"there is no file {path}" in refusal_of(f"ViT-B-32:{path}", tmp_path)


def test_a_gpu_is_looked_for_in_torch_only_where_there_is_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(loader, "GPU_DEVICES", (tmp_path / "none",))
    assert not loader.has_gpu()
    monkeypatch.setattr(loader, "GPU_DEVICES", (tmp_path,))
    assert loader.has_gpu() == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("placement", "reason"),
    [
        (EncoderOptions(device="cpu"), ""),
        (EncoderOptions(device="cpu", precision="bf16"), ""),
        (EncoderOptions(device="cpu", precision="fp16"), "for fp16"),
        (EncoderOptions(device="cuda:1"), "for a GPU"),
        (EncoderOptions(device="cpu", runtime="torch"), "as set"),
    ],
    ids=str,
)
def test_torch_runs_what_is_meant_for_it(placement: EncoderOptions, reason: str) -> None:
    assert placement.reason_for_torch() == reason
