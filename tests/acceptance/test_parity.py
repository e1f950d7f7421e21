"""For every family of models, our path from bytes and words to unit vectors equals open_clip's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from app.core.files import sha256_file
from app.decode.limits import PictureLimits
from app.decode.picture import decode_picture
from app.encoder.conversion import convert
from app.encoder.loader import WEIGHTS
from app.encoder.open_clip import OpenClipEncoder, build_model
from app.encoder.openvino import OpenVinoEncoder
from app.encoder.protocol import Embeddings
from app.encoder.weights import LocatedModel
from tests.acceptance.families import FAMILIES, make_folder

TEXTS = (
    "a red car",
    "  A  Blue CAT, on the roof!  ",
    "x",
    "笑脸 на крыше",
    "it&#39;s café — naïve",
    "a picture of a very long street with many houses, trees, people and dogs " * 4,
)


def photo(width: int, height: int, seed: int = 0, kind: str = "JPEG") -> bytes:
    """Soft shapes in many colours, like a photograph."""
    dice = np.random.default_rng(seed)
    cells = dice.integers(0, 256, (height // 60 + 2, width // 60 + 2, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC).save(out, kind, quality=92)
    return out.getvalue()


def unit(vectors: torch.Tensor) -> Embeddings:
    return np.asarray(torch.nn.functional.normalize(vectors.float(), dim=-1).numpy())


def cosines(ours: Embeddings, theirs: Embeddings) -> list[float]:
    return [float(value) for value in (ours * theirs).sum(axis=1)]


@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_gives_the_vectors_that_open_clip_gives(family: str, tmp_path: Path) -> None:
    name = make_folder(family, tmp_path / "model")
    weights = tmp_path / "model" / WEIGHTS
    built = build_model(LocatedModel(name, name, weights, sha256_file(weights)))  # by open_clip.create_model
    model = built.clip
    seen = open_clip.transform.PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
    transform = open_clip.transform.image_transform_v2(seen, is_train=False)
    theirs = unit(model.encode_text(open_clip.get_tokenizer(name)(list(TEXTS))))
    apart = theirs @ theirs.T - 2 * np.eye(len(TEXTS))
    assert apart.max() < 0.99, "texts that all look alike would prove nothing"
    small = [photo(300, 300), photo(420, 420, 1), photo(500, 310, 2, "PNG")]
    large = [photo(2600, 1900, 3), photo(1500, 3100, 4)]

    convert(LocatedModel(name, name, weights, sha256_file(weights), half=True), tmp_path / "compiled")
    compiled = OpenVinoEncoder(tmp_path / "compiled", "bf16")
    assert (tmp_path / "compiled/tokenizer.json").is_file(), "words would be read by open_clip, which brings torch"
    for encoder, alike in ((OpenClipEncoder(built, "cpu", "fp32"), 0.99999), (compiled, 0.999)):
        assert min(cosines(encoder.encode_texts(TEXTS), theirs)) >= alike
        assert min(cosines(np.concatenate([encoder.encode_texts([text]) for text in TEXTS]), theirs)) >= alike
        assert min(by_picture(encoder, model, transform, small, tmp_path)) >= 0.999
        assert min(by_picture(encoder, model, transform, large, tmp_path)) >= 0.99


def by_picture(encoder: Any, model: Any, transform: Any, contents: list[bytes], folder: Path) -> list[float]:
    """Cosines between our vectors and open_clip's, from the same bytes."""
    file, ours, theirs = folder / "picture", [], []
    for content in contents:
        file.write_bytes(content)
        ours.append(decode_picture(file, encoder.preprocessing, PictureLimits()).pixels)
        with Image.open(io.BytesIO(content)) as image:
            theirs.append(transform(image.convert("RGB")))
    return cosines(encoder.encode_images(np.stack(ours)), unit(model.encode_image(torch.stack(theirs))))
