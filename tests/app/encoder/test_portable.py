"""A converted model in a folder: the same vectors and space, no torch; towers of other weights are not used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import StartupError
from app.encoder.conversion import COMPILED, find_enclosed, open_encoder
from app.encoder.loader import STARTER, WEIGHTS, EncoderOptions, check_weights, load_encoder, locate_model
from app.encoder.portable import export_model
from app.encoder.weights import LocatedModel
from tests.app.encoder.small import make_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ON_CPU = EncoderOptions(device="cpu", runtime="openvino")
WITHOUT_TORCH = """
import sys
from pathlib import Path
from app.encoder.loader import EncoderOptions, load_encoder
encoder = load_encoder(sys.argv[1], Path(sys.argv[2]), EncoderOptions(device="cpu"))
print(encoder.space.fingerprint, encoder.encode_texts(["red car"]).shape, "torch" in sys.modules)
"""


def locate(name: str) -> LocatedModel:
    located = locate_model(name, Path())
    return replace(located, digest=check_weights(located))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def exported(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_model(model, folder.parent, folder)
    return folder


def test_the_exported_model_gives_the_vectors_of_the_original_in_the_same_space(
    model: str, exported: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(exported, tmp_path / "elsewhere"))
    encoder = load_encoder(f"local-dir:{moved}", tmp_path / "cache", ON_CPU)
    original = load_encoder(model, tmp_path / "cache", EncoderOptions(device="cpu", runtime="torch"))
    assert encoder.space == replace(original.space, model=f"local-dir:{moved}")
    texts = ["red car", "two blue cats", "cake"]
    assert (encoder.encode_texts(texts) * original.encode_texts(texts)).sum(axis=1).min() > 0.999
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    assert (encoder.encode_images(pixels) * original.encode_images(pixels)).sum(axis=1).min() > 0.999
    assert not (tmp_path / "cache" / COMPILED).exists()


def test_another_process_serves_it_without_torch(exported: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, f"local-dir:{exported}", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split()[1:] == ["(1,", "24)", "False"]


@pytest.mark.parametrize("file", ["open_clip_config.json", WEIGHTS])
def test_towers_of_other_weights_or_another_configuration_are_not_used(
    exported: Path, tmp_path: Path, file: str
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    assert find_enclosed(locate(f"local-dir:{folder}")) == folder / COMPILED
    if file == WEIGHTS:
        make_model(tmp_path / "other", seed=1)
        shutil.copy(tmp_path / "other" / WEIGHTS, folder)
    else:
        configuration = json.loads((folder / file).read_text())
        configuration["preprocess_cfg"] = {"resize_mode": "squash"}
        (folder / file).write_text(json.dumps(configuration))
    assert find_enclosed(locate(f"local-dir:{folder}")) is None


@pytest.mark.slow
def test_damaged_towers_are_made_again_in_the_cache_and_stay_as_they_are(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    (folder / COMPILED / "image.xml").write_text("<")
    encoder = open_encoder(locate(f"local-dir:{folder}"), tmp_path / "cache", "fp32", 1)
    assert encoder.encode_texts(["red"]).shape == (1, 24)
    assert "is damaged" in caplog.text
    assert (folder / COMPILED / "image.xml").read_text() == "<"
    assert list((tmp_path / "cache" / COMPILED).glob("*/card.json"))


def test_a_folder_that_holds_something_is_refused_and_stays(model: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(StartupError, match="holds something already"):
        export_model(model, tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(StartupError, match="colours has no weights"):
        export_model("colours", tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_model_of_open_clip_keeps_its_space_and_its_tokenizer(tmp_path: Path) -> None:
    weights = make_vit(tmp_path)
    name = f"ViT-S-32-alt:{weights}"
    export_model(name, tmp_path, tmp_path / "out")
    original = load_encoder(name, tmp_path, EncoderOptions(device="cpu", runtime="torch"))
    encoder = load_encoder(f"local-dir:{tmp_path / 'out'}", tmp_path / "cache", ON_CPU)
    assert encoder.space.fingerprint == original.space.fingerprint
    texts = ["a red car", "two cats next to a cake, by the sea"]
    assert (encoder.encode_texts(texts) * original.encode_texts(texts)).sum(axis=1).min() > 0.999
    assert not (tmp_path / "cache" / COMPILED).exists()


def make_vit(folder: Path) -> Path:
    """Random weights of a small architecture that open_clip knows by name."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    clip = open_clip.create_model("ViT-S-32-alt", pretrained=None)
    path = folder / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, path)
    return path


def test_the_starter_brings_towers_of_its_own_weights() -> None:
    assert find_enclosed(locate("starter")) == STARTER / COMPILED


@pytest.mark.slow
def test_the_starters_towers_give_the_vectors_of_its_weights(tmp_path: Path) -> None:
    brought = load_encoder("starter", tmp_path, ON_CPU)
    torch_encoder = load_encoder("starter", tmp_path, EncoderOptions(device="cpu", runtime="torch"))
    assert brought.space == torch_encoder.space
    texts = ["a red car", "two cats next to a cake", "笑脸", "a house by night"]
    assert (brought.encode_texts(texts) * torch_encoder.encode_texts(texts)).sum(axis=1).min() > 0.999
    pixels = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3)).astype(np.uint8)
    assert (brought.encode_images(pixels) * torch_encoder.encode_images(pixels)).sum(axis=1).min() > 0.999
