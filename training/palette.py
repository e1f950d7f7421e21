"""Eleven named colours in two languages: naming what a picture shows, and drawing what a name says."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import numpy.typing as npt

Rgb = tuple[int, int, int]

# English -> (Chinese, hue range in degrees, saturation range, value range)
_RANGES: dict[str, tuple[str, tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ("红", (-8, 8), (0.65, 0.95), (0.70, 0.95)),
    "orange": ("橙", (22, 33), (0.70, 0.98), (0.92, 1.0)),
    "yellow": ("黄", (47, 57), (0.50, 0.95), (0.93, 1.0)),
    "green": ("绿", (95, 150), (0.35, 0.80), (0.50, 0.85)),
    "blue": ("蓝", (203, 235), (0.45, 0.90), (0.60, 0.98)),
    "purple": ("紫", (265, 288), (0.40, 0.80), (0.50, 0.85)),
    "pink": ("粉", (325, 348), (0.25, 0.50), (0.95, 1.0)),
    "brown": ("棕", (18, 30), (0.50, 0.75), (0.35, 0.58)),
    "black": ("黑", (0, 360), (0.0, 0.15), (0.02, 0.14)),
    "white": ("白", (0, 360), (0.0, 0.03), (0.96, 1.0)),
    "grey": ("灰", (0, 360), (0.0, 0.06), (0.45, 0.72)),
}
COLOURS: tuple[str, ...] = tuple(_RANGES)
CHINESE: dict[str, str] = {name: row[0] for name, row in _RANGES.items()}
PAINTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


def draw_colour(name: str, rng: np.random.Generator) -> Rgb:
    """A random shade of the colour `name`, as RGB 0..255."""
    _, hue, saturation, value = _RANGES[name]
    parts = (rng.uniform(*hue) % 360 / 360, rng.uniform(*saturation), rng.uniform(*value))
    red, green, blue = colorsys.hsv_to_rgb(*parts)
    return round(red * 255), round(green * 255), round(blue * 255)


def paint_hue(name: str, rng: np.random.Generator) -> float:
    """A hue in degrees for objects painted in `name`."""
    return float(rng.uniform(*_RANGES[name][1]) % 360)


def _name_pixels(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Index into COLOURS for each of n pixels, uint8 [n, 3]."""
    hsv = cv2.cvtColor(rgb.reshape(-1, 1, 3).astype(np.float32) / 255, cv2.COLOR_RGB2HSV).reshape(-1, 3)
    h, s, v = hsv[:, 0], hsv[:, 1], hsv[:, 2]
    conditions = [
        v < 0.25,
        (s < 0.13) & (v > 0.85),
        s < 0.17,
        (h >= 8) & (h < 45) & (v < 0.68),
        ((h >= 300) | (h < 8)) & (s < 0.55) & (v > 0.75),
        (h < 14) | (h >= 342),
        h < 39,
        h < 70,
        h < 170,
        h < 250,
        h < 310,
    ]
    names = ["black", "white", "grey", "brown", "pink", "red", "orange", "yellow", "green", "blue", "purple"]
    return np.select(conditions, [COLOURS.index(name) for name in names], COLOURS.index("pink"))


def dominant_colours(rgba: npt.NDArray[np.uint8], share: float = 0.52) -> tuple[str, ...]:
    """The colour that covers at least `share` of a picture [h, w, 4], and any other above 0.35."""
    solid = rgba[rgba[..., 3] > 200]
    if not len(solid):
        return ()
    shares = np.bincount(_name_pixels(solid[:, :3]), minlength=len(COLOURS)) / len(solid)
    order = np.argsort(-shares)
    return tuple(COLOURS[i] for i in order if shares[i] >= (share if i == order[0] else 0.35))[:2]


def colourful_share(rgba: npt.NDArray[np.uint8]) -> float:
    """The share of a picture [h, w, 4] that is neither grey, black nor white."""
    solid = np.ascontiguousarray(rgba[rgba[..., 3] > 200][:, :3])
    if not len(solid):
        return 0.0
    hsv = cv2.cvtColor(solid.reshape(-1, 1, 3), cv2.COLOR_RGB2HSV).reshape(-1, 3)
    return float(np.mean((hsv[:, 1] > 70) & (hsv[:, 2] > 60)))
