"""The pixels of a stored picture for a second pass."""

from __future__ import annotations

from pathlib import Path

from app.core.types import Image, Preprocessing
from app.decode.picture import Pixels, crop_padding, decode_picture
from app.decode.pool import DecodePool


def read_pixels(pool: DecodePool, image: Image, path: Path, side: int) -> Pixels:
    """The upright picture, uint8 [height, width, 3] in sRGB, at most `side` pixels a side; a decode child reads it.

    Raises as `decode_picture`.
    """
    longest = max(1, min(side, max(image.width or side, image.height or side)))
    preprocessing = Preprocessing(longest, "longest", fill=255)
    decoded = pool.submit(decode_picture, path, preprocessing, pool.picture_limits).result()
    return crop_padding(decoded, preprocessing)
