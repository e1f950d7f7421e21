"""The perceptual hash of a picture: it stays nearly the same when the picture is encoded again, resized or recoloured.

56 bytes: 64 bits of the discrete cosine transform (DCT) of its brightness ("pHash"), then a sketch of its colours,
int8 [4, 4, 3]. The bits are those of 8 x 8 low frequencies above their median. The sketch has the colours less their
mean, over their contrast: bits alone take a red car for a blue one.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

HASH_BYTES = 56
PLAIN = b""  # the hash of a picture of one colour, which has no shape to compare
SKETCH_SCALE = 32  # of the int8 values: a difference of 1 is a 32nd of the contrast of the picture
_SIDE, _BITS, _CELLS = 32, 8, 4
_LEAST_CONTRAST = 1.0  # levels of 255: what a JPEG adds to a plain picture stays below
_SOFTENING = 4.0  # levels of 255 that are added to a contrast, so that noise is not made into colours
_TURNS = np.cos(np.pi * np.outer(np.arange(_BITS), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE)).astype(np.float32)


def compute_perceptual_hash(image: Image.Image) -> bytes:
    """The hash of an RGB picture, which should be small: HASH_BYTES bytes, or PLAIN."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    brightness = np.asarray(small.convert("L"), np.float32)
    if brightness.std() < _LEAST_CONTRAST:
        return PLAIN
    # Neither @, whose library may start threads, nor np.median, which loads modules: a decode child may do neither.
    waves = np.einsum("vj,uj->uv", _TURNS, np.einsum("ui,ij->uj", _TURNS, brightness)).ravel()
    median = sorted(waves[1:].tolist())[(waves.size - 1) // 2]
    bits = np.packbits(waves > median)
    cells = np.asarray(small, np.float32).reshape(_CELLS, _SIDE // _CELLS, _CELLS, _SIDE // _CELLS, 3).mean(axis=(1, 3))
    cells -= cells.mean(axis=(0, 1))
    sketch = np.rint(cells * (SKETCH_SCALE / (cells.std() + _SOFTENING))).clip(-127, 127).astype(np.int8)
    return bytes(bits) + bytes(sketch)
