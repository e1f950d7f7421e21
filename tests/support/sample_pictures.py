"""Make valid and broken picture files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

FORMATS = ("jpeg", "png", "webp", "gif", "avif")


def scene(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """An RGB picture with gradients and noise; each seed gives another."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    planes = np.stack([across, down, (across + down) / 2], axis=-1)
    return Image.fromarray(np.clip(planes + rng.integers(0, 55, planes.shape), 0, 255).astype(np.uint8))


def encode_image(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind.upper(), **options)
    return file.getvalue()


def sample(kind: str, width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """A small valid file of the format."""
    return encode_image(scene(width, height, seed), kind)


def animation(kind: str, frames: int = 3) -> bytes:
    """A small animation; the first frame is red."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", (32, 32), colours[i % 3]) for i in range(frames)]
    return encode_image(images[0], kind, save_all=True, append_images=images[1:], duration=50)


def chunk(name: bytes, data: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes = b"", *, between: Iterable[bytes] = (), depth: int = 8) -> bytes:
    """A greyscale PNG that claims a size; `data` is compressed scanlines, `between` chunks before it."""
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    pieces = [chunk(b"IHDR", head), *between, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def deflate_zeros(count: int) -> bytes:
    """Compress `count` zero bytes without holding them in memory."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    pieces = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*pieces, packer.compress(bytes(count & 0xFFFFF)), packer.flush()])


def solid_png(side: int) -> bytes:
    """A small file that is a valid black greyscale PNG of side × side pixels."""
    return png(side, side, deflate_zeros(side * (side + 1)))


def claim_size(kind: str, width: int, height: int) -> bytes:
    """A small valid file whose header is patched to claim another size."""
    if kind == "webp":  # VP8X holds the largest sizes
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = b"VP8X" + struct.pack("<I4x", 10) + size + sample(kind)[12:]
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    data = bytearray(sample(kind))
    if kind == "jpeg":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    elif kind == "png":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "avif":
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", width, height)
    return bytes(data)


def long_gif(frames: int) -> bytes:
    """A GIF with many frames, each 1 × 1 pixel on a 16 × 16 screen, the first full and red."""
    first = encode_image(Image.new("RGB", (16, 16), (255, 0, 0)), "gif")[:-1]
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return first + frame * (frames - 1) + b"\x3b"
