"""Make the demo: `python -m training.gallery` writes demo/gallery.zip, demo/texts.jsonl, demo/evaluation.zip.

The gallery shows every glyph at least once: three of four by the emoji font, the others by hands that training saw too.
Training and evaluation use other seeds.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.captions import Captioner
from training.evaluate import make_trial
from training.hands import HANDS
from training.palette import COLOURS
from training.render import Renderer
from training.scenes import Object, Scene, redraw, sample_scene
from training.sprites import LANGUAGES, Atlas, Drawing, load_atlas
from training.wide import load_wide_atlas
from training.wishes import LABELS, WISHES, Wish

DEMO = Path(__file__).parents[1] / "demo"
SIDE = 256
FIRST_SEED = 5_000_000
_TEXT_SEED = 7_000_000
_EVALUATION_SEED = 9_000_000
_STYLES = ("none",) * 14 + ("flat", "posterised", "contour", "outline", "tinted", "grey", "shadow", "bright")
_BACKGROUNDS = ("plain",) * 6 + ("gradient",) * 5 + ("dots", "stripes")
_EVERYDAY = frozenset({"animal", "building", "drink", "food", "music", "plant", "scenery", "transport"})
_HANDS = frozenset(hand.name for hand in HANDS if hand.is_emoji and not hand.is_held_out)  # beside the font's
_BY_OTHERS = 0.25  # of the objects
_FONT = "noto"
_FAINT = 7.5  # standard deviation of a picture's strongest channel: with less, its style leaves nothing to see
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip members carry a time; a fixed one keeps the file the same


@dataclass(frozen=True)
class Entry:
    """One picture of the gallery before it is drawn."""

    scene: Scene
    caption: str
    kind: str


def _tidy(scene: Scene, rng: np.random.Generator, *, styled: bool) -> Scene:
    """The scene with a background and a style that look good in a grid."""
    background, colour = scene.background, scene.colour
    if colour is None and rng.random() < 0.75:
        colour = str(rng.choice(COLOURS))
    if colour is not None:
        background = str(rng.choice(_BACKGROUNDS))
    elif background == "noise":
        background = "blobs"
    things = tuple(replace(thing, stretch=1.0, angle=thing.angle * 0.6) for thing in scene.objects)
    if len(things) == 1:
        things = (replace(things[0], size=max(0.6, min(0.86, things[0].size)), x=0.5, y=0.5),)
    style = str(rng.choice(_STYLES)) if styled else "none"
    return replace(scene, objects=things, background=background, colour=colour, style=style)


def _build_wish(wish: Wish, number: int, atlas: Atlas) -> Scene:
    where = {glyph.text.replace("\ufe0f", ""): i for i, glyph in enumerate(atlas.glyphs)}
    places = {
        1: ((0.5, 0.5, 0.78),),
        2: ((0.27, 0.52, 0.46), (0.73, 0.5, 0.46)),
        3: ((0.5, 0.27, 0.42), (0.27, 0.7, 0.42), (0.73, 0.7, 0.42)),
    }[len(wish.emoji)]
    if wish.upright:
        places = ((0.5, 0.27, 0.46), (0.5, 0.74, 0.46))
    things = tuple(
        Object(where[emoji], x, y, size, paint=paint)
        for emoji, paint, (x, y, size) in zip(wish.emoji, wish.paints, places, strict=True)
    )
    return Scene(FIRST_SEED + 500_000 + number, things, wish.background, wish.colour)


def choose(
    atlas: Atlas, drawings: Sequence[Sequence[Drawing]], pairs: int = 420, triples: int = 160
) -> Iterator[Entry]:
    """Wishes first, then every glyph alone, then pairs and triples. `drawings` are those of other hands, by glyph."""
    captioner = Captioner(atlas.glyphs)
    for number, wish in enumerate(WISHES):
        yield Entry(_build_wish(wish, number, atlas), wish.caption, "wish")
    order = [int(i) for i in np.random.default_rng(FIRST_SEED - 1).permutation(len(atlas))]
    plan = [(1, [index]) for index in order] + [(2, None)] * pairs + [(3, None)] * triples
    for number, (count, choices) in enumerate(plan):
        seed = FIRST_SEED + number
        rng = np.random.default_rng((seed, 5))
        scene = _tidy(sample_scene(seed, atlas.glyphs, count=count, choices=choices), rng, styled=True)
        scene = redraw(scene, drawings, np.random.default_rng((seed, 7)), _BY_OTHERS)
        yield Entry(scene, captioner.full(scene, "en", rng, plain=True).text, ("single", "pair", "triple")[count - 1])


def _row(name: str, entry: Entry, captioner: Captioner) -> dict[str, Any]:
    scene, glyphs = entry.scene, captioner.glyphs
    rng = np.random.default_rng((scene.seed, 6))
    return {
        "file": name,
        "id": Path(name).stem,
        "caption": entry.caption,
        "tags": captioner.tags(scene)[:16],
        "metadata": {
            "emoji": [glyphs[thing.glyph].text for thing in scene.objects],
            "caption_zh": captioner.full(scene, "zh", rng, plain=True).text,
            "objects": len(scene.objects),
            "style": scene.style,
            "background": scene.colour,
            "kind": entry.kind,
            "drawn_by": sorted({_FONT if thing.drawing is None else thing.drawing.hand for thing in scene.objects}),
            "topics": sorted({topic for thing in scene.objects for topic in glyphs[thing.glyph].topics["en"]}),
        },
    }


def _write(archive: zipfile.ZipFile, name: str, content: bytes, *, packed: bool = False) -> None:
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, compress_type=kind)


def _encode(pixels: np.ndarray[Any, np.dtype[np.uint8]], form: str, quality: int = 90) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, quality=quality, method=6)
    return out.getvalue()


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def order_members(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Names of files in the archive's order. The page lists the newest first, so clean, everyday pictures come last."""

    def rank(number: int) -> tuple[bool, bool, int]:
        said = rows[number]["metadata"]
        is_clean = said["style"] == "none" and said["objects"] < 3
        return is_clean, not _EVERYDAY.isdisjoint(said["topics"]), number * 7919 % len(rows)  # mixed within a rank

    return [rows[number]["file"] for number in sorted(range(len(rows)), key=rank)]


def write_gallery(atlas: Atlas, wide: Atlas, path: Path) -> int:
    """Draw the gallery into one zip; returns the number of its pictures. `wide` begins with the glyphs of `atlas`."""
    captioner, renderer, rows, pictures = Captioner(atlas.glyphs), Renderer(wide), [], {}
    drawings = [[drawing for drawing in own if drawing.hand in _HANDS] for own in wide.drawings[: len(atlas)]]
    for number, entry in enumerate(choose(atlas, drawings)):
        name, pixels = f"{number:04d}.webp", renderer.draw(entry.scene, SIDE)
        if pixels.std(axis=(0, 1)).max() < _FAINT:
            entry = replace(entry, scene=replace(entry.scene, style="none"))
            pixels = renderer.draw(entry.scene, SIDE)
        pictures[name] = _encode(pixels, "WEBP")
        rows.append(_row(name, entry, captioner))
    with zipfile.ZipFile(path, "w") as archive:
        for name in order_members(rows):
            _write(archive, name, pictures[name])
        _write(archive, "metadata.jsonl", _lines(rows), packed=True)
    return len(rows)


def texts(atlas: Atlas, scenes: int = 200) -> list[dict[str, Any]]:
    """The texts for naming pictures: labels of everyday things, then captions, in both languages."""
    captioner, rows, seen = Captioner(atlas.glyphs), list[dict[str, Any]](), set[str]()

    def add(text: str, language: str, kind: str) -> None:
        if text not in seen:
            seen.add(text)
            rows.append({"id": f"t{len(rows):04d}", "text": text, "metadata": {"language": language, "kind": kind}})

    where = {glyph.text.replace("\ufe0f", ""): glyph for glyph in atlas.glyphs}
    for emoji in LABELS:
        for language in LANGUAGES:
            add(where[emoji].names[language], language, "name")
    for seed in range(_TEXT_SEED, _TEXT_SEED + scenes):
        scene, rng = sample_scene(seed, atlas.glyphs, styled=0), np.random.default_rng((seed, 6))
        for language in LANGUAGES:
            add(captioner.full(scene, language, rng, plain=True).text, language, "caption")
    return rows


def write_evaluation(atlas: Atlas, path: Path, count: int = 300) -> None:
    """Draw scenes of the evaluation for the test suite, so that tests need no font."""
    trial = make_trial(atlas, count, _EVALUATION_SEED, larger=True)
    rows = []
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(trial.images):
            name = f"{i:03d}.webp"
            _write(archive, name, _encode(image, "WEBP"))
            rows.append({"file": name, **{language: trial.texts[language][i] for language in LANGUAGES}})
        _write(archive, "captions.jsonl", _lines(rows), packed=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEMO)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    atlas = load_atlas()
    count = write_gallery(atlas, load_wide_atlas(), folder / "gallery.zip")
    (folder / "texts.jsonl").write_bytes(_lines(texts(atlas)))
    write_evaluation(atlas, folder / "evaluation.zip")
    print(f"{count} pictures, {(folder / 'gallery.zip').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
