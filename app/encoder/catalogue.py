"""The recommended models, with the facts to choose by. All other models of open_clip work as well."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Literal

Knows = Literal["drawings", "photographs", "unknown"]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A line of `sightline models`.

    `knows` is the kind of pictures that the model was trained on; `max_tokens` how many tokens of a text it reads (None
    reads all); `parameters` in millions, of both towers; `d` the dimension of a vector; `recall` the published share of
    MS COCO captions whose picture is among the first five (image retrieval R@5 in open_clip's own table; 0 if it has
    none). `languages` are codes, or a number where they are so many.
    """

    name: str
    alias: str
    knows: Knows
    parameters: float
    languages: str
    max_tokens: int | None
    licence: str
    d: int
    recall: float
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
            "recall": self.recall or None,
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
"""The best choice for a purpose; docs/decisions/0043-names-for-photographs.md says why."""

PHOTOS_COMMAND = "sightline serve --data-dir photos --model photos"
HINTS = {
    "starter": f"starter knows drawings in the style of emoji, not photographs; for photographs: {PHOTOS_COMMAND}",
    "colours": f"colours sees colours only, for trying out; for photographs: {PHOTOS_COMMAND}",
}

CATALOGUE = (
    CatalogueEntry(
        "starter",
        "",
        "drawings",
        5.7,
        "en, zh",
        40,
        "Apache-2.0",
        256,
        0,
        "built in; drawings in the style of emoji, not photographs",
    ),
    CatalogueEntry(
        "colours", "", "unknown", 0, "en, zh", None, "Apache-2.0", 60, 0, "built in; sees colours only, for trying out"
    ),
    CatalogueEntry(
        "MobileCLIP2-S0/dfndr2b",
        "mobileclip2-s0",
        "photographs",
        74.8,
        "en",
        77,
        "Apple AMLR (research only)",
        512,
        0,
        "photographs on a small machine",
    ),
    CatalogueEntry(
        "MobileCLIP2-S2/dfndr2b",
        "mobileclip2-s2",
        "photographs",
        99.1,
        "en",
        77,
        "Apple AMLR (research only)",
        512,
        0,
        "photographs; larger than S0",
    ),
    CatalogueEntry(
        "ViT-B-32/laion2b_s34b_b79k",
        "vit-b-32",
        "photographs",
        151.3,
        "en",
        77,
        "MIT",
        512,
        0.654,
        "photographs; small, and the fastest searches on a CPU",
    ),
    CatalogueEntry(
        "ViT-B-16/datacomp_xl_s13b_b90k",
        "vit-b-16",
        "photographs",
        149.6,
        "en",
        77,
        "MIT",
        512,
        0.660,
        "photographs in more detail, three times the work",
    ),
    CatalogueEntry(
        "ViT-L-14/datacomp_xl_s13b_b90k",
        "vit-l-14",
        "photographs",
        427.6,
        "en",
        77,
        "MIT",
        768,
        0.700,
        "photographs; wants a GPU",
    ),
    CatalogueEntry(
        "ViT-B-32-SigLIP2-256/webli",
        "siglip2-b-32",
        "photographs",
        376.9,
        "100+",
        64,
        "Apache-2.0",
        768,
        0,
        "photographs; a good first choice on a CPU, in many languages",
    ),
    CatalogueEntry(
        "ViT-B-16-SigLIP2-256/webli",
        "siglip2-b",
        "photographs",
        375.2,
        "100+",
        64,
        "Apache-2.0",
        768,
        0,
        "many languages, four times the work of B-32",
    ),
    CatalogueEntry(
        "ViT-SO400M-14-SigLIP2/webli",
        "siglip2-so400m",
        "photographs",
        1136,
        "100+",
        64,
        "Apache-2.0",
        1152,
        0,
        "many languages; wants a GPU",
    ),
    CatalogueEntry(
        "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
        "xlm-r-b-32",
        "photographs",
        366.1,
        "100",
        77,
        "MIT",
        512,
        0.634,
        "photographs; many languages, the rarer ones too",
    ),
    CatalogueEntry(
        "PE-Core-S-16-384/meta",
        "pe-core-s",
        "photographs",
        87,
        "en",
        32,
        "Apache-2.0",
        512,
        0,
        "photographs in detail (384 pixels)",
    ),
    CatalogueEntry(
        "PE-Core-L-14-336/meta",
        "pe-core-l",
        "photographs",
        671,
        "en",
        32,
        "Apache-2.0",
        1024,
        0,
        "photographs in detail; wants a GPU",
    ),
)
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
