"""Draw small pictures."""

from __future__ import annotations

import io
import random

from PIL import Image, ImageDraw

from app.encoder.dummy import PALETTE

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 150, 50),
    "blue": (30, 60, 220),
    "yellow": (245, 225, 40),
    "purple": (130, 40, 170),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}


def picture(colour: str = "red", seed: int = 0, size: tuple[int, int] = (64, 48), format: str = "PNG") -> bytes:
    """A picture of one colour with a few dots; each seed gives other bytes."""
    image = Image.new("RGB", size, COLOURS[colour])
    draw = ImageDraw.Draw(image)
    dice = random.Random(seed)
    for _ in range(4):
        x, y = dice.randrange(size[0]), dice.randrange(size[1])
        draw.point((x, y), fill=(dice.randrange(256), dice.randrange(256), dice.randrange(256)))
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


def draw_two(size: tuple[int, int] = (240, 240)) -> bytes:
    """Red on the upper left, blue on the lower right, of stripes in other colours."""
    (width, height), image = size, Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    others = [colour for names, colour in PALETTE.items() if not {"red", "blue"} & {*names}]
    for n in range(width // 8 + 1):
        draw.rectangle((8 * n, 0, 8 * n + 8, height), fill=others[n % len(others)])
    draw.rectangle((0, 0, width * 2 // 5, height * 2 // 5), fill=(220, 30, 30))
    draw.rectangle((width * 3 // 5, height * 3 // 5, width, height), fill=(30, 60, 220))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
