"""Draw seeded JPEGs that cost a decoder as much as photographs do.

They consist of noise with the spectrum of natural scenes (amplitude falls as one over frequency), shapes with hard
edges, and the grain of a sensor. At quality 90 they have as many bytes a pixel as photographs; flat pixels would have
far fewer and random ones far more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from bench.weights import WORK

Canvas = npt.NDArray[np.uint8]
SMALL, LARGE = (640, 480), (4032, 3024)
QUALITY = 90
SIDE = 4608  # of the canvas; every picture is a part of it
FALL = 1.15  # the exponent of the spectrum; between 1 and 1.3 in photographs
SHAPES = 24
GRAIN = 1.5  # levels of 255


def make_photographs(count: int, size: tuple[int, int], folder: Path = WORK) -> list[Path]:
    """Paths of `count` files of this size; missing ones are made. The same number always gives the same picture."""
    place = folder / "pictures" / f"{size[0]}x{size[1]}"
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{number:04}.jpg" for number in range(count)]
    missing = [path for path in paths if not path.exists()]
    if missing:
        for path, picture in zip(missing, draw_pictures([int(path.stem) for path in missing], size), strict=True):
            draft = path.with_suffix(".draft")
            picture.save(draft, "JPEG", quality=QUALITY)
            draft.rename(path)
    return paths


def draw_pictures(numbers: list[int], size: tuple[int, int]) -> Iterator[Image.Image]:
    rng = np.random.default_rng(0)
    scenery = make_canvas(rng)
    grain = rng.normal(0, GRAIN, (size[1], size[0], 1)).astype(np.int16)
    for number in numbers:
        yield draw_picture(np.random.default_rng((1, number)), scenery, grain, size)


def make_canvas(rng: np.random.Generator) -> Canvas:
    """uint8 [SIDE, SIDE, 3]: brightness that all channels share, and some noise of their own."""
    frequencies = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :]).astype(np.float32)
    frequencies[0, 0] = 1
    falling = frequencies**-FALL
    falling[0, 0] = 0
    layers = []
    for _ in range(4):
        noise = np.fft.rfft2(rng.standard_normal((SIDE, SIDE), dtype=np.float32))
        layer = np.fft.irfft2(noise * falling, s=(SIDE, SIDE)).astype(np.float32)
        layers.append(layer / layer.std())
    channels = [layers[0] + 0.3 * own for own in layers[1:]]
    return np.stack([np.clip(128 + 55 * channel, 0, 255).astype(np.uint8) for channel in channels], axis=-1)


def draw_picture(
    rng: np.random.Generator, scenery: Canvas, grain: npt.NDArray[np.int16], size: tuple[int, int]
) -> Image.Image:
    """A part of the canvas, mirrored and tinted, with shapes in front of it."""
    width, height = size
    times = max(1, min(4, SIDE // (2 * width)))  # a small picture shows a wider view, as a scaled photograph does
    left, top = int(rng.integers(SIDE - width * times)), int(rng.integers(SIDE - height * times))
    part = scenery[top : top + height * times, left : left + width * times][:, :: int(rng.choice((-1, 1)))]
    picture = Image.fromarray(np.ascontiguousarray(part[..., rng.permutation(3)])).reduce(times)
    pen = ImageDraw.Draw(picture)
    for _ in range(SHAPES):
        x, y = (float(rng.uniform(0, one)) for one in size)
        across, down = (float(one * rng.uniform(0.01, 0.15)) for one in size)
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        corners = [(x + across * np.cos(turn), y + down * np.sin(turn)) for turn in np.sort(rng.uniform(0, 6.28, 5))]
        if rng.random() < 0.5:
            pen.polygon(corners, fill=colour)
        else:
            pen.ellipse((x - across, y - down, x + across, y + down), fill=colour)
    grained = np.asarray(picture, dtype=np.int16) + np.roll(grain, int(rng.integers(height)), axis=0)
    return Image.fromarray(np.clip(grained, 0, 255).astype(np.uint8))
