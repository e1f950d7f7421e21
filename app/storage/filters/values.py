"""The fields by which hits are ordered, grouped and counted: their names, their values, and the SQL that reads these.

The order of values: numbers, texts (by their code points, of the first MAX_CHARS characters), false, true. What has no
value comes last in both directions: a missing or null entry, a list, an object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.errors import Validation
from app.core.types import Image, Target, Text
from app.storage.filters.model import Field, Filter
from app.storage.filters.parser import shorten, split_path, suggest_name
from app.storage.filters.sql import ALL, AND, COLUMNS, EMPTY, TABLES, json_path, time_limit, to_json
from app.storage.sql import Clause, Connection, fetch_clause
from app.storage.tables.collections import IN_COLLECTION

Use = Literal["order_by", "group_by", "facets"]
Value = str | int | float | bool

MAX_CHARS = 256  # of a text that are compared; a longer text is no value of a facet
NAMES: Mapping[Use, Mapping[Target, tuple[str, ...]]] = {
    "order_by": {
        "images": ("score", "created_at", "taken_at", "width", "bytes", "t_ms"),
        "texts": ("score", "created_at"),
    },
    "group_by": {"images": ("job_id", "video_id", "camera", "day", "month"), "texts": ("day", "month")},
    "facets": {"images": ("tags", "auto_tags", "format", "camera", "lens", "year"), "texts": ("year",)},
}
NO_VALUE = 3  # the rank of what has none
DAY, MONTH = 10, 7  # characters of a time that name it
RISING_RANKS = (
    "CASE json_type(metadata, ?) WHEN 'integer' THEN 0 WHEN 'real' THEN 0 WHEN 'text' THEN 1"
    " WHEN 'true' THEN 2 WHEN 'false' THEN 2 ELSE 3 END"
)
FALLING_RANKS = (
    "CASE json_type(metadata, ?) WHEN 'integer' THEN 2 WHEN 'real' THEN 2 WHEN 'text' THEN 1"
    " WHEN 'true' THEN 0 WHEN 'false' THEN 0 ELSE 3 END"
)
ENTRY = (
    "CASE json_type(metadata, ?) WHEN 'text' THEN substr(json_extract(metadata, ?), 1, ?)"
    " WHEN 'array' THEN NULL WHEN 'object' THEN NULL ELSE json_extract(metadata, ?) END"
)
NEWER = "row.collection = ? AND row.key > ?"
THESE = "row.collection = ? AND row.key IN (SELECT value FROM json_each(?))"
EACH = {"tags": Clause(", json_each(row.tags) AS each"), "auto_tags": Clause(", json_each(row.auto_tags) AS each")}
YEARS: Mapping[Target, Clause] = {
    "images": Clause("CAST(substr(coalesce(row.taken_at, row.created_at), 1, 4) AS INTEGER)"),
    "texts": Clause("CAST(substr(row.created_at, 1, 4) AS INTEGER)"),
}
COUNTED = {
    "format": Clause("row.format"),
    "tags": Clause("each.atom"),
    "auto_tags": Clause("each.atom"),
    "camera": Clause("row.camera"),
    "lens": Clause("row.lens"),
}
COUNTED_IF_THERE = {"camera": Clause("row.camera IS NOT NULL AND "), "lens": Clause("row.lens IS NOT NULL AND ")}
FLAGS: Mapping[str, Value] = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Order:
    """By which field records are ordered."""

    field: Field
    is_descending: bool = False

    @property
    def text(self) -> str:
        """As a request has it."""
        return ("-" if self.is_descending else "") + field_name(self.field)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands in an ordered list: the rank of its value's type, the value, and its key."""

    rank: int
    value: str | int | float | None
    key: int


def parse_field(text: str, target: Target, use: Use) -> Field:
    """A field of a request. Raises Validation, with the nearest name that there is."""
    names = NAMES[use][target]
    name, dot, path = text.partition(".")
    if name == "metadata" and dot:
        try:
            return Field(name, split_path(path))
        except ValueError as error:
            raise Validation(f"{use}: {error}") from None
    if name == "metadata":
        raise Validation(f"{use}: name an entry of metadata, like metadata.place")
    if text not in names:
        raise Validation(f"{use}: there is no field {shorten(text)}; {suggest_name(text, (*names, 'metadata'))}")
    return Field(text)


def parse_order(text: str, target: Target) -> Order:
    """An order of a request, `-` for descending. Raises Validation."""
    if text == "-score":
        raise Validation("order_by: score is the order of the ranking, best first; it takes no minus")
    return Order(parse_field(text.removeprefix("-"), target, "order_by"), text.startswith("-"))


def field_name(field: Field) -> str:
    """The name of a field, as a request has it."""
    quoted = (f'"{name}"' if set(name) & set('.[]"') else name for name in field.path)
    return ".".join((field.name, *quoted))


def read_value(record: Image | Text, field: Field) -> Value | None:
    """The value of a record; None if it has none."""
    if field.name == "metadata":
        value: object = record.metadata
        for name in field.path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value if isinstance(value, str | int | float) else None
    if field.name in ("day", "month"):
        time = (record.taken_at if isinstance(record, Image) else None) or record.created_at
        return time[: DAY if field.name == "day" else MONTH]
    found: Value | None = getattr(record, field.name)
    return found


def rank_value(value: Value | None) -> tuple[int, Value]:
    """What values are compared by: the rank of the type, then the value."""
    if value is None:
        return NO_VALUE, 0
    if isinstance(value, bool):
        return 2, value
    return (1, value[:MAX_CHARS]) if isinstance(value, str) else (0, value)


def sort_by_value(values: Sequence[Value | None], is_descending: bool) -> list[int]:
    """The positions of `values` in their order; equal ones stay in theirs, and those without a value come last."""
    ranks = [rank_value(value) for value in values]
    present = [n for n, (rank, _) in enumerate(ranks) if rank != NO_VALUE]
    missing = [n for n, (rank, _) in enumerate(ranks) if rank == NO_VALUE]
    return [*sorted(present, key=ranks.__getitem__, reverse=is_descending), *missing]


def select_ordered(
    c: Connection, collection: str, filter: Filter | None, order: Order, limit: int, after: Place | None
) -> list[Place]:
    """Up to `limit` places of pictures that `filter` lets through, in this order; equal ones the newest first.

    Raises Timeout.
    """
    rows = Clause("(SELECT key, ") + _select_rank(order) + Clause(" AS rank, ") + _select_value(order.field)
    rows += Clause(" AS value FROM images WHERE ") + Clause(IN_COLLECTION, collection) + AND
    page = (
        Clause("SELECT rank, value, key FROM ") + rows + (filter.condition if filter else ALL) + Clause(") AS ranked")
    )
    if after is not None:
        page += Clause(" WHERE rank > ? OR rank = ? AND (value", after.rank, after.rank)
        page += Clause(" < ?" if order.is_descending else " > ?", after.value)
        page += Clause(" OR value IS ? AND key < ?)", after.value, after.key)
    page += Clause(" ORDER BY rank, value DESC" if order.is_descending else " ORDER BY rank, value")
    with time_limit(c):
        return [Place(*row) for row in fetch_clause(c, page + Clause(", key DESC LIMIT ?", limit))]


def _select_rank(order: Order) -> Clause:
    """The rank of the type of a row's value, in the direction of the order."""
    if order.field.name != "metadata":
        return Clause("iif(") + COLUMNS[order.field.name] + Clause(" IS NULL, 3, 0)")
    return Clause(FALLING_RANKS if order.is_descending else RISING_RANKS, json_path(order.field))


def _select_value(field: Field) -> Clause:
    if field.name != "metadata":
        return COLUMNS[field.name]
    path = json_path(field)
    return Clause(ENTRY, path, path, MAX_CHARS, path)


def select_values(
    c: Connection, target: Target, label: str, field: Field, keys: Iterable[int] | None = None, after: int = 0
) -> list[tuple[int, Value]]:
    """The values that a facet counts, with the keys of their rows: of the rows past `after`, or of `keys`.

    A row with a list has several values, each once. Raises Timeout.
    """
    rows = TABLES[target] + Clause(" AS row")
    if field.name == "metadata":  # the key of what is in an object is a text
        rows += Clause(", json_each(row.metadata, ?) AS each WHERE typeof(each.key) <> 'text'", json_path(field))
        rows += Clause(" AND (each.type IN ('integer', 'real', 'true', 'false') OR each.type = 'text'")
        rows += Clause(" AND length(each.atom) <= ?) AND ", MAX_CHARS)
        value = Clause("each.atom, each.type")
    else:
        rows += EACH.get(field.name, EMPTY) + Clause(" WHERE ")
        rows += COUNTED_IF_THERE.get(field.name, EMPTY)
        value = (YEARS[target] if field.name == "year" else COUNTED[field.name]) + Clause(", ''")
    rows += Clause(NEWER, label, after) if keys is None else Clause(THESE, label, to_json(list(keys)))
    with time_limit(c):
        found = fetch_clause(c, Clause("SELECT DISTINCT row.key, ") + value + Clause(" FROM ") + rows)
    return [(key, FLAGS.get(type, value)) for key, value, type in found]
