"""Draw words on pictures, for what reads them."""

from __future__ import annotations

import io
import subprocess
from functools import cache

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
PAPER = (244, 240, 228)
CHINESE = ":lang=zh-cn"  # of fontconfig


def printed(
    *lines: str, size: int = 32, at: tuple[int, int] = (40, 40), font: str | None = None, turn: float = 0.0
) -> bytes:
    """A PNG of 640 × 360 with the lines below one another, dark on light, turned by so many degrees.

    `font` is a file; the default one has Latin letters.
    """
    image = Image.new("RGB", (640, 360), PAPER)
    draw = ImageDraw.Draw(image)
    used: Font = ImageFont.load_default(size) if font is None else ImageFont.truetype(font, size)
    for n, line in enumerate(lines):
        draw.text((at[0], at[1] + n * size * 2), line, fill=(20, 24, 40), font=used)
    out = io.BytesIO()
    image = image.rotate(turn, Image.Resampling.BICUBIC, fillcolor=PAPER)
    image.save(out, "PNG")
    return out.getvalue()


@cache
def find_font(pattern: str) -> str | None:
    """The file of a font that fontconfig lists for this pattern; None where there is none."""
    try:
        listed = subprocess.run(["fc-list", pattern, "file"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return None
    files = sorted(line.strip().rstrip(":") for line in listed.splitlines() if line.strip())
    return next((file for file in files if "Regular" in file), files[0] if files else None)
