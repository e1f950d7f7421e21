"""Filters as the storage keeps them: `parser` makes them from JSON, `sql` finds the rows that they match.

docs/reference/filters.md explains each condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.core.types import Target
from app.storage.sql import Clause

FIELDS: Mapping[Target, tuple[str, ...]] = {
    "images": (
        *("id", "tags", "caption", "source", "format", "width", "height", "bytes", "animated", "created_at"),
        *("job_id", "taken_at", "camera", "lens", "ocr_text", "generated_caption", "video_id", "t_ms", "metadata"),
    ),
    "texts": ("id", "text", "created_at", "metadata"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """A column by its name; `path` names an entry of metadata."""

    name: str
    path: tuple[str, ...] = ()

    @property
    def is_json(self) -> bool:
        """Whether the column holds JSON, so that a row may have several values."""
        return self.name in ("tags", "metadata")


@dataclass(frozen=True, slots=True)
class Filter:
    """A valid filter as a condition on the rows of its target. Two are equal when their JSON is (1, 1.0, true differ).

    `matches_everything`: it lists no condition. `compared`: the entries of metadata that a row needs to match, with
    what a range compares each with ("time", "number"), or None.
    """

    text: str
    target: Target
    condition: Clause = field(compare=False)
    matches_everything: bool = field(compare=False)
    compared: tuple[tuple[Field, str | None], ...] = field(default=(), compare=False)
