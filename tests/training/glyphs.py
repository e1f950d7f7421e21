"""A handful of made-up glyphs, so that most tests need no font."""

from __future__ import annotations

import numpy as np

from training.sprites import SIZE, Atlas, Glyph


def make_glyph(
    en: str,
    zh: str,
    *,
    words: tuple[str, ...] = (),
    colours: tuple[str, ...] = (),
    paintable: bool = True,
    group: str = "animal-mammal",
) -> Glyph:
    return Glyph(
        text=en[0],
        names={"en": en, "zh": zh},
        words={"en": words, "zh": ()},
        topics={"en": ("thing",), "zh": ("东西",)},
        colours=colours,
        paintable=paintable,
        mirrored=True,
        group=group,
    )


GLYPHS = (
    make_glyph("cat", "猫", words=("pet",)),
    make_glyph("dog", "狗", words=("pet",)),
    make_glyph("automobile", "汽车", words=("car",), colours=("red",)),
    make_glyph("birthday cake", "生日蛋糕", words=("cake", "birthday"), colours=("pink",)),
    make_glyph("owl", "猫头鹰"),
    make_glyph("up arrow", "向上箭头", group="arrow", paintable=False),
    make_glyph("grapes", "葡萄", colours=("purple",)),
    make_glyph("heart", "心", colours=("red",), paintable=False),
)


def make_atlas() -> Atlas:
    """Discs of different sizes and colours in place of glyphs."""
    ys, xs = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    images = np.zeros((len(GLYPHS), SIZE, SIZE, 4), np.uint8)
    for i in range(len(GLYPHS)):
        inside = np.hypot(xs, ys) < 30 + 4 * i
        images[i][inside] = (200, 20 + 20 * i, 30, 255)
    return Atlas(GLYPHS, images)
