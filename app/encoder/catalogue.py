"""The recommended models, with the facts to choose by. All other models of open_clip work as well."""

from __future__ import annotations

import csv
import difflib
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model of `sightline models`, and a line of `catalogue.csv`.

    `parameters` in millions, of both towers; `d` the dimension of a vector; `recall` the published share of MS COCO
    captions whose picture is among the first five (image retrieval R@5 in open_clip's own table; 0 if it has none);
    `memory` the MiB of the weights in bf16, half of those in fp32.
    """

    name: str
    alias: str
    parameters: float
    languages: str
    licence: str
    d: int
    recall: float
    note: str

    @property
    def memory(self) -> int:
        return round(self.parameters * 2e6 / (1 << 20))

    def to_json(self) -> dict[str, object]:
        """Values that are not published are null."""
        return {**asdict(self), "alias": self.alias or None, "recall": self.recall or None, "memory_mib": self.memory}


with open(Path(__file__).with_name("catalogue.csv"), encoding="utf-8", newline="") as file:
    CATALOGUE = TypeAdapter(tuple[CatalogueEntry, ...]).validate_python(list(csv.DictReader(file)))
NAME_FORMS = (
    ("NAME/TAG", "any open_clip model, downloaded from the hub once"),
    ("hf-hub:ORG/REPO", "any open_clip model of the hub that has safetensors"),
    ("NAME:FILE.safetensors", "any open_clip architecture with weights from a local file"),
    ("local-dir:FOLDER", "a folder with open_clip_config.json, weights and tokenizer"),
)
_ALIASES = {model.alias: model.name for model in CATALOGUE if model.alias}


def resolve_alias(name: str) -> str:
    """The full name of an alias; any other name as it is."""
    return _ALIASES.get(name.lower(), name)


def suggest_names(name: str, known: list[str]) -> str:
    """ "; did you mean …?" with the most similar names of the catalogue and of `known`, or an empty text."""
    ours = [word for model in CATALOGUE for word in (model.name, model.alias) if word]
    lowered = {word.lower(): word for word in [*known, *ours]}
    found = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(lowered[word] for word in found)}?" if found else ""
