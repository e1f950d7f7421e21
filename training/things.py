"""What the names of icons and of clip art name: physical things, as WordNet lists them, with their Chinese names."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from training.hands import PACKAGES

WORDNET = Path("/usr/share/wordnet")
CLIP_ART = Path("/usr/share/openclipart/png")
# Words that a name has for its style, and numbers: "anchor-duotone", "bottle-one", "abacus_01".
_STYLE_WORDS = frozenset(
    {"fill", "filled", "bold", "thin", "light", "duotone", "outline", "outlined", "rounded", "round", "sharp", "alt"}
    | {"variant", "solid", "color", "colour", "negative", "straight", "broken", "twotone", "24px", "simple", "line"}
    | {"logo", "icon", "one", "two", "three", "four", "five", "six"}
)
# WordNet's files of nouns for things that can be drawn -> words for the whole kind.
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "05": (("animal",), ("动物",)),
    "06": ((), ()),
    "08": (("body part",), ("身体",)),
    "13": (("food",), ("食物",)),
    "17": ((), ()),
    "18": (("person",), ("人",)),
    "19": ((), ()),
    "20": (("plant",), ("植物",)),
    "25": (("shape",), ("形状",)),
}


@dataclass(frozen=True)
class Thing:
    """A noun of WordNet: its kind, and other words for it where it has but one meaning."""

    kind: str
    synonyms: tuple[str, ...]

    @property
    def topics(self) -> dict[str, tuple[str, ...]]:
        english, chinese = _KINDS[self.kind]
        return {"en": english, "zh": chinese}


def base_name(name: str) -> str:
    """ "anchor-duotone" and "anchor_01" -> "anchor"."""
    words = [word for word in re.split(r"[-_ ]+", name.lower()) if word]
    while words and (words[-1] in _STYLE_WORDS or words[-1].isdigit()):
        words.pop()
    return " ".join(words)


@cache
def read_nouns(folder: Path = WORDNET) -> Mapping[str, Thing]:
    """Nouns whose first meaning is a thing that can be drawn."""
    meanings: dict[str, tuple[str, tuple[str, ...]]] = {}
    for line in (folder / "data.noun").read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            parts = line.split(" ")
            count = int(parts[3], 16)
            meanings[parts[0]] = (
                parts[1],
                tuple(word.replace("_", " ").lower() for word in parts[4 : 4 + 2 * count : 2]),
            )
    out: dict[str, Thing] = {}
    for line in (folder / "index.noun").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue
        parts = line.split()
        count = int(parts[2])
        kind, words = meanings[parts[-count]]
        lemma = parts[0].replace("_", " ")
        if kind in _KINDS:
            others = tuple(word for word in words if word != lemma and len(word) <= 24) if count == 1 else ()
            out[lemma] = Thing(kind, others[:3])
    return out


@cache
def chinese_names(path: Path = PACKAGES / "@icon-park" / "svg" / "icons.json") -> Mapping[str, str]:
    """English name -> Chinese name of IconPark's icons, whose designers named them in both languages."""
    if not path.exists():
        return {}
    out: dict[str, str] = {}
    for row in json.loads(path.read_text(encoding="utf-8")):
        title = re.sub(r"[-_0-9a-zA-Z()()\s]+$|[一二三四五六]$", "", row["title"].strip())
        if re.fullmatch("[\u4e00-\u9fff]{1,8}", title):
            out.setdefault(base_name(row["name"]), title)
    return out


def group_icons(sets: Iterable[tuple[str, Mapping[str, str]]], *, each: int = 2) -> dict[str, list[tuple[str, str]]]:
    """Base name -> [(set, SVG)], at most `each` of a set; `sets` gives (set, name -> SVG)."""
    out: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for source, bodies in sets:
        taken: dict[str, int] = defaultdict(int)
        for name in sorted(bodies, key=len):
            base = base_name(name)
            if taken[base] < each:
                taken[base] += 1
                out[base].append((source, bodies[name]))
    return out


def list_clip_art(known: Mapping[str, int], folder: Path = CLIP_ART) -> Iterator[tuple[int, Path]]:
    """(number of the thing, picture) for clip art whose file's name begins with one of the `known` names."""
    for path in sorted(folder.rglob("*.png")):
        words = [word for word in re.split(r"[-_ .]+", path.stem.lower()) if not word.isdigit()]
        for length in (3, 2, 1):
            found = known.get(" ".join(words[:length])) if len(words) >= length else None
            if found is not None:
                yield found, path
                break
