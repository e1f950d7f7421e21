"""The encoder against open_clip itself, on small models with random weights made on the spot."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from app.core.errors import StartupError
from app.decode.limits import PictureLimits
from app.decode.picture import decode_picture
from app.encoder import loader as known
from app.encoder.cuda_graphs import BATCH_SIZES, CudaGraphRunner, split_rows
from app.encoder.loader import WEIGHTS, EncoderOptions
from app.encoder.open_clip import OpenClipEncoder, choose_device, choose_precision, map_preprocessing
from app.encoder.protocol import Embeddings, Encoder, check_vectors, normalise
from app.encoder.weights import LocatedModel
from tests.app.encoder.small import WORDS, make_model
from tests.support.pictures import picture

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
load = partial(known.load_encoder, options=EncoderOptions("cpu", runtime="torch"))
TEXTS = ["a red car", "A  Blue CAT!", "笑脸", "", "word " * 100]
NAME = "sightline-test-small"


@pytest.fixture(scope="module", autouse=True)
def architecture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Makes the small architecture known to open_clip by name."""
    path = tmp_path_factory.mktemp("configs") / f"{NAME}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = open_clip.create_model(NAME)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


def of_file(file: Path, cache: Path, device: str = "cpu", precision: str = "auto", threads: int = 0) -> Encoder:
    """As NAME:FILE would be loaded; NAME is known in this process alone."""
    placement = EncoderOptions(device, precision, "torch", threads)
    return known.load_located(LocatedModel(f"{NAME}:{file}", NAME, file), cache, placement)


def folder_of(path: Path, preprocess: dict[str, Any] | None = None) -> str:
    """A model folder as `local-dir:` wants it; returns the model's name."""
    path.mkdir(exist_ok=True)
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess or {}}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    weights(path / WEIGHTS)
    return f"local-dir:{path}"


def reference(path: Path) -> Any:
    model = open_clip.create_model(f"local-dir:{path}", require_pretrained=True)
    return model.eval().requires_grad_(False)


def unit(vectors: torch.Tensor) -> Embeddings:
    return np.asarray(torch.nn.functional.normalize(vectors.float(), dim=-1).numpy())


def pictures() -> list[bytes]:
    dice = np.random.default_rng(0)
    made = [picture("red", size=(64, 64)), picture("blue", 3, size=(200, 90))]
    for size in ((150, 300), (97, 64)):
        noise = dice.integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3)).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(out, "PNG")
        made.append(out.getvalue())
    return made


@pytest.mark.parametrize(
    "preprocess",
    [
        {},
        {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear"},
        {"resize_mode": "squash", "interpolation": "bicubic"},
        {"resize_mode": "longest", "fill_color": 127},
    ],
)
def test_pictures_get_the_vectors_that_open_clip_gives_them(tmp_path: Path, preprocess: dict[str, Any]) -> None:
    """Ours lie channels last, pictures and weights; theirs do not."""
    folder = tmp_path / "model"
    encoder = load(folder_of(folder, preprocess), tmp_path)
    model = reference(folder)
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)), is_train=False
    )
    (tmp_path / "picture").touch()
    for content in pictures():
        (tmp_path / "picture").write_bytes(content)
        pixels = decode_picture(tmp_path / "picture", encoder.preprocessing, PictureLimits()).pixels
        ours = encoder.encode_images(np.stack([pixels]))
        with Image.open(io.BytesIO(content)) as image:
            theirs = unit(model.encode_image(transform(image.convert("RGB"))[None]))
        assert float(ours[0] @ theirs[0]) >= 0.999
    check_vectors(ours)


def test_texts_get_the_vectors_that_open_clip_gives_them(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    encoder = load(folder_of(folder), tmp_path)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    theirs = unit(reference(folder).encode_text(tokens))
    ours = encoder.encode_texts(TEXTS)
    assert ours.shape == (5, 24)
    assert ours.dtype == np.float32
    assert ((ours * theirs).sum(axis=1) >= 0.999).all()
    assert encoder.temperature == pytest.approx(float(reference(folder).logit_scale.exp()))


def test_a_file_with_an_architecture_is_the_same_model_as_a_folder_with_it(tmp_path: Path) -> None:
    file = weights(tmp_path / "w.safetensors")
    by_file = of_file(file, tmp_path)
    by_folder = load(folder_of(tmp_path / "model"), tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    np.testing.assert_allclose(by_file.encode_images(pixels), by_folder.encode_images(pixels), atol=1e-5)
    np.testing.assert_allclose(by_file.encode_texts(TEXTS), by_folder.encode_texts(TEXTS), atol=1e-5)
    assert by_file.space.fingerprint == by_folder.space.fingerprint  # the name is no part of it
    assert by_file.space.model == f"{NAME}:{file}"


def test_other_weights_and_other_preprocessing_are_other_spaces(tmp_path: Path) -> None:
    spaces = {
        of_file(weights(tmp_path / "a.safetensors", 0), tmp_path).space.fingerprint,
        of_file(weights(tmp_path / "b.safetensors", 1), tmp_path).space.fingerprint,
        load(folder_of(tmp_path / "m", {"resize_mode": "squash"}), tmp_path).space.fingerprint,
    }
    assert len(spaces) == 3


def test_an_unknown_architecture_is_refused_in_one_line(tmp_path: Path) -> None:
    file = weights(tmp_path / "w.safetensors")
    for name, told in (
        (f"ViT-Z-99:{file}", "knows no architecture 'ViT-Z-99'"),
        ("ViT-Z-99/tag", "knows no architecture 'ViT-Z-99'"),
    ):
        with pytest.raises(StartupError, match=told) as refused:
            load(name, tmp_path)
        assert "\n" not in refused.value.detail


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"logit_scale": torch.zeros(())}, file)
    with pytest.raises(StartupError, match=rf"w\.safetensors does not fit {NAME} \(.+\)") as refused:
        of_file(file, tmp_path)
    assert "\n" not in refused.value.detail


def test_half_precision_keeps_the_direction(tmp_path: Path) -> None:
    file = weights(tmp_path / "w.safetensors")
    whole = of_file(file, tmp_path, device="cpu", precision="fp32")
    half = of_file(file, tmp_path, device="cpu", precision="bf16")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    assert ((whole.encode_images(pixels) * half.encode_images(pixels)).sum(axis=1) > 0.99).all()
    assert ((whole.encode_texts(TEXTS) * half.encode_texts(TEXTS)).sum(axis=1) > 0.99).all()
    check_vectors(half.encode_texts(TEXTS))


def test_threads_may_share_one_encoder(tmp_path: Path) -> None:
    encoder = of_file(weights(tmp_path / "w.safetensors"), tmp_path, device="cpu", threads=1)
    expected = encoder.encode_texts(TEXTS)
    wrong: list[int] = []

    def ask(n: int) -> None:
        for _ in range(10):
            if not np.allclose(encoder.encode_texts(TEXTS[n : n + 1])[0], expected[n], atol=1e-5):
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert isinstance(encoder, OpenClipEncoder)


def test_a_tokenizer_of_the_folder_is_used_where_the_vocabulary_is_not_clips(tmp_path: Path) -> None:
    encoder = load(make_model(tmp_path / "model"), tmp_path)
    red, car, end = (WORDS.index(word) for word in ("red", "car", "[end]"))
    tokens = torch.tensor([[red, car, end] + [0] * 13, [car, end] + [0] * 14])
    theirs = unit(reference(tmp_path / "model").encode_text(tokens))
    assert ((encoder.encode_texts(["red car", "car"]) * theirs).sum(axis=1) >= 0.999).all()


def test_models_that_see_oblong_pictures_are_refused() -> None:
    with pytest.raises(StartupError, match="224 × 448 pixels are not supported"):
        map_preprocessing({"size": (224, 448)})
    assert map_preprocessing({"size": (224, 224)}).size == 224
    assert map_preprocessing({"size": 64, "resize_mode": "longest"}).resize == "longest"


def test_auto_takes_what_the_machine_has() -> None:
    assert choose_precision("auto", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"
    assert choose_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert choose_device("auto") == "cuda"
        return
    assert choose_device("auto") == "cpu"
    with pytest.raises(StartupError, match="no CUDA device was found; use --device cpu"):
        choose_device("cuda:1")


@pytest.mark.parametrize("n", [0, 1, 2, 4, 5, 33, 64, 100, 128, 129, 256, 300, 1000])
def test_batches_of_fixed_sizes_hold_every_row_once_and_no_smaller_size_would_do(n: int) -> None:
    parts = list(split_rows(n, BATCH_SIZES))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(n))
    for part in parts:
        assert part.size == min((size for size in BATCH_SIZES if size >= len(part)), default=None)
    assert all(len(part) == BATCH_SIZES[-1] for part in parts[:-1])


def test_pictures_in_batches_of_fixed_sizes_get_the_vectors_they_get_at_once(tmp_path: Path) -> None:
    encoder = of_file(weights(tmp_path / "w.safetensors"), tmp_path)
    assert isinstance(encoder, OpenClipEncoder)
    pixels = np.random.default_rng(1).integers(0, 256, (37, 64, 64, 3)).astype(np.uint8)
    seen: list[int] = []

    def forward(rows: torch.Tensor) -> torch.Tensor:
        seen.append(len(rows))
        return encoder.forward(rows)

    with torch.inference_mode():
        batches = CudaGraphRunner(forward, (64, 64, 3), encoder.space.d, "cpu", (1, 4, 16))
        for n in (37, 5, 1, 0):  # few after many: what the rows of padding hold then is old
            found = normalise(batches(pixels[:n]))
            assert found.shape == (n, 24)
            np.testing.assert_allclose(found, encoder.encode_images(pixels)[:n], atol=1e-5)
    assert seen == [16, 16, 16, 16, 1]


def test_a_batch_that_the_memory_does_not_hold_is_run_in_smaller_ones_from_then_on() -> None:
    seen: list[int] = []

    def forward(rows: torch.Tensor) -> torch.Tensor:
        seen.append(len(rows))
        if len(rows) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return rows.float()

    rows = np.arange(40, dtype=np.uint8).reshape(40, 1)
    limit, batches = 4, CudaGraphRunner(forward, (1,), 1, "cpu", (1, 4, 16, 32))
    np.testing.assert_array_equal(batches(rows), rows)
    assert batches.sizes == (1, 4)
    seen.clear()
    np.testing.assert_array_equal(batches(rows), rows)
    assert seen == [4] * 10
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        batches(rows)
    limit = 1
    np.testing.assert_array_equal(batches(rows), rows)
