"""Evaluate filters in plain Python. Tests compare the SQL of a filter with this."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.core.types import Image, Text

WORD = re.compile(r"[\u4e00-\u9fff]|[a-zäöüßé0-9]+")
COMPARED = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def matches_filter(filter: Mapping[str, Any], row: Image | Text) -> bool:
    """Whether the row passes the filter, given as JSON."""
    if "has_id" in filter:
        return row.id in filter["has_id"]
    for name in ("is_empty", "is_null", "exists"):
        if isinstance(filter.get(name), Mapping):
            return _matches_condition({"key": filter[name]["key"], name: True}, row)
    if "key" in filter:
        return _matches_condition(filter, row)
    must, should, must_not = (_as_list(filter.get(clause, [])) for clause in ("must", "should", "must_not"))
    return (
        all(matches_filter(each, row) for each in must)
        and (not should or any(matches_filter(each, row) for each in should))
        and not any(matches_filter(each, row) for each in must_not)
    )


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, Mapping) else list(value)


def _matches_condition(condition: Mapping[str, Any], row: Image | Text) -> bool:
    there, value = _read_value(condition["key"], row)
    values = value if isinstance(value, list) else [value]
    scalars = [each for each in values if there and not isinstance(each, dict | list) and each is not None]
    empty = not there or all(each is None for each in values)
    null = there and any(each is None for each in values)
    if "exists" in condition:
        return condition["exists"] is not empty
    if "is_empty" in condition:
        return condition["is_empty"] is empty
    if "is_null" in condition:
        return condition["is_null"] is null
    if "range" in condition:
        return any(_is_in_range(each, condition["range"]) for each in scalars)
    ((how, asked),) = condition["match"].items()
    if how == "text":
        wanted = set(WORD.findall(asked.lower()))
        return any(wanted <= set(WORD.findall(each.lower())) for each in scalars if isinstance(each, str))
    if how == "except":
        return any(not any(_is_equal(each, one) for one in asked) for each in scalars)
    return any(_is_equal(each, one) for each in scalars for one in (asked if how == "any" else [asked]))


def _read_value(key: str, row: Image | Text) -> tuple[bool, Any]:
    name, _, rest = key.partition(".")
    value = getattr(row, name)
    if name != "metadata":
        return True, list(value) if isinstance(value, tuple) else value
    for part in re.findall(r'"([^"]*)"|([^".]+)', rest):
        entry = part[0] or part[1]
        if not isinstance(value, Mapping) or entry not in value:
            return False, None
        value = value[entry]
    return True, value


def _is_equal(stored: Any, asked: Any) -> bool:
    return isinstance(stored, bool) is isinstance(asked, bool) and bool(stored == asked)


def _is_in_range(stored: Any, bounds: Mapping[str, Any]) -> bool:
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    if any(isinstance(bound, str) for bound in given.values()):
        moment = _parse_time(stored)
        return moment is not None and all(COMPARED[name](moment, _parse_time(bound)) for name, bound in given.items())
    numeric = isinstance(stored, int | float) and not isinstance(stored, bool)
    return numeric and all(COMPARED[name](stored, bound) for name, bound in given.items())


def _parse_time(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
