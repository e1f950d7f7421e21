"""Filters as frozen trees of conditions.

`app.storage.filters.parser` makes them from JSON in Qdrant's words, `app.storage.filters.sql` makes SQL of them.
docs/reference/filters.md explains each condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.core.types import Target

Value = str | int | float | bool


FIELDS: Mapping[Target, tuple[str, ...]] = {
    "images": (
        *("id", "tags", "caption", "source", "format", "width", "height", "bytes", "animated", "created_at"),
        *("job_id", "metadata"),
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
class Match:
    """One of the field's values is one of `values`; or, `negated`, one of them is none of `values`."""

    field: Field
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class HasWords:
    """The field contains every word of `text`."""

    field: Field
    text: str


@dataclass(frozen=True, slots=True)
class Range:
    """One of the field's values is within all bounds: (`gt`, 3), or for times (`gt`, "2026-01-01T00:00:00.000Z")."""

    field: Field
    bounds: tuple[tuple[str, int | float | str], ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value: it is there, not null, and no empty list."""

    field: Field


@dataclass(frozen=True, slots=True)
class IsNull:
    """The field is there and null, or a list with a null in it."""

    field: Field


@dataclass(frozen=True, slots=True)
class Group:
    """All of `must`, at least one of `should` if there are any, none of `must_not`."""

    must: tuple[Node, ...] = ()
    should: tuple[Node, ...] = ()
    must_not: tuple[Node, ...] = ()


Node = Match | HasWords | Range | Exists | IsNull | Group


@dataclass(frozen=True, slots=True)
class Filter:
    """A valid filter. Two are equal when their JSON is (1, 1.0 and true differ)."""

    text: str
    target: Target
    tree: Node = field(compare=False)

    @property
    def matches_everything(self) -> bool:
        """Whether it has no condition."""
        return not _has_condition(self.tree)


def _has_condition(node: Node) -> bool:
    if isinstance(node, Group):
        return any(_has_condition(each) for each in (*node.must, *node.should, *node.must_not))
    return True
