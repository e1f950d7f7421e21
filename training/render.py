"""Draws a scene: glyphs over a background, then a style. OpenCV throughout, well under a millisecond at 112."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from training import styles
from training.palette import COLOURS, draw_colour, paint_hue
from training.scenes import Object, Scene
from training.sprites import SIZE, Atlas

Pixels = npt.NDArray[np.uint8]


class Renderer:
    """Draws scenes of one atlas. It keeps the glyphs at three sizes, so that shrinking stays smooth."""

    def __init__(self, atlas: Atlas) -> None:
        self._levels = {SIZE: atlas.images}
        for side in (64, 32):
            small = np.empty((len(atlas.images), side, side, 4), np.uint8)
            for i, image in enumerate(self._levels[side * 2]):
                small[i] = cv2.resize(np.asarray(image), (side, side), interpolation=cv2.INTER_AREA)
            self._levels[side] = small

    def draw(self, scene: Scene, side: int = 112) -> Pixels:
        """uint8 [side, side, 3], RGB. The same scene and side give the same pixels."""
        rng = np.random.default_rng((scene.seed, 1))
        canvas = _draw_background(scene, side, rng)
        for thing in scene.objects:
            self._place(canvas, thing, rng)
        return styles.apply(scene.style, canvas, rng)

    def _place(self, canvas: Pixels, thing: Object, rng: np.random.Generator) -> None:
        side = canvas.shape[0]
        wanted = thing.size * side
        level = next((k for k in (32, 64) if k >= wanted), SIZE)
        sprite = np.asarray(self._levels[level][thing.glyph if thing.drawing is None else thing.drawing.row])
        if thing.paint is not None:
            is_ink = thing.drawing is not None and thing.drawing.ink
            sprite = _fill(sprite, thing.paint, rng) if is_ink else _paint(sprite, paint_hue(thing.paint, rng))
        wide = wanted / level * np.sqrt(thing.stretch) * (-1 if thing.flip else 1)
        high = wanted / level / np.sqrt(thing.stretch)
        cos, sin = np.cos(np.radians(thing.angle)), np.sin(np.radians(thing.angle))
        matrix = np.array([[cos * wide, -sin * high, 0.0], [sin * wide, cos * high, 0.0]])
        half = (level - 1) / 2
        reach = int(np.ceil(wanted * 0.75)) + 2
        left, top = max(0, int(thing.x * side) - reach), max(0, int(thing.y * side) - reach)
        right, bottom = min(side, int(thing.x * side) + reach), min(side, int(thing.y * side) + reach)
        matrix[:, 2] = (thing.x * side - left, thing.y * side - top) - matrix[:, :2] @ (half, half)
        patch = cv2.warpAffine(sprite, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
        region = canvas[top:bottom, left:right]
        keep = cv2.merge([cv2.bitwise_not(patch[..., 3])] * 3)
        cv2.add(cv2.multiply(region, keep, scale=1 / 255), patch[..., :3], dst=region)


def _paint(sprite: Pixels, hue: float) -> Pixels:
    """The sprite with its colourful parts in one hue; greys stay grey."""
    hsv = cv2.cvtColor(np.ascontiguousarray(sprite[..., :3]), cv2.COLOR_RGB2HSV).astype(np.uint8)
    hsv[..., 0] = round(hue / 2) % 180
    if 320 < hue < 350:  # pink is a pale hue
        hsv[..., 1] //= 2
    out = sprite.copy()
    out[..., :3] = np.minimum(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), sprite[..., 3:])
    return out


def _fill(sprite: Pixels, colour: str, rng: np.random.Generator) -> Pixels:
    """A drawing in one ink, in a shade of `colour`."""
    out = sprite.copy()
    out[..., :3] = sprite[..., 3:].astype(np.uint16) * np.array(draw_colour(colour, rng), np.uint16) // 255
    return out


def _draw_background(scene: Scene, side: int, rng: np.random.Generator) -> Pixels:
    colour = scene.colour or str(rng.choice(COLOURS))
    first, second = draw_colour(colour, rng), draw_colour(colour, rng)
    return _BACKGROUNDS[scene.background](side, np.array(first, np.float32), np.array(second, np.float32), rng)


def _plain(
    side: int, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    return np.full((side, side, 3), first, np.uint8)


def _mix(part: npt.NDArray[np.float32], first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> Pixels:
    """From `first` where `part` [h, w] is 0 to `second` where it is 1."""
    out: Pixels = (first + part[..., None] * (second - first)).clip(0, 255).astype(np.uint8)
    return out


def _gradient(
    side: int, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    corners = rng.random((2, 2)).astype(np.float32)
    shade = second + np.float32(rng.choice([-1, 1])) * 22
    part = cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return _mix(part, first, shade)


def _stripes(
    side: int, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    angle, count = rng.uniform(0, np.pi), rng.uniform(4, 14)
    line = np.arange(side, dtype=np.float32) / side * count
    wave = np.cos(angle) * line[None, :] + np.sin(angle) * line[:, None]
    return _mix((wave % 1 < 0.5).astype(np.float32), first, _nearby(first, rng))


def _dots(
    side: int, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    line = (np.arange(side, dtype=np.float32) / side * rng.uniform(5, 12)) % 1 - 0.5
    near = line[None, :] ** 2 + line[:, None] ** 2 < rng.uniform(0.03, 0.12)
    return _mix(near.astype(np.float32), first, _nearby(first, rng))


def _nearby(colour: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    step = rng.uniform(14, 34) * (1 if colour.mean() < 128 else -1)
    return (colour + np.float32(step)).clip(0, 255)


def _grain(
    side: int, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    return _mix(rng.random((side, side), dtype=np.float32), first, _nearby(first, rng))


def _blobs(
    side: int, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    """Smooth patches of several colours, a little like a photograph out of focus."""
    cells = int(rng.integers(2, 7))
    coarse = rng.integers(20, 256, (cells, cells, 3)).astype(np.uint8)
    pale = np.float32(rng.uniform(0.35, 1.0))
    coarse = (255 - (255 - coarse) * pale).astype(np.uint8) if rng.random() < 0.5 else (coarse * pale).astype(np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def _mixture(
    side: int, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    other = np.array(draw_colour(str(rng.choice(COLOURS)), rng), np.float32)
    cells = int(rng.integers(2, 9))
    part = rng.random((cells, cells), dtype=np.float32)
    way = cv2.INTER_NEAREST if rng.random() < 0.4 else cv2.INTER_LINEAR
    return _mix(cv2.resize(part, (side, side), interpolation=way).astype(np.float32), first, other)


def _noise(
    side: int, first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    cells = int(rng.choice([14, 28, 56, 112]))
    coarse = rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
    base = np.full((side, side, 3), first, np.uint8)
    share = float(rng.uniform(0.15, 0.5))
    return cv2.addWeighted(base, 1 - share, cv2.resize(coarse, (side, side)), share, 0).astype(np.uint8)


_BACKGROUNDS: dict[
    str, Callable[[int, npt.NDArray[np.float32], npt.NDArray[np.float32], np.random.Generator], Pixels]
] = {
    "plain": _plain,
    "gradient": _gradient,
    "stripes": _stripes,
    "dots": _dots,
    "grain": _grain,
    "blobs": _blobs,
    "mixture": _mixture,
    "noise": _noise,
}
