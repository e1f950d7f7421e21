"""The stamps of Tux Paint, a drawing program for children: photographs and drawings with their own descriptions.

Only the evaluation sees them (Debian's tuxpaint-stamps-default): hands, photographs and words that training never used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from training.hands import draw_svg
from training.sprites import Pixels, on_paper

STAMPS = Path("/usr/share/tuxpaint/stamps")
_SIDE = 224
_NO_PICTURES = ("symbols",)  # letters, digits, coins and notes


@dataclass(frozen=True)
class Stamp:
    """One stamp: "photographs" or "drawings", what it shows in English and Chinese, and how to draw it."""

    kind: str
    texts: dict[str, str]
    draw: Callable[[], Pixels | None]


def read_description(path: Path) -> dict[str, str]:
    """The English and the Chinese line of a stamp's description; empty where one is missing."""
    first, *others = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    chinese = next((line.split("=", 1)[1] for line in others if line.startswith("zh_CN.utf8=")), "")
    has_chinese = any("\u4e00" <= character <= "\u9fff" for character in chinese)
    return {"en": first.strip(" .!–-"), "zh": chinese.strip(" 。.!–-")} if first and has_chinese else {}


def list_stamps(folder: Path = STAMPS) -> list[Stamp]:
    """The stamps whose description, in either language, no other stamp has."""
    out: list[Stamp] = []
    seen: set[str] = set()
    for path in sorted(folder.rglob("*.txt")):
        texts = read_description(path)
        drawing = next((p for p in (path.with_suffix(".svg"), path.with_suffix(".png")) if p.exists()), None)
        part = path.relative_to(folder).parts
        if not texts or drawing is None or part[0] in _NO_PICTURES or not seen.isdisjoint(texts.values()):
            continue
        seen |= set(texts.values())
        kind = "drawings" if drawing.suffix == ".svg" or "cartoon" in part else "photographs"
        out.append(Stamp(kind, texts, partial(_draw, drawing)))
    return out


def _draw(path: Path) -> Pixels | None:
    """uint8 [224, 224, 3], over white; None for an SVG that gives itself no size."""
    if path.suffix == ".svg":
        try:
            drawing = draw_svg(path.read_text(encoding="utf-8"))
        except ValueError:
            return None
        return None if drawing is None else on_paper(drawing)
    with Image.open(path) as opened:
        picture = ImageOps.pad(opened.convert("RGBA"), (_SIDE, _SIDE), color=(0, 0, 0, 0))
    paper = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(paper, picture).convert("RGB"))
