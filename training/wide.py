"""The wide atlas: the glyphs of the emoji font and further things, each as several hands draw it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from training.hands import HANDS, PACKAGES, IconSet, draw_svg, find_emoji, is_ink, known_names, read_set
from training.palette import colourful_share, dominant_colours
from training.sprites import (
    SIZE,
    WORK,
    Atlas,
    Drawing,
    Glyph,
    Pixels,
    centre,
    glyph_from_row,
    load_atlas,
    require_installed,
)
from training.things import CLIP_ART, chinese_names, group_icons, list_clip_art, read_nouns

_SETS_NEEDED = 2  # of icons, that name a thing alike: a name in one set alone often means something else
_CLIPS = 6  # of one thing
_LARGEST = 4_000_000  # pixels of a picture of clip art

Draw = Callable[[], Pixels | None]


def load_sets(names: Sequence[str]) -> dict[str, IconSet]:
    require_installed(PACKAGES, "npm install --ignore-scripts --no-package-lock --prefix training")
    return {name: read_set(PACKAGES / "@iconify-json" / name) for name in names}


def find_hand(name: str, glyphs: Sequence[Glyph]) -> dict[int, str]:
    """Glyph -> SVG, of the emoji set `name`; every set with code points helps to tell what its names mean."""
    sets = load_sets(sorted({name, "noto", "twemoji", "openmoji", "fluent-emoji-flat"}))
    return find_emoji(sets[name], glyphs, known_names(sets.values()))


def _things(icons: dict[str, list[tuple[str, str]]], taken: set[str]) -> Iterator[Glyph]:
    """A glyph for each thing that several sets of icons name alike and WordNet knows."""
    nouns, chinese = read_nouns(), chinese_names()
    for name in sorted(icons):
        noun = nouns.get(name)
        if noun is None or name in taken or len(name) < 3 or len({hand for hand, _ in icons[name]}) < _SETS_NEEDED:
            continue
        yield Glyph(
            text="",
            names={"en": name, "zh": chinese.get(name, name)},
            words={"en": noun.synonyms, "zh": ()},
            topics=noun.topics,
            colours=(),
            paintable=False,
            mirrored=True,
            group="thing",
        )


def _draw_clip(path: Path) -> Pixels | None:
    """A picture of clip art; None where nothing shows or where it is larger than any drawing need be."""
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > _LARGEST:
                return None
            picture = opened.convert("RGBA")
    except Image.DecompressionBombError:
        return None
    box = picture.getchannel("A").getbbox()
    return None if box is None else centre(np.asarray(picture.crop(box)))


def _list_drawings(glyphs: Sequence[Glyph], icons: dict[str, list[tuple[str, str]]]) -> Iterator[tuple[int, str, Draw]]:
    """(glyph, hand, how to draw it) of all hands that training may see."""
    for hand in HANDS:
        if hand.is_emoji and not hand.is_held_out:
            for index, body in find_hand(hand.name, glyphs).items():
                yield index, hand.name, partial(draw_svg, body)
    known = {glyph.names["en"]: i for i, glyph in enumerate(glyphs)}
    for name, bodies in icons.items():
        for hand_name, body in bodies if name in known else ():
            yield known[name], hand_name, partial(draw_svg, body)
    counts = defaultdict[int, int](int)
    for index, path in list_clip_art(known) if CLIP_ART.exists() else ():
        counts[index] += 1
        if counts[index] <= _CLIPS:
            yield index, "openclipart", partial(_draw_clip, path)


def _drawing(row: int, picture: Pixels, hand: str) -> Drawing:
    ink = is_ink(picture)
    colours = ("black",) if ink else dominant_colours(picture)
    return Drawing(row, colours, paintable=not ink and colourful_share(picture) > 0.6, ink=ink, hand=hand)


def build_wide_atlas(base: Atlas) -> Atlas:
    """Draw everything; takes some minutes."""
    sets = load_sets([hand.name for hand in HANDS if not hand.is_emoji])
    icons = group_icons((name, icons.bodies) for name, icons in sets.items())
    glyphs = (*base.glyphs, *_things(icons, {glyph.names["en"] for glyph in base.glyphs}))
    images = [*base.images, *[np.zeros((SIZE, SIZE, 4), np.uint8)] * (len(glyphs) - len(base))]
    drawings = [list[Drawing]() for _ in glyphs]
    for index, hand, draw in _list_drawings(glyphs, icons):
        picture = draw()
        if picture is None:
            continue
        drawings[index].append(_drawing(len(images), picture, hand))
        if index >= len(base) and len(drawings[index]) == 1:
            images[index] = picture
        images.append(picture)
    return Atlas(glyphs, np.stack(images), tuple(tuple(row) for row in drawings))


def load_wide_atlas(folder: Path = WORK) -> Atlas:
    """The wide atlas; built once and saved in `folder` (wide.npy, wide.json)."""
    pictures, table = folder / "wide.npy", folder / "wide.json"
    if not (pictures.exists() and table.exists()):
        atlas = build_wide_atlas(load_atlas(folder))
        np.save(pictures, atlas.images)
        rows = [
            [asdict(glyph), [asdict(d) for d in own]] for glyph, own in zip(atlas.glyphs, atlas.drawings, strict=True)
        ]
        table.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    rows = json.loads(table.read_text(encoding="utf-8"))
    drawings = tuple(tuple(Drawing(**{**d, "colours": tuple(d["colours"])}) for d in own) for _, own in rows)
    return Atlas(tuple(glyph_from_row(row) for row, _ in rows), np.load(pictures, mmap_mode="r"), drawings)
