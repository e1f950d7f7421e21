"""What a load left out on purpose: how many files of each kind, and the places that have a name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Self

from app.core.picture_formats import FORMAT_OF_SUFFIX, explain_refusal
from app.core.types import AnswerWarning

LEFT_OUT_FILE = "left_out.json"  # beside a manifest
NO_EXTENSION = "no extension"
OTHER = "other"
MAX_KINDS = 50
MAX_WARNINGS = 100
MAX_DESCRIBED = 6  # kinds in a sentence
_SUFFIX = re.compile(r"\.[a-z0-9_+~-]{1,16}")


@dataclass(slots=True)
class LeftOut:
    """Files by their kind, which is their suffix (`.heic`), and warnings about single places."""

    kinds: Counter[str] = field(default_factory=Counter)
    warnings: list[AnswerWarning] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.kinds or self.warnings)

    def add(self, name: str) -> None:
        """Count a file of another kind."""
        suffix = PurePosixPath(name).suffix.lower()
        kind = (suffix if _SUFFIX.fullmatch(suffix) else OTHER) if suffix else NO_EXTENSION
        self.kinds[kind if kind in self.kinds or len(self.kinds) < MAX_KINDS else OTHER] += 1

    def warn(self, code: str, detail: str, field: str | None = None) -> None:
        """Name a place; the first MAX_WARNINGS are kept."""
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(AnswerWarning(code, detail, field))

    def explain(self, formats: Collection[str], why: Callable[[str], str] = explain_refusal) -> None:
        """Warn of each kind that is a picture, but not of the accepted `formats`."""
        known = {FORMAT_OF_SUFFIX[kind] for kind in self.kinds if kind in FORMAT_OF_SUFFIX}
        for name in sorted(known.difference(formats)):
            self.warn("left_out", why(name))

    def merge(self, other: LeftOut) -> None:
        self.kinds.update(other.kinds)
        self.warnings = [*self.warnings, *other.warnings][:MAX_WARNINGS]

    def describe(self) -> str:
        """A sentence with the number of each kind; empty if nothing was left out."""
        return describe_left_out(self.kinds)

    def to_json(self) -> dict[str, Any]:
        return {"kinds": dict(self.kinds), "warnings": [asdict(one) for one in self.warnings]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        warnings = [AnswerWarning(**one) for one in value.get("warnings", ())]
        return cls(Counter(value.get("kinds", {})), warnings)


def describe_left_out(kinds: Mapping[str, int]) -> str:
    """`12 files of other kinds left out (3 .heic, 2 .mov, …)`; empty for no kinds."""
    if not kinds:
        return ""
    total = sum(kinds.values())
    common = Counter(kinds).most_common()
    listed = ", ".join(f"{count:,} {kind}" for kind, count in common[:MAX_DESCRIBED])
    more = ", …" if len(common) > MAX_DESCRIBED else ""
    files = "1 file of another kind" if total == 1 else f"{total:,} files of other kinds"
    return f"{files} left out ({listed}{more})"
