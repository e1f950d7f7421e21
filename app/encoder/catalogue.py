"""The recommended models, with the facts to choose by. All other models of open_clip work as well."""

from __future__ import annotations

import csv
import difflib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

Knows = Literal["drawings", "photographs", "unknown"]
FIGURES = {"coco_r1": "COCO R@1", "recall": "COCO R@5", "flickr_r1": "Flickr30k R@1", "xm3600_r1": "XM3600 R@1"}
"""The published figures of a model, as people know them."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model of `sightline models`, and a line of `catalogue.csv`.

    `knows` is the kind of pictures that the model was trained on; `max_tokens` how many tokens of a text it reads (0
    reads all); `parameters` in millions, of both towers; `d` the dimension of a vector. `languages` are codes, or a
    number where they are so many.

    The figures are published shares of texts that find their picture, 0 where none is published: of MS COCO's captions
    (5,000 pictures of Karpathy's test) among the first five (`recall`) and first (`coco_r1`), of Flickr30k's captions
    first (`flickr_r1`), of Crossmodal-3600's, as the mean of 36 languages, first (`xm3600_r1`), as `source` has them.
    """

    name: str
    alias: str
    knows: Knows
    parameters: float
    languages: str
    max_tokens: int
    licence: str
    d: int
    recall: float
    coco_r1: float
    flickr_r1: float
    xm3600_r1: float
    source: str
    note: str

    @property
    def memory(self) -> int:
        """MiB of the weights in bf16, half of those in fp32."""
        return round(self.parameters * 2e6 / (1 << 20))

    @property
    def download(self) -> int:
        """Megabytes of the file with the weights in fp32, as the hub has it; 0 for what is built in."""
        return round(self.parameters * 4) if self.alias else 0

    @property
    def names(self) -> list[str]:
        """The short names: the alias, and what it is the best choice for."""
        return [*filter(None, [self.alias]), *(choice for choice, alias in CHOICES.items() if alias == self.alias)]

    def to_json(self) -> dict[str, object]:
        """Values that are not published are null."""
        return {
            **asdict(self),
            "alias": self.alias or None,
            "names": self.names,
            "max_tokens": self.max_tokens or None,
            **{name: getattr(self, name) or None for name in (*FIGURES, "source")},
            "memory_mib": self.memory,
            "download_mb": self.download or None,
        }


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model can be asked about. `hint` says what it does not know, and what to do; None for a good model."""

    name: str
    knows: Knows
    languages: tuple[str, ...]
    hint: str | None


CHOICES = {"photos": "siglip2-b-32", "photos-fast": "vit-b-32", "photos-multilingual": "xlm-r-b-32"}
"""The best choice for a purpose; docs/decisions/0041-names-for-photographs.md says why."""

PHOTOS, FAST_PHOTOS = "photos", "photos-fast"  # the first advice, and the one beside it
PHOTOS_COMMAND = f"sightline serve --data-dir photos --model {PHOTOS}"
HINTS = {
    "starter": f"starter knows drawings in the style of emoji, not photographs; for photographs: {PHOTOS_COMMAND}",
    "colours": f"colours sees colours only, for trying out; for photographs: {PHOTOS_COMMAND}",
}

with open(Path(__file__).with_name("catalogue.csv"), encoding="utf-8", newline="") as file:
    CATALOGUE = TypeAdapter(tuple[CatalogueEntry, ...]).validate_python(list(csv.DictReader(file)))
NAME_FORMS = (
    ("NAME/TAG", "any open_clip model, downloaded from the hub once"),
    ("hf-hub:ORG/REPO", "any open_clip model of the hub that has safetensors"),
    ("NAME:FILE.safetensors", "any open_clip architecture with weights from a local file"),
    ("local-dir:FOLDER", "a folder with open_clip_config.json, weights and tokenizer"),
)
_ENTRIES = {model.name: model for model in CATALOGUE}
_NAMES = {short: model.name for model in CATALOGUE for short in model.names}


def resolve_alias(name: str) -> str:
    """The full name of a short one; any other name as it is."""
    return _NAMES.get(name.lower(), name)


def find_facts(name: str) -> ModelFacts:
    """What is known about a model, by its full name; of one that is not in the catalogue, nothing."""
    entry = _ENTRIES.get(name)
    if entry is None:
        return ModelFacts(name, "unknown", (), None)
    return ModelFacts(name, entry.knows, tuple(entry.languages.split(", ")), HINTS.get(name))


def suggest_names(name: str, known: list[str]) -> str:
    """ "; did you mean …?" with the most similar names of the catalogue and of `known`, or an empty text."""
    ours = [word for model in CATALOGUE for word in (model.name, *model.names)]
    lowered = {word.lower(): word for word in [*known, *ours]}
    found = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(lowered[word] for word in found)}?" if found else ""
