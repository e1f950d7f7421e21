"""A decoded picture as the answer of a child: how the child writes it, and how the service reads it.

Nothing is believed that a decoder could not have made, since a file may have taken the child over.
"""

from __future__ import annotations

import re
from typing import Any, cast, get_args

import numpy as np

from app.core.picture_formats import Format
from app.decode.camera_data import camera_data_from_json, camera_data_to_json
from app.decode.perceptual_hash import HASH_BYTES
from app.decode.picture import DecodedPicture
from app.decode.task_channel import pack_answer

FORMATS = get_args(Format)
MAX_SIDE = 1 << 20
_HASH = re.compile(f"([0-9a-f]{{{2 * HASH_BYTES}}})?")


def encode_picture(picture: DecodedPicture) -> bytes:
    """The pixels are the block of bytes, all else is JSON."""
    fields: dict[str, Any] = {
        "side": picture.pixels.shape[0],
        "width": picture.width,
        "height": picture.height,
        "format": picture.format,
        "animated": picture.animated,
        "perceptual_hash": None if picture.perceptual_hash is None else picture.perceptual_hash.hex(),
    }
    if picture.camera_data is not None:
        fields["camera_data"] = camera_data_to_json(picture.camera_data)
    return pack_answer({"picture": fields}, picture.pixels.tobytes())


def read_picture(fields: object, block: bytes) -> DecodedPicture:
    """Raises ValueError for anything but what `encode_picture` writes."""
    if not isinstance(fields, dict):
        raise ValueError("no picture")
    side, width, height = (fields.get(name) for name in ("side", "width", "height"))
    format_, animated, hashed = (fields.get(name) for name in ("format", "animated", "perceptual_hash"))
    if not (type(side) is type(width) is type(height) is int and isinstance(animated, bool) and format_ in FORMATS):
        raise ValueError("a field of the picture is of a wrong type")
    if min(side, width, height) < 1 or max(width, height) > MAX_SIDE or len(block) != side * side * 3:
        raise ValueError("the picture has an impossible size")
    if hashed is not None and not (isinstance(hashed, str) and _HASH.fullmatch(hashed)):
        raise ValueError("the picture's hash is none")
    camera_data = None if fields.get("camera_data") is None else camera_data_from_json(fields["camera_data"])
    pixels = np.frombuffer(block, np.uint8).reshape(side, side, 3)
    perceptual_hash = None if hashed is None else bytes.fromhex(hashed)
    return DecodedPicture(pixels, width, height, cast(Format, format_), animated, perceptual_hash, camera_data)
