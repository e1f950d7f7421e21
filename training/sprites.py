"""Emoji glyphs of Noto Color Emoji as pictures, with their names and keywords from Unicode CLDR."""

from __future__ import annotations

import json
import os
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from training.palette import COLOURS, colourful_share, dominant_colours
from training.topics import TOPICS

Pixels = npt.NDArray[np.uint8]

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SYMBOLA = Path("/usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf")
CLDR = Path("/usr/share/unicode/cldr/common")
EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")
WORK = Path(os.environ.get("TRAINING_WORK") or Path(__file__).parent / "work")
PACKAGES_OF_DEBIAN = "apt-get install fonts-noto-color-emoji unicode-cldr-core unicode-data"
SIZE = 128
FONT_PIXELS = 109  # the only size of the font's bitmaps
LANGUAGES = ("en", "zh")

# Classes whose pictures differ in a detail that 112 pixels do not show; the atlas keeps one of each family.
_THINNED = set(
    "🕑🕒🕓🕔🕕🕖🕗🕘🕙🕚🕛🕜🕝🕞🕟🕠🕡🕢🕣🕤🕥🕦🕧🌒🌔🌖🌗🌘🌜🈁🈂🈷🈶🈯🉐🈹🈚🈲🉑🈸🈴🈳㊗㊙🈺🈵🔈🔉📪📫📬🔄📥📤⏮⏪⏬⏫🔼🔽🔂🔁"
)
_MARKS = re.compile("[\u2640\u2642\U0001f3fb-\U0001f3ff]")
_GENDERED = re.compile("^[\U0001f468\U0001f469]\u200d")  # 👨‍🚀 and 👩‍🚀: 🧑‍🚀 stands for both
_COLOUR_WORDS = re.compile(r"\b(" + "|".join(COLOURS) + r"|gold|golden|silver|dark|light)\b")


@dataclass(frozen=True)
class Glyph:
    """One emoji: its names, and the changes that keep its name true."""

    text: str
    names: dict[str, str]
    words: dict[str, tuple[str, ...]]
    topics: dict[str, tuple[str, ...]]
    colours: tuple[str, ...]  # English names of the colours that cover most of it
    paintable: bool  # may be given another colour
    mirrored: bool  # may be flipped left to right
    group: str = field(default="")


@dataclass(frozen=True)
class Drawing:
    """A glyph as another hand draws it."""

    row: int  # of the atlas' images
    colours: tuple[str, ...]  # as a glyph's
    paintable: bool
    ink: bool  # black alone, so that any colour may stand for it
    hand: str


@dataclass(frozen=True)
class Atlas:
    """Glyphs and their pictures, uint8 [rows, 128, 128, 4], RGBA with premultiplied alpha.

    Row i is glyph i as its first hand draws it; `drawings[i]` are the glyph's other ones, in the rows behind."""

    glyphs: tuple[Glyph, ...]
    images: Pixels
    drawings: tuple[tuple[Drawing, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.glyphs)


def _list_emoji() -> Iterator[tuple[str, str, str]]:
    """Fully qualified emoji of emoji-test.txt as (text, group, subgroup), in its order."""
    group = subgroup = ""
    for line in EMOJI_TEST.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif "; fully-qualified" in line:
            yield "".join(chr(int(c, 16)) for c in line.split(";")[0].split()), group, subgroup


def _is_included(text: str, group: str, subgroup: str) -> bool:
    bare = text.replace("\ufe0f", "")
    if group == "Component" or subgroup in ("country-flag", "subdivision-flag", "keycap"):
        return False
    if _MARKS.search(bare[1:]) or _GENDERED.match(bare) or bare in _THINNED:
        return False
    return not (subgroup == "family" and "\u200d" in bare)


def _clean(word: str) -> str:
    word = unicodedata.normalize("NFKC", word).lower().strip()
    word = re.sub(r"[“”\"!?()*:：]", " ", word.replace("’", "'"))
    return re.sub(r"\s+", " ", word).strip()


def read_annotations(language: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Emoji without U+FE0F -> (name, keywords) of CLDR in `language`, lower-cased."""
    names: dict[str, str] = {}
    words: dict[str, tuple[str, ...]] = {}
    for folder in ("annotations", "annotationsDerived"):
        root = ElementTree.parse(CLDR / folder / f"{language}.xml").getroot()  # noqa: S314  the system's own file
        for entry in root.iter("annotation"):
            text = entry.text or ""
            if entry.get("type") == "tts":
                names[entry.get("cp", "")] = _clean(text)
            else:
                cleaned = (_clean(word) for word in text.split("|"))
                words[entry.get("cp", "")] = tuple(word for word in cleaned if word)
    return {cp: (name, words.get(cp, ())) for cp, name in names.items() if name}


def draw_glyph(text: str) -> Pixels | None:
    """One glyph of the colour font, uint8 [128, 128, 4] premultiplied, or None when it has none."""
    font = ImageFont.truetype(str(FONT), FONT_PIXELS, layout_engine=ImageFont.Layout.RAQM)
    canvas = Image.new("RGBA", (320, 200), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((20, 20), text, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None or box[2] - box[0] > 150:  # a sequence drawn as several glyphs
        return None
    return centre(np.asarray(canvas.crop(box)))


def centre(pixels: npt.NDArray[np.uint8]) -> Pixels:
    """A drawing [h, w, 4] with straight alpha, scaled to fill the middle of [128, 128, 4], premultiplied."""
    scale = (SIZE - 6) / max(pixels.shape[:2])
    picture = pixels.astype(np.float32)
    picture[..., :3] *= picture[..., 3:] / 255
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(picture, size, interpolation=way)
    out = np.zeros((SIZE, SIZE, 4), np.uint8)
    top, left = (SIZE - size[1]) // 2, (SIZE - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = resized.round().clip(0, 255).astype(np.uint8)
    return out


def on_paper(drawing: Pixels) -> Pixels:
    """A premultiplied drawing [128, 128, 4] on white with a margin, uint8 [160, 160, 3]."""
    paper = np.full((160, 160, 3), 255, np.uint8)
    paper[16:144, 16:144] = 255 - drawing[..., 3:] + drawing[..., :3]
    return paper


def draw_symbol(text: str) -> Pixels | None:
    """The same emoji in the monochrome Symbola font, black, or None when the font lacks it."""
    bare = text.replace("\ufe0f", "")
    if len(bare) != 1:
        return None
    font = ImageFont.truetype(str(SYMBOLA), 120)
    masks = []
    for character in (bare, "\U0010fffe"):
        canvas = Image.new("RGBA", (360, 260), (0, 0, 0, 0))
        ImageDraw.Draw(canvas).text((60, 40), character, font=font, fill=(0, 0, 0, 255))
        box = canvas.getbbox()
        masks.append(np.asarray(canvas.crop(box)) if box else np.zeros((1, 1, 4), np.uint8))
    if masks[0].shape == masks[1].shape and np.array_equal(masks[0], masks[1]):
        return None  # the font's box for characters it does not have
    return None if masks[0].shape[0] < 4 else centre(masks[0])


def _glyph(
    text: str,
    group: str,
    subgroup: str,
    picture: Pixels,
    notes: dict[str, tuple[str, tuple[str, ...]]],
    notes_zh: dict[str, tuple[str, tuple[str, ...]]],
) -> Glyph:
    bare = text.replace("\ufe0f", "")
    names = {"en": notes[bare][0], "zh": notes_zh[bare][0]}
    words: dict[str, tuple[str, ...]] = {}
    for language, source in (("en", notes), ("zh", notes_zh)):
        others = [word for word in source[bare][1] if word != names[language] and len(word) <= 24]
        words[language] = tuple(dict.fromkeys(others))
    en, zh = TOPICS.get(subgroup, ((), ()))
    coloured = bool(_COLOUR_WORDS.search(names["en"])) or subgroup == "heart"
    return Glyph(
        text=text,
        names=names,
        words=words,
        topics={"en": en, "zh": zh},
        colours=() if coloured else dominant_colours(picture),
        paintable=not coloured and subgroup not in ("flag", "geometric") and colourful_share(picture) > 0.6,
        mirrored=not re.search(r"left|right|clockwise|arrow|button|input", names["en"])
        and group not in ("Symbols", "Flags"),
        group=subgroup,
    )


def require_installed(path: Path, command: str) -> None:
    """Raises SystemExit, with the command that installs it, when something to draw from is not there."""
    if not path.exists():
        raise SystemExit(f"{path} is not there: {command}")


def build_atlas() -> Atlas:
    """Read the font and CLDR; takes about 20 seconds."""
    for path in (FONT, CLDR, EMOJI_TEST):
        require_installed(path, PACKAGES_OF_DEBIAN)
    notes, notes_zh = read_annotations("en"), read_annotations("zh")
    glyphs: list[Glyph] = []
    images: list[Pixels] = []
    seen: set[bytes] = set()
    for text, group, subgroup in _list_emoji():
        bare = text.replace("\ufe0f", "")
        if not _is_included(text, group, subgroup) or bare not in notes or bare not in notes_zh:
            continue
        picture = draw_glyph(text)
        if picture is None or picture.tobytes() in seen:
            continue
        seen.add(picture.tobytes())
        glyphs.append(_glyph(text, group, subgroup, picture, notes, notes_zh))
        images.append(picture)
    return Atlas(tuple(glyphs), np.stack(images))


def load_atlas(folder: Path = WORK) -> Atlas:
    """The atlas; built once and saved in `folder` (sprites.npy, sprites.json)."""
    pictures, table = folder / "sprites.npy", folder / "sprites.json"
    if not (pictures.exists() and table.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        atlas = build_atlas()
        np.save(pictures, atlas.images)
        table.write_text(json.dumps([asdict(g) for g in atlas.glyphs], ensure_ascii=False), encoding="utf-8")
    rows = json.loads(table.read_text(encoding="utf-8"))
    return Atlas(tuple(glyph_from_row(row) for row in rows), np.load(pictures, mmap_mode="r"))


def glyph_from_row(row: dict[str, object]) -> Glyph:
    values = dict(row)
    for key in ("words", "topics"):
        values[key] = {k: tuple(v) for k, v in values[key].items()}  # type: ignore[attr-defined]
    values["colours"] = tuple(values["colours"])  # type: ignore[arg-type]
    return Glyph(**values)  # type: ignore[arg-type]
