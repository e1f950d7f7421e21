"""Drawings of the same things by other hands: sets of emoji and icons in Iconify's format, from npm packages.

`npm install --ignore-scripts` in this folder fetches the packages that package.json names; nothing else needs a
network.
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.sprites import SIZE, Glyph, Pixels, centre

PACKAGES = Path(__file__).parent / "node_modules"
_LARGE = SIZE * 5 // 4  # pixels a side that an SVG is drawn at before it is cut and shrunk


@dataclass(frozen=True)
class Hand:
    """One set of drawings: its package below @iconify-json, and its licence as that package says."""

    name: str
    licence: str
    is_emoji: bool
    is_held_out: bool = False  # for evaluation only


HANDS = (
    Hand("fluent-emoji", "MIT", is_emoji=True),
    Hand("fluent-emoji-flat", "MIT", is_emoji=True),
    Hand("fluent-emoji-high-contrast", "MIT", is_emoji=True),
    Hand("twemoji", "CC-BY-4.0", is_emoji=True),
    Hand("noto-v1", "Apache-2.0", is_emoji=True),
    Hand("fxemoji", "Apache-2.0", is_emoji=True),
    Hand("streamline-emojis", "CC-BY-4.0", is_emoji=True),
    Hand("openmoji", "CC-BY-SA-4.0", is_emoji=True, is_held_out=True),
    Hand("emojione", "CC-BY-4.0", is_emoji=True, is_held_out=True),
    Hand("emojione-monotone", "CC-BY-4.0", is_emoji=True, is_held_out=True),
    Hand("flat-color-icons", "MIT", is_emoji=False),
    Hand("streamline-freehand-color", "CC-BY-4.0", is_emoji=False),
    Hand("icon-park", "Apache-2.0", is_emoji=False),
    Hand("ph", "MIT", is_emoji=False),
    Hand("tabler", "MIT", is_emoji=False),
    Hand("lucide", "ISC", is_emoji=False),
    Hand("material-symbols", "Apache-2.0", is_emoji=False),
    Hand("mdi", "Apache-2.0", is_emoji=False),
    Hand("game-icons", "CC-BY-3.0", is_emoji=False),
    Hand("healthicons", "MIT", is_emoji=False),
    Hand("iconoir", "MIT", is_emoji=False),
    Hand("hugeicons", "MIT", is_emoji=False),
    Hand("carbon", "Apache-2.0", is_emoji=False),
    Hand("fa6-solid", "CC-BY-4.0", is_emoji=False),
    Hand("maki", "CC0-1.0", is_emoji=False),
    Hand("bi", "MIT", is_emoji=False),
)


@dataclass(frozen=True)
class IconSet:
    """A set as its package holds it: SVG bodies with their view boxes, other names for them, and code points."""

    name: str
    licence: str
    bodies: Mapping[str, str]  # name -> a whole SVG document
    aliases: Mapping[str, str]  # another name -> name
    characters: Mapping[str, str]  # emoji without U+FE0F -> name


def read_set(folder: Path) -> IconSet:
    """Read an Iconify package (icons.json, info.json and, where there is one, chars.json)."""
    table = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    path = folder / "chars.json"
    characters = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return IconSet(
        name=table["prefix"],
        licence=info["license"]["spdx"],
        bodies={name: _document(icon, table) for name, icon in table["icons"].items()},
        aliases={name: row["parent"] for name, row in table.get("aliases", {}).items() if len(row) == 1},
        characters={_character(code): name for code, name in characters.items()},
    )


def _document(icon: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    left, top, width, height = (
        icon.get(key, table.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def _character(codes: str) -> str:
    return "".join(chr(int(code, 16)) for code in codes.split("-")).replace("\ufe0f", "")


def draw_svg(document: str) -> Pixels | None:
    """An SVG as a drawing like the font's, uint8 [128, 128, 4] premultiplied; None when nothing shows."""
    import resvg_py  # here, so that all else works where it is not installed

    coded = resvg_py.svg_to_bytes(svg_string=document, width=_LARGE, height=_LARGE, skip_system_fonts=True)
    picture = Image.open(io.BytesIO(coded)).convert("RGBA")
    box = picture.getchannel("A").getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < _LARGE // 8:
        return None
    return centre(np.asarray(picture.crop(box)))


def is_ink(picture: Pixels) -> bool:
    """Whether a drawing is in one black ink, so that any colour may stand for it."""
    return bool(picture[..., :3].max() < 8)


def slug(name: str) -> str:
    """ "Face with tears of joy" as packages write it: "face-with-tears-of-joy"."""
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "")).strip("-")


def find_emoji(icons: IconSet, glyphs: Sequence[Glyph], known: Mapping[str, str]) -> dict[int, str]:
    """Glyph -> SVG of its drawing in a set of emoji. `known` gives names -> emoji, as other sets have them."""
    where = {glyph.text.replace("\ufe0f", ""): i for i, glyph in enumerate(glyphs) if glyph.text}
    named = {slug(glyph.names["en"]): i for i, glyph in enumerate(glyphs)}
    squashed = {_squash(text): i for text, i in where.items() if len(text) == 1}
    out: dict[int, str] = {}
    for character, name in icons.characters.items():
        if character in where and name in icons.bodies:
            out.setdefault(where[character], icons.bodies[name])
    for name in (*icons.bodies, *icons.aliases):
        body = icons.bodies.get(icons.aliases.get(name, name))
        bare = re.sub(r"-1$", "", name)  # where a set has an emoji more than once, it numbers them
        found = named.get(bare, where.get(known.get(bare, "")))
        found = squashed.get(bare.replace("-", "")) if found is None and icons.name == "fxemoji" else found
        if body is not None and found is not None:
            out.setdefault(found, body)
    return out


def _squash(character: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unicodedata.name(character, "").lower())


def known_names(sets: Iterable[IconSet]) -> dict[str, str]:
    """Names and other names -> emoji, from all sets that tell the code points of theirs."""
    out: dict[str, str] = {}
    for icons in sets:
        own = {name: character for character, name in icons.characters.items()}
        out |= own | {alias: own[name] for alias, name in icons.aliases.items() if name in own}
    return out
