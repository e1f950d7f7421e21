from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.core.errors import ImageCorrupt
from app.core.types import Preprocessing
from app.decode.limits import PictureLimits
from app.decode.perceptual_hash import HASH_BYTES, PLAIN, compute_perceptual_hash
from app.decode.picture import decode_picture, hash_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from tests.support.sample_pictures import encode_image, scene


def shapes(seed: int = 0, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture of large, soft shapes."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (5, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


def count_bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one[:8]) ^ int.from_bytes(other[:8])).bit_count()


def measure_colours(one: bytes, other: bytes) -> float:
    apart = np.subtract(*(np.frombuffer(each[8:], np.int8).astype(float) for each in (one, other)))
    return float(np.sqrt((apart**2).mean()) / 32)


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_has_nearly_the_same_hash(seed: int) -> None:
    picture = shapes(seed)
    before = compute_perceptual_hash(picture)
    assert len(before) == HASH_BYTES
    again = Image.open(io.BytesIO(encode_image(picture, "jpeg", quality=50))).convert("RGB")
    for copy in (again, picture.resize((100, 75)), picture.point(lambda level: round(level * 0.9))):
        after = compute_perceptual_hash(copy)
        assert count_bits(before, after) <= 6
        assert measure_colours(before, after) < 0.15
    other = compute_perceptual_hash(shapes(seed + 100))
    assert count_bits(before, other) > 16
    assert measure_colours(before, other) > 0.5


def test_the_sketch_tells_colours_apart_that_are_equally_bright() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    red, blue = grey.copy(), grey.copy()
    red[16:48, 16:48], blue[16:48, 16:48] = (220, 60, 60), (60, 90, 255)
    first, second = (compute_perceptual_hash(Image.fromarray(one)) for one in (red, blue))
    assert count_bits(first, second) <= 16
    assert measure_colours(first, second) > 0.5


@pytest.mark.parametrize("colour", ["white", "#123456"])
def test_a_picture_of_one_colour_has_no_shape(colour: str) -> None:
    assert compute_perceptual_hash(Image.new("RGB", (40, 30), colour)) == PLAIN


def test_the_hash_of_a_thumbnail_is_that_of_its_picture(tmp_path: Path, pool: DecodePool) -> None:
    (tmp_path / "a.png").write_bytes(encode_image(shapes(size=(900, 700)), "png"))
    thumbnail, limits = tmp_path / "a.webp", PictureLimits()
    decoding = pool.submit(decode_picture, tmp_path / "a.png", Preprocessing(32), limits, OutputFile(thumbnail), 320)
    hashed = decoding.result().perceptual_hash
    assert hashed is not None
    for path in (thumbnail, tmp_path / "a.png"):
        later = bytes.fromhex(pool.submit(hash_picture, path, limits).result())
        assert count_bits(hashed, later) <= 2
        assert measure_colours(hashed, later) < 0.05
    assert pool.submit(decode_picture, tmp_path / "a.png", Preprocessing(32), limits).result().perceptual_hash is None


def test_a_damaged_file_has_no_hash(tmp_path: Path, pool: DecodePool) -> None:
    content = encode_image(scene(200, 200), "png")
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageCorrupt):
        pool.submit(hash_picture, tmp_path / "a.png", PictureLimits()).result()
