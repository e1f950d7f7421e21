"""Turn JPEG files into vectors in two ways: decoded by children, as a worker does, and decoded by the GPU.

The service does not decode on the GPU; docs/decisions/0016-jpegs-are-not-decoded-on-the-gpu.md says why.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from app.core.types import Preprocessing
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from app.encoder.open_clip import OpenClipEncoder
from app.encoder.protocol import Embeddings, Pixels, normalise
from app.worker.embed import BATCHES_AHEAD

SIZE = (640, 480)
GRAIN = 6  # levels of noise: a file is then as large (some 80 kB) and as slow to read as a photograph


@dataclass(frozen=True, slots=True)
class Source:
    """`count` pictures from `files`, repeated as needed and decoded by `pool`; thumbnails go to `folder`."""

    files: list[Path]
    count: int
    pool: DecodePool
    folder: Path

    def paths(self) -> Iterator[Path]:
        return (self.files[n % len(self.files)] for n in range(self.count))


def write_jpegs(folder: Path, n: int) -> list[Path]:
    """Draw seeded pictures of 640 × 480."""
    dice = np.random.default_rng(7)
    files = []
    for number in range(n):
        cells = dice.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        soft = np.asarray(Image.fromarray(cells).resize(SIZE, Image.Resampling.BICUBIC), dtype=np.float32)
        grain = dice.normal(0, GRAIN, soft.shape).astype(np.float32)
        path = folder / f"{number:04d}.jpg"
        Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=90)
        files.append(path)
    return files


def encode_from_children(
    source: Source, encoder: OpenClipEncoder | None, preprocessing: Preprocessing, batch: int, thumbnails: bool
) -> Iterator[Embeddings | Pixels]:
    """Yield vectors in batches, decoded ahead as a worker does. Without an encoder, yield the pixels."""
    waiting: deque[Future[DecodedPicture]] = deque()
    paths = source.paths()
    while True:
        for path in islice(paths, BATCHES_AHEAD * batch - len(waiting)):
            thumbnail = source.folder / f"{path.stem}.webp" if thumbnails else None
            waiting.append(
                source.pool.submit(
                    decode_picture, path, preprocessing, source.pool.picture_limits, thumbnail and OutputFile(thumbnail)
                )
            )
        if not waiting:
            return
        ready = [waiting.popleft().result().pixels for _ in range(min(batch, len(waiting)))]
        pixels = np.stack(ready)
        yield pixels if encoder is None else encoder.encode_images(pixels)


def encode_from_gpu(source: Source, encoder: OpenClipEncoder, batch: int) -> tuple[int, Iterator[Embeddings]]:
    """Return how many of the files the device refuses, and the vectors in batches, decoded and scaled by the device."""
    fallen = sum(one is None for one in _decode(source.files, encoder.device))

    def vectors() -> Iterator[Embeddings]:
        paths = source.paths()
        while files := list(islice(paths, batch)):
            with torch.inference_mode():
                yield normalise(encoder.forward(decode_on_device(files, encoder, source.pool)).cpu().numpy())

    return fallen, vectors()


def decode_on_device(files: list[Path], encoder: OpenClipEncoder, pool: DecodePool) -> Tensor:
    """uint8 [n, size, size, 3] on the encoder's device. A decode child reads the files that the device refuses."""
    seen = encoder.preprocessing
    rows = []
    for file, picture in zip(files, _decode(files, encoder.device), strict=True):
        if picture is None:
            pixels = pool.submit(decode_picture, file, seen, pool.picture_limits).result().pixels
            rows.append(torch.tensor(pixels, device=encoder.device))
        else:
            rows.append(_fit(picture, seen))
    return torch.stack(rows)


def _decode(files: list[Path], device: str) -> list[Tensor | None]:
    """uint8 [3, h, w] of each; None for a file that the device refuses. torchvision decodes all of a list or none."""
    contents = [torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8) for file in files]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return list(decode_jpeg(contents, mode=ImageReadMode.RGB, device=device))
        except RuntimeError:
            return [None] if len(files) == 1 else [one for file in files for one in _decode([file], device)]


def _fit(picture: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 [size, size, 3]: scale the shorter side to `size`, crop the middle."""
    side, (height, width) = preprocessing.size, picture.shape[1:]
    high, wide = (int(side * height / width), side) if width <= height else (side, int(side * width / height))
    scaled = torch.nn.functional.interpolate(
        picture[None].float(), (high, wide), mode=preprocessing.interpolation, antialias=True
    )[0]
    top, left = round((high - side) / 2), round((wide - side) / 2)
    kept = scaled[:, top : top + side, left : left + side].round().clamp(0, 255)
    return kept.to(torch.uint8).permute(1, 2, 0).contiguous()
