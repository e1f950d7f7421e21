"""The recommended models, with the facts to choose by. All other models of open_clip work as well."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A line of `sightline models`.

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


CATALOGUE = (
    CatalogueEntry("starter", "", 5.7, "en, zh", "Apache-2.0", 256, 0, "built in; drawings and emoji, not photographs"),
    CatalogueEntry("colours", "", 0, "en, zh", "Apache-2.0", 60, 0, "built in; sees colours only, for trying out"),
    CatalogueEntry(
        "MobileCLIP2-S0/dfndr2b", "mobileclip2-s0", 74.8, "en", "Apple AMLR", 512, 0, "photographs on a small machine"
    ),
    CatalogueEntry(
        "MobileCLIP2-S2/dfndr2b", "mobileclip2-s2", 99.1, "en", "Apple AMLR", 512, 0, "photographs; larger than S0"
    ),
    CatalogueEntry(
        "ViT-B-32/laion2b_s34b_b79k",
        "vit-b-32",
        151.3,
        "en",
        "MIT",
        512,
        0.654,
        "photographs; a good first choice on a CPU",
    ),
    CatalogueEntry(
        "ViT-B-16/datacomp_xl_s13b_b90k",
        "vit-b-16",
        149.6,
        "en",
        "MIT",
        512,
        0.660,
        "photographs in more detail, three times the work",
    ),
    CatalogueEntry(
        "ViT-L-14/datacomp_xl_s13b_b90k", "vit-l-14", 427.6, "en", "MIT", 768, 0.700, "photographs; wants a GPU"
    ),
    CatalogueEntry(
        "ViT-B-32-SigLIP2-256/webli", "siglip2-b-32", 376.9, "100+", "Apache-2.0", 768, 0, "many languages, on a CPU"
    ),
    CatalogueEntry(
        "ViT-B-16-SigLIP2-256/webli",
        "siglip2-b",
        375.2,
        "100+",
        "Apache-2.0",
        768,
        0,
        "many languages, four times the work of B-32",
    ),
    CatalogueEntry(
        "ViT-SO400M-14-SigLIP2/webli",
        "siglip2-so400m",
        1136,
        "100+",
        "Apache-2.0",
        1152,
        0,
        "many languages; wants a GPU",
    ),
    CatalogueEntry(
        "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", "xlm-r-b-32", 366.1, "100", "MIT", 512, 0.634, "many languages"
    ),
    CatalogueEntry(
        "PE-Core-S-16-384/meta", "pe-core-s", 87, "en", "Apache-2.0", 512, 0, "photographs in detail (384 pixels)"
    ),
    CatalogueEntry(
        "PE-Core-L-14-336/meta", "pe-core-l", 671, "en", "Apache-2.0", 1024, 0, "photographs in detail; wants a GPU"
    ),
)
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
