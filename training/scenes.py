"""What a picture contains, before it is drawn or described: objects, their places, background, style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.palette import COLOURS, PAINTS
from training.sprites import Drawing, Glyph

# Kinds of background; the named ones have a colour that a caption may mention.
NAMED_BACKGROUNDS = ("plain", "gradient", "stripes", "dots", "grain")
OTHER_BACKGROUNDS = ("blobs", "mixture", "noise")
# Styles seen in training; "none" is the font as it is.
STYLES = (
    "none",
    "posterised",
    "outline",
    "contour",
    "grey",
    "blur",
    "coarse",
    "jpeg",
    "faded",
    "inverted",
    "tinted",
    "grainy",
    "flat",
    "shadow",
    "bright",
    "silhouette",
)
# More styles without colour, for training only.
INKS = ("stippled", "hatched", "chalk")
# Styles kept for evaluation: never drawn in training.
HELD_OUT_STYLES = ("halftone", "mosaic", "pencil")
COLOURLESS = frozenset({"outline", "contour", "grey", "inverted", "tinted", "silhouette", *INKS, *HELD_OUT_STYLES})


@dataclass(frozen=True)
class Object:
    """One glyph in a scene. Places and sizes are in parts of the picture's side, angles in degrees."""

    glyph: int
    x: float
    y: float
    size: float
    angle: float = 0.0
    flip: bool = False
    paint: str | None = None  # the colour it is painted in, when not its own
    stretch: float = 1.0  # width over height
    drawing: Drawing | None = None  # None: as the glyph's first hand draws it


@dataclass(frozen=True)
class Scene:
    """One to three objects on a background; `seed` decides every remaining detail of the drawing."""

    seed: int
    objects: tuple[Object, ...]
    background: str
    colour: str | None  # of the background, when it has a name
    style: str = "none"

    @property
    def colourful(self) -> bool:
        """Whether colours survive the style, so that captions may name them."""
        return COLOURLESS.isdisjoint(self.style.split("+"))


def sample_scene(
    seed: int,
    glyphs: Sequence[Glyph],
    *,
    styled: float = 0.4,
    count: int | None = None,
    choices: Sequence[int] | None = None,
) -> Scene:
    """The scene of a seed. `styled` is the share drawn in another style than the font's own,
    `count` fixes the number of objects, `choices` limits the glyphs (indices)."""
    rng = np.random.default_rng(seed)
    if count is None:
        count = int(rng.choice([1, 2, 3], p=[0.42, 0.36, 0.22]))
    pool = len(glyphs) if choices is None else len(choices)
    picked = [int(i) for i in rng.choice(pool, size=count, replace=False)]
    if choices is not None:
        picked = [choices[i] for i in picked]
    places = _places(rng, count)
    style = str(rng.choice(STYLES[1:])) if rng.random() < styled else "none"
    background, colour = _background(rng)
    objects = tuple(_object(rng, glyph, glyphs[glyph], place) for glyph, place in zip(picked, places, strict=True))
    return Scene(seed, _readable(objects, glyphs, colour, rng), background, colour, style)


def vary_scene(scene: Scene, seed: int, glyphs: Sequence[Glyph]) -> Scene:
    """A sibling that differs in one thing that a caption can say: order, background or one object."""
    rng = np.random.default_rng(seed)
    objects, background, colour = list(scene.objects), scene.background, scene.colour
    kind = rng.random()
    if kind < 0.45 and len(objects) > 1:
        i, j = (int(k) for k in rng.choice(len(objects), 2, replace=False))
        first, second = objects[i], objects[j]
        objects[i] = replace(first, x=second.x, y=second.y)
        objects[j] = replace(second, x=first.x, y=first.y)
    elif kind < 0.7:
        background, colour = _background(rng)
    else:
        i = int(rng.integers(len(objects)))
        free = sorted(set(_neighbours(objects[i].glyph, glyphs)) - {o.glyph for o in objects})
        if free:
            objects[i] = replace(objects[i], glyph=int(rng.choice(free)), paint=None, flip=False, drawing=None)
    return Scene(seed, _readable(tuple(objects), glyphs, colour, rng), background, colour, scene.style)


def _neighbours(glyph: int, glyphs: Sequence[Glyph], reach: int = 12) -> range:
    return range(max(0, glyph - reach), min(len(glyphs), glyph + reach + 1))


def _background(rng: np.random.Generator) -> tuple[str, str | None]:
    if rng.random() < 0.2:
        return "plain", "white"
    if rng.random() < 0.72:
        kind = str(rng.choice(NAMED_BACKGROUNDS, p=[0.45, 0.2, 0.12, 0.11, 0.12]))
        return kind, str(rng.choice(COLOURS))
    return str(rng.choice(OTHER_BACKGROUNDS)), None


def _places(rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """(x, y, size) for each object. Objects may touch, but none hides another."""
    if count == 1:
        size = float(rng.uniform(0.4, 0.98))
        room = max(0.0, 0.5 - size / 2) + 0.05
        x, y = 0.5 + rng.uniform(-room, room, 2)
        return [(float(x), float(y), size)]
    if count == 2:
        angle = float(rng.choice([0.0, 90.0, 180.0, 270.0]) + rng.uniform(-28, 28))
        middles = [(np.cos(np.radians(a)), np.sin(np.radians(a))) for a in (angle, angle + 180)]
        reach, sizes = 0.245, rng.uniform(0.36, 0.54, 2)
    else:
        turn = float(rng.uniform(0, 360))
        if rng.random() < 0.4:  # a row or a column
            line = float(rng.choice([0.0, 90.0])) + rng.uniform(-8, 8)
            step = (np.cos(np.radians(line)) * 1.15, np.sin(np.radians(line)) * 1.15)
            middles = [(k * step[0], k * step[1]) for k in (-1, 0, 1)]
            sizes = rng.uniform(0.29, 0.36, 3)
        else:
            middles = [(np.cos(np.radians(turn + k * 120)), np.sin(np.radians(turn + k * 120))) for k in range(3)]
            sizes = rng.uniform(0.33, 0.45, 3)
        reach = 0.275
    return [
        (
            0.5 + reach * float(x) + float(rng.uniform(-0.02, 0.02)),
            0.5 + reach * float(y) + float(rng.uniform(-0.02, 0.02)),
            float(size),
        )
        for (x, y), size in zip(middles, sizes, strict=True)
    ]


def _object(rng: np.random.Generator, index: int, glyph: Glyph, place: tuple[float, float, float]) -> Object:
    x, y, size = place
    turned = glyph.group not in ("arrow", "math", "alphanum") and rng.random() < 0.5
    return Object(
        glyph=index,
        x=x,
        y=y,
        size=size,
        angle=float(rng.uniform(-25, 25)) if turned else float(rng.uniform(-4, 4)),
        flip=glyph.mirrored and rng.random() < 0.4,
        paint=str(rng.choice(PAINTS)) if glyph.paintable and rng.random() < 0.22 else None,
        stretch=float(np.exp(rng.normal(0, 0.08))) if rng.random() < 0.5 else 1.0,
    )


def _readable(
    objects: tuple[Object, ...], glyphs: Sequence[Glyph], colour: str | None, rng: np.random.Generator
) -> tuple[Object, ...]:
    """Repaint objects so that none has the colour of the background."""
    out = []
    for thing in objects:
        own = thing.paint or (glyphs[thing.glyph].colours or (None,))[0]
        if colour is not None and own == colour and glyphs[thing.glyph].paintable:
            thing = replace(thing, paint=str(rng.choice([p for p in PAINTS if p != colour])) if thing.paint else None)
        out.append(thing)
    return tuple(out)


# Inks that are hard to see on a ground of the same group.
_PALE, _DARK = frozenset({"white", "yellow", "pink"}), frozenset({"black", "brown", "purple", "blue", "grey"})


def redraw(scene: Scene, drawings: Sequence[Sequence[Drawing]], rng: np.random.Generator, share: float) -> Scene:
    """The scene with each object by another hand, by a chance of `share`; `drawings` are those of each glyph."""
    objects = []
    for thing in scene.objects:
        options = drawings[thing.glyph]
        if options and rng.random() < share:
            thing = _by_hand(thing, options[int(rng.integers(len(options)))], scene.colour, rng)
        objects.append(thing)
    return replace(scene, objects=tuple(objects))


def _by_hand(thing: Object, drawing: Drawing, ground: str | None, rng: np.random.Generator) -> Object:
    if drawing.ink:
        near = next((group for group in (_PALE, _DARK) if ground in group), frozenset({ground}))
        inks = [colour for colour in COLOURS if colour not in near]
        paint: str | None = "black" if "black" in inks and rng.random() < 0.5 else str(rng.choice(inks))
    else:
        paint = thing.paint if drawing.paintable else None
    return replace(thing, drawing=drawing, paint=paint)
