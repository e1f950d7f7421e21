"""Compiled models: made once, kept, made anew when damaged, never half there; refusals say why."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import StartupError
from app.core.files import sha256_file
from app.core.locks import StopRequested
from app.encoder.conversion import DAMAGE_ERRORS, convert, ensure_converted, key_of, open_encoder
from app.encoder.loader import WEIGHTS, EncoderOptions, load_encoder
from app.encoder.open_clip import OpenClipEncoder
from app.encoder.openvino import OpenVinoEncoder
from app.encoder.weights import LocatedModel
from tests.app.encoder.small import make_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def recipe_of(folder: Path) -> LocatedModel:
    weights = folder / WEIGHTS
    return LocatedModel("small", f"local-dir:{folder}", weights, sha256_file(weights))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    make_model(folder)
    return folder


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's compiled form."""
    folder = tmp_path_factory.mktemp("compiled") / "x"
    convert(recipe_of(model), folder)
    return folder


@pytest.mark.slow
def test_server_and_worker_that_start_together_convert_once(model: Path, tmp_path: Path) -> None:
    folders: list[Path] = []
    threads = [
        threading.Thread(target=lambda: folders.append(ensure_converted(recipe_of(model), tmp_path))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 3
    assert len(set(folders)) == 1
    made = (folders[0] / "card.json").stat().st_mtime_ns
    assert ensure_converted(recipe_of(model), tmp_path) == folders[0]
    assert (folders[0] / "card.json").stat().st_mtime_ns == made
    assert {path.name for path in folders[0].iterdir()} == {
        "card.json",
        "image.xml",
        "image.bin",
        "text.xml",
        "text.bin",
    }
    assert not list((tmp_path / "compiled").glob("*.draft"))


@pytest.mark.parametrize("damage", ["card.json", "image.xml", "image.bin", "text.xml"])
def test_damage_is_noticed_when_it_is_opened(folder: Path, tmp_path: Path, damage: str) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / damage).write_bytes(b"{")
    with pytest.raises(DAMAGE_ERRORS):
        OpenVinoEncoder(broken, "fp32", 1)


@pytest.mark.slow
def test_two_that_find_it_damaged_at_once_both_get_it_and_it_is_made_once(
    model: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = recipe_of(model)
    broken = Path(shutil.copytree(folder, tmp_path / "compiled" / key_of(recipe)))
    (broken / "image.xml").write_bytes(b"<")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: open_encoder(recipe, tmp_path, "fp32", 1), range(2)))
    assert [encoder.encode_texts(["red"]).shape for encoder in both] == [(1, 24), (1, 24)]
    assert [record.levelname for record in caplog.records if "converting it again" in record.getMessage()] == [
        "WARNING"
    ]


def test_a_stop_ends_the_conversion_and_leaves_nothing_half(model: Path, tmp_path: Path) -> None:
    recipe, stop = recipe_of(model), threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(StopRequested):
        ensure_converted(recipe, tmp_path, stop)
    timer.join()
    assert [path.name for path in (tmp_path / "compiled").iterdir()] == [f"{key_of(recipe)}.lock"]
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    assert not [pid for pid in children if "conversion" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_everything_that_decides_the_outcome_is_in_the_key(model: Path) -> None:
    recipe = recipe_of(model)
    others = [
        replace(recipe, digest="0" * 64),
        replace(recipe, preprocess={"mean": [0, 0, 0]}),
        replace(recipe, quick_gelu=True),
        replace(recipe, half=True),
    ]
    assert len({key_of(one) for one in (recipe, *others)}) == 5
    assert key_of(replace(recipe, name="another")) == key_of(recipe)
    key, config = key_of(recipe), model / "open_clip_config.json"
    before = config.read_text()
    config.write_text(before.replace('"preprocess_cfg": {}', '"preprocess_cfg": {"resize_mode": "squash"}'))
    try:
        changed = key_of(recipe)
    finally:
        config.write_text(before)
    assert changed != key == key_of(recipe)


def test_weights_of_another_architecture_are_refused_in_one_line(model: Path, tmp_path: Path) -> None:
    for name in ("open_clip_config.json", "tokenizer.json", WEIGHTS):
        (tmp_path / name).write_bytes((model / name).read_bytes().replace(b'"embed_dim": 24', b'"embed_dim": 40'))
    with pytest.raises(StartupError, match=rf"{WEIGHTS} does not fit") as refused:
        load_encoder(f"local-dir:{tmp_path}", tmp_path, EncoderOptions(runtime="openvino"))
    assert "\n" not in refused.value.detail
    assert not list((tmp_path / "compiled").glob("*/"))


def test_torch_runs_what_openvino_cannot_and_says_why(model: Path, tmp_path: Path) -> None:
    (tmp_path / "compiled").write_text("no folder can be made here")
    encoder = load_encoder(f"local-dir:{model}", tmp_path, EncoderOptions(device="cpu"))
    assert isinstance(encoder, OpenClipEncoder)
    assert encoder.runtime.startswith("torch fp32 (OpenVINO cannot run it: ")
    assert np.isfinite(encoder.encode_texts(["red car"])).all()
    with pytest.raises(StartupError, match="cannot run with OpenVINO"):
        load_encoder(f"local-dir:{model}", tmp_path, EncoderOptions(device="cpu", runtime="openvino"))
