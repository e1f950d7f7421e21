"""Styles: each redraws a finished RGB picture. `HELD_OUT_STYLES` are for evaluation only."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Style = Callable[[Pixels, np.random.Generator], Pixels]


def apply(style: str, image: Pixels, rng: np.random.Generator) -> Pixels:
    """`image` uint8 [h, w, 3] in `style`; "none" gives it back, "outline+faded" applies one after the other."""
    for part in style.split("+"):
        image = image if part == "none" else _STYLES[part](image, rng)
    return image


def _pixels(values: npt.NDArray[np.generic]) -> Pixels:
    return values.astype(np.uint8)


def _grey(image: Pixels) -> Pixels:
    return _pixels(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _rgb(grey: npt.NDArray[np.generic]) -> Pixels:
    return _pixels(cv2.cvtColor(_pixels(grey), cv2.COLOR_GRAY2RGB))


def _table(values: npt.NDArray[np.floating]) -> Pixels:
    return _pixels(values.clip(0, 255).round())


_RAMP = np.arange(256, dtype=np.float32)


def _posterised(image: Pixels, rng: np.random.Generator) -> Pixels:
    levels = int(rng.integers(2, 5))
    table = _table(np.round(_RAMP / 255 * levels) / levels * 255)
    return _pixels(cv2.LUT(cv2.medianBlur(image, 3), table))


def _edges(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Strength of edges, uint8 [h, w], lines of one to three pixels at 112."""
    scale = max(1, image.shape[0] // 112)
    grey = cv2.GaussianBlur(_grey(image), (0, 0), float(rng.uniform(0.4, 0.9)) * scale)
    size = int(rng.choice([2, 3])) * scale
    lines = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((size, size), np.uint8))
    gain = float(rng.uniform(1.8, 5.0))
    return _pixels(cv2.convertScaleAbs(lines, alpha=gain))


def _outline(image: Pixels, rng: np.random.Generator) -> Pixels:
    lines = _edges(image, rng)
    if rng.random() < 0.3:
        lines = _pixels(np.where(lines > 110, 255, 0))
    return _rgb(lines if rng.random() < 0.3 else 255 - lines)


def _contour(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Dark lines over a pale grey version."""
    lines = _edges(image, rng)
    pale = cv2.convertScaleAbs(_grey(image), alpha=0.45, beta=140)
    return _rgb(cv2.subtract(pale, lines))


def _shades(image: Pixels, rng: np.random.Generator) -> Pixels:
    gain = float(rng.uniform(0.6, 1.5))
    return _rgb(cv2.LUT(_grey(image), _table((_RAMP - 128) * gain + 128 + rng.uniform(-30, 30))))


def _blur(image: Pixels, rng: np.random.Generator) -> Pixels:
    return _pixels(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.6, 1.9)) * image.shape[0] / 112))


def _coarse(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Few pixels, smoothly enlarged, as thumbnails of thumbnails are."""
    side = int(rng.integers(36, 84))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    way = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    return _pixels(cv2.resize(small, image.shape[1::-1], interpolation=way))


def _jpeg(image: Pixels, rng: np.random.Generator) -> Pixels:
    _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(8, 50))])
    return _pixels(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)))


def _faded(image: Pixels, rng: np.random.Generator) -> Pixels:
    gain = float(rng.uniform(0.3, 0.65))
    return _pixels(cv2.convertScaleAbs(image, alpha=gain, beta=float(rng.uniform(0, 255 * (1 - gain)))))


def _inverted(image: Pixels, rng: np.random.Generator) -> Pixels:
    return _pixels(255 - image)


def _tinted(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Shades of one colour, from a dark one to a pale one."""
    ends = np.sort(rng.uniform(0, 255, (2, 3)), axis=0)
    ends[0] *= 0.6
    if rng.random() < 0.3:
        ends = ends[::-1]
    ramp = ends[0] + (_RAMP / 255)[:, None] * (ends[1] - ends[0])
    return np.ascontiguousarray(_table(ramp)[_grey(image)])


def _grainy(image: Pixels, rng: np.random.Generator) -> Pixels:
    noise = rng.integers(-1, 2, image.shape, dtype=np.int8).astype(np.int16) * int(rng.integers(8, 40))
    return _pixels(np.clip(image + noise, 0, 255))


def _flat(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Flat areas with dark outlines, like a comic."""
    smooth = cv2.medianBlur(image, 5 if image.shape[0] < 200 else 9)
    levels = int(rng.integers(3, 6))
    flat = _pixels(cv2.LUT(smooth, _table(np.round(_RAMP / 255 * levels) / levels * 255)))
    return _pixels(cv2.subtract(flat, _rgb(_edges(image, rng))))


def _shadow(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Uneven light."""
    light = cv2.resize(rng.uniform(0.35, 1.25, (3, 3)).astype(np.float32), image.shape[1::-1])
    return _pixels(np.clip(image * light[..., None], 0, 255))


def _bright(image: Pixels, rng: np.random.Generator) -> Pixels:
    power = float(np.exp(rng.uniform(-0.8, 0.8)))
    return _pixels(cv2.LUT(image, _table((_RAMP / 255) ** power * 255)))


def _silhouette(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Two tones, split at the mean or by the neighbourhood."""
    grey = _grey(image)
    if rng.random() < 0.5:
        block = int(rng.choice([15, 25, 41])) * max(1, image.shape[0] // 112) | 1
        tones = cv2.adaptiveThreshold(
            grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, block, float(rng.uniform(2, 9))
        )
    else:
        tones = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
    return _rgb(tones)


def _stippled(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Dots of ink thrown at random, more where it is darker."""
    side, grain = image.shape[0], float(rng.uniform(0.7, 2.0))
    cells = int(112 / grain)
    noise = cv2.resize(rng.random((cells, cells), dtype=np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    tones = _grey(image) / 255
    return _rgb(np.clip((tones - 0.1 - 0.8 * noise) * float(rng.uniform(2, 8)) + 0.5, 0, 1) * 255)


def _hatched(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Parallel strokes, broader where it is darker, as in an engraving."""
    side = image.shape[0]
    line = np.arange(side, dtype=np.float32) / side * 112 / float(rng.uniform(2.2, 5.0))
    angle = float(rng.uniform(0, np.pi))
    wave = np.abs((np.cos(angle) * line[None, :] + np.sin(angle) * line[:, None]) % 1 - 0.5) * 2
    return _rgb(np.clip((_grey(image) / 255 - 0.1 - 0.8 * wave) * float(rng.uniform(2, 5)) + 0.5, 0, 1) * 255)


def _chalk(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Broken strokes along the edges and faint shading, on a rough ground, light or dark."""
    grain = rng.uniform(0.3, 1.0, image.shape[:2]).astype(np.float32)
    strokes = _edges(image, rng) / 255 * float(rng.uniform(0.4, 1.0)) * grain
    shade = (1 - _grey(image) / 255) * float(rng.uniform(0.0, 0.35))
    mark = np.clip(strokes + shade, 0, 1)
    low, high = float(rng.uniform(0, 60)), float(rng.uniform(200, 255))
    return _rgb(low + mark * (high - low) if rng.random() < 0.4 else high - mark * (high - low))


def _halftone(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Held out. Black dots on white on a turned grid, larger where it is darker."""
    side = image.shape[0]
    step = side / 112 * 3.2
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    angle = np.radians(30)
    u, v = (xs * np.cos(angle) + ys * np.sin(angle)) / step, (ys * np.cos(angle) - xs * np.sin(angle)) / step
    screen = (np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v)) / 4 + 0.5
    return _rgb(np.clip((_grey(image) / 255 - screen) * 4 + 0.5, 0, 1) * 255)


def _mosaic(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Held out. 28 by 28 square tiles of one colour each."""
    small = cv2.resize(image, (28, 28), interpolation=cv2.INTER_AREA)
    return _pixels(cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_NEAREST))


def _pencil(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Held out. Dodge of the grey picture by its blurred negative, on rough paper."""
    grey = _grey(image)
    veil = cv2.GaussianBlur(255 - grey, (0, 0), 4.0 * image.shape[0] / 112)
    sketch = cv2.divide(grey, np.maximum(255 - _pixels(veil), 1), scale=250)
    paper = rng.normal(0, 7, grey.shape)
    return _rgb(np.clip(sketch * 0.95 + paper, 0, 255))


_STYLES: dict[str, Style] = {
    "posterised": _posterised,
    "outline": _outline,
    "contour": _contour,
    "grey": _shades,
    "blur": _blur,
    "coarse": _coarse,
    "jpeg": _jpeg,
    "faded": _faded,
    "inverted": _inverted,
    "tinted": _tinted,
    "grainy": _grainy,
    "flat": _flat,
    "shadow": _shadow,
    "bright": _bright,
    "silhouette": _silhouette,
    "stippled": _stippled,
    "hatched": _hatched,
    "chalk": _chalk,
    "halftone": _halftone,
    "mosaic": _mosaic,
    "pencil": _pencil,
}
