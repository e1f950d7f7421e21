"""Filters as JSON, in Qdrant's words, checked and read into the tree of `app.storage.filters.model`.

{"must": [...], "should": [...], "must_not": [...]}, each entry such a filter again or a condition:
{"key": "tags", "match": {"value": "red"}}, {"match": {"any": [...]}}, {"match": {"except": [...]}},
{"key": "caption", "match": {"text": "all these words"}}, {"key": "width", "range": {"gte": 640}},
{"key": "caption", "exists": true}, {"is_empty": {"key": "tags"}}, {"is_null": {...}}, {"has_id": [...]}
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any

from app.core.errors import Validation
from app.core.text import split_words
from app.core.types import Target
from app.storage.filters.model import (
    FIELDS,
    Exists,
    Field,
    FieldKind,
    Filter,
    Group,
    HasWords,
    IsNull,
    Match,
    Node,
    Range,
    Value,
)

MAX_CONDITIONS = 100
MAX_VALUES = 1_000
MAX_DEPTH = 8
MAX_CHARS = 16_384  # of one text to compare with: metadata holds none that is longer
MAX_PATH = 8
SEGMENT = re.compile(r'"([^"]*)"|([^".\[\]]+)')  # of a dotted path; one with odd signs stands in quotes
CLAUSES = ("must", "should", "must_not")
OPERATORS = ("match", "range", "exists", "is_empty", "is_null")
MATCHES = ("value", "any", "except", "text")
COMPARISONS = ("gt", "gte", "lt", "lte")
FORMATS = ("avif", "gif", "jpeg", "png", "webp")


def parse_filter_json(text: str, target: Target) -> Filter:
    """The filter that is written as JSON in `text`. Raises Validation."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Validation("filter is not JSON") from None
    return parse_filter(value, target)


def parse_filter(value: Any, target: Target) -> Filter:
    """The filter that a JSON value says. Raises Validation, naming the place and what is wrong there."""
    tree = _Reader(target).node(value, "filter", 1)
    return Filter(json.dumps(value, sort_keys=True, separators=(",", ":")), target, tree)


class _Reader:
    """Reads one filter and counts what is in it."""

    def __init__(self, target: Target) -> None:
        self._fields = FIELDS[target]
        self._conditions = 0
        self._values = 0

    def node(self, value: Any, at: str, depth: int) -> Node:
        """A filter or a condition."""
        if depth > MAX_DEPTH:
            raise Validation(f"{at[:60]}…: a filter may be nested {MAX_DEPTH} deep")
        if not isinstance(value, Mapping):
            raise Validation(f"{at}: expected an object, like {{'must': [...]}}, got {_shown(value)}")
        if not value or set(value) <= set(CLAUSES):
            return Group(**{clause: self._nodes(value[clause], f"{at}.{clause}", depth) for clause in value})
        if any(clause in value for clause in CLAUSES):
            _known(next(name for name in value if name not in CLAUSES), CLAUSES, at, "clause")
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise Validation(f"{at}: a filter may have {MAX_CONDITIONS} conditions")
        return self._condition(value, at)

    def _nodes(self, value: Any, at: str, depth: int) -> tuple[Node, ...]:
        if isinstance(value, Mapping):  # one alone need not stand in a list
            return (self.node(value, at, depth + 1),)
        if not isinstance(value, list):
            raise Validation(f"{at}: expected a list of conditions, got {_shown(value)}")
        return tuple(self.node(each, f"{at}[{n}]", depth + 1) for n, each in enumerate(value))

    def _condition(self, value: Mapping[str, Any], at: str) -> Node:
        if "key" not in value:
            return self._keyless(value, at)
        field = self._field(value["key"], f"{at}.key")
        operators = [name for name in value if name != "key"]
        for name in operators:
            _known(name, OPERATORS, at, "operator")
        if len(operators) != 1:
            raise Validation(f"{at}: a condition on {_named(field)} has one of {_listed(OPERATORS)}, got {operators}")
        (name,) = operators
        return self._operator(name, field, value[name], f"{at}.{name}")

    def _operator(self, name: str, field: Field, value: Any, at: str) -> Node:
        if name == "match":
            return self._match(field, value, at)
        if name == "range":
            return _range(field, value, at)
        if not isinstance(value, bool):
            raise Validation(f"{at}: expected true or false, got {_shown(value)}")
        if name == "is_null":
            return IsNull(field) if value else Group(must_not=(IsNull(field),))
        return Exists(field) if value is (name == "exists") else Group(must_not=(Exists(field),))

    def _keyless(self, value: Mapping[str, Any], at: str) -> Node:
        """{"is_empty": {"key": ...}}, {"is_null": ...}, {"exists": ...} and {"has_id": [...]}."""
        if len(value) != 1:
            raise Validation(f"{at}: a condition needs a key, like {{'key': 'tags', 'match': {{'value': ...}}}}")
        ((name, inside),) = value.items()
        forms = ("exists", "is_empty", "is_null", "has_id")
        _known(name, (*forms, *CLAUSES, "key"), at, "condition")
        if name == "has_id":
            field = Field("id", self._fields["id"])
            return Match(field, self._list(field, inside, f"{at}.has_id"))
        if name not in forms or not isinstance(inside, Mapping) or set(inside) != {"key"}:
            raise Validation(f"{at}.{name}: expected {{'key': ...}}, got {_shown(inside)}")
        return self._operator(name, self._field(inside["key"], f"{at}.{name}.key"), True, at)

    def _field(self, key: Any, at: str) -> Field:
        if not isinstance(key, str) or not key:
            raise Validation(f"{at}: expected the name of a field, got {_shown(key)}")
        name, dot, rest = key.partition(".")
        _known(name, tuple(self._fields), at, "field")
        kind = self._fields[name]
        if kind is not FieldKind.JSON:
            if dot:
                raise Validation(f"{at}: {name} is {kind.value}, there is no {_shown(key)} in it")
            return Field(name, kind)
        if not dot:
            raise Validation(f"{at}: say which entry of metadata, like metadata.camera")
        return Field(name, kind, _path(rest, at))

    def _match(self, field: Field, value: Any, at: str) -> Node:
        if not isinstance(value, Mapping) or len(value) != 1:
            raise Validation(f"{at}: expected one of {_listed(MATCHES)} in it, got {_shown(value)}")
        ((how, what),) = value.items()
        _known(how, MATCHES, at, "match")
        at = f"{at}.{how}"
        if how == "text":
            return _words(field, what, at)
        if how == "value":
            return Match(field, (self._value(field, what, at),))
        return Match(field, self._list(field, what, at), outside=how == "except")

    def _list(self, field: Field, value: Any, at: str) -> tuple[Value, ...]:
        if not isinstance(value, list):
            raise Validation(f"{at}: expected a list, got {_shown(value)}")
        return tuple(self._value(field, each, f"{at}[{n}]") for n, each in enumerate(value))

    def _value(self, field: Field, value: Any, at: str) -> Value:
        self._values += 1
        if self._values > MAX_VALUES:
            raise Validation(f"{at}: a filter may list {MAX_VALUES} values")
        return VALUES[field.kind](field, value, at)


def _any(field: Field, value: Any, at: str) -> Value:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(field, value, at)
    if isinstance(value, str):
        return _text(field, value, at)
    raise Validation(f"{at}: {_named(field)} is compared with a text, a number, true or false, got {_shown(value)}")


def _number(field: Field, value: Any, at: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Validation(f"{at}: {_named(field)} is compared with a number, got {_shown(value)}")
    if not (math.isfinite(value) if isinstance(value, float) else -(1 << 63) <= value < 1 << 63):
        raise Validation(f"{at}: {_named(field)} is compared with a finite number of 64 bits")
    return value


def _text(field: Field, value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise Validation(f"{at}: {_named(field)} is compared with a text, got {_shown(value)}")
    if len(value) > MAX_CHARS:
        raise Validation(f"{at}: a text of a filter may have {MAX_CHARS} characters, this has {len(value)}")
    if "\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
        raise Validation(f"{at}: the text is not valid Unicode, or has a NUL in it")
    return value


def _flag(field: Field, value: Any, at: str) -> bool:
    if not isinstance(value, bool):
        raise Validation(f"{at}: {_named(field)} is true or false, got {_shown(value)}")
    return value


def _format(field: Field, value: Any, at: str) -> str:
    if value not in FORMATS:
        raise Validation(f"{at}: {_named(field)} is one of {_listed(FORMATS)}, got {_shown(value)}")
    return str(value)


def _time(field: Field, value: Any, at: str) -> Value:
    raise Validation(f"{at}: {_named(field)} is a time; compare it by range, like {{'gte': '2026-01-31'}}")


VALUES: Mapping[FieldKind, Callable[[Field, Any, str], Value]] = {
    FieldKind.TEXT: _text,
    FieldKind.TAGS: _text,
    FieldKind.NUMBER: _number,
    FieldKind.FLAG: _flag,
    FieldKind.TIME: _time,
    FieldKind.FORMAT: _format,
    FieldKind.JSON: _any,
}


def _words(field: Field, value: Any, at: str) -> HasWords:
    if field.kind not in (FieldKind.TEXT, FieldKind.TAGS, FieldKind.JSON):
        raise Validation(f"{at}: {_named(field)} is {field.kind.value}; words are looked for in texts")
    if not split_words(text := _text(field, value, at)):
        raise Validation(f"{at}: there is no word in {_shown(value)}")
    return HasWords(field, text)


def _range(field: Field, value: Any, at: str) -> Range:
    if field.kind not in (FieldKind.NUMBER, FieldKind.TIME, FieldKind.JSON):
        raise Validation(f"{at}: {_named(field)} is {field.kind.value}; ranges are for numbers and times")
    if not isinstance(value, Mapping):
        raise Validation(f"{at}: expected an object like {{'gte': 1, 'lt': 5}}, got {_shown(value)}")
    for name in value:
        _known(name, COMPARISONS, at, "comparison")
    given = {name: bound for name, bound in value.items() if bound is not None}  # Qdrant's clients send them all
    if not given:
        raise Validation(f"{at}: a range needs one of {_listed(COMPARISONS)}")
    timed = field.kind is FieldKind.TIME or (
        field.kind is FieldKind.JSON and any(isinstance(b, str) for b in given.values())
    )
    read = parse_time_bound if timed else lambda _, bound: _number(field, bound, at)
    try:
        return Range(field, tuple((name, read(name, bound)) for name, bound in given.items()))
    except ValueError as error:
        raise Validation(f"{at}: {_named(field)}: {error}") from None


def _path(text: str, at: str) -> tuple[str, ...]:
    """The entries that a dotted path names."""
    path: list[str] = []
    place = 0
    while True:
        found = SEGMENT.match(text, place)
        if found is None or len(path) == MAX_PATH:
            raise Validation(
                f"{at}: {_shown(text)} is no path: up to {MAX_PATH} names with dots between; a name that has a dot"
                " or a bracket in it stands in double quotes"
            )
        name = found[1] if found[1] is not None else found[2]
        if json.dumps(_text(Field("metadata", FieldKind.JSON), name, at), ensure_ascii=False) != f'"{name}"':
            raise Validation(f"{at}: a name with a backslash or a control character cannot be looked for")
        path.append(name)
        place = found.end()
        if place == len(text):
            return tuple(path)
        if text[place] != ".":
            place = len(text) + 1  # nothing matches there
        place += 1


def _known(name: str, names: Sequence[str], at: str, what: str) -> None:
    """Raise Validation unless `name` is one of `names`, with the nearest one."""
    if name in names:
        return
    near = get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {_listed(names)}"
    if what == "field" and not near:
        hint += "; what a picture's own metadata say is under metadata.NAME"
    raise Validation(f"{at}: there is no {what} {_shown(name)}; {hint}")


def _named(field: Field) -> str:
    return ".".join((field.name, *field.path))


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _shown(value: Any) -> str:
    """A value in a message, shortened."""
    if isinstance(value, Mapping | list):
        return f"an object with {len(value)} entries" if isinstance(value, Mapping) else f"a list of {len(value)}"
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
MILLISECOND = timedelta(milliseconds=1)


def parse_time_bound(comparison: str, value: Any) -> str:
    """The time `value` (RFC 3339, or a date alone; UTC where no zone is said) as stored times are written.

    Those are whole milliseconds. A finer bound is rounded so that `gt`, `gte`, `lt` and `lte` mean the same
    afterwards. Raises ValueError.
    """
    found = TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a time is written 2026-01-31 or 2026-01-31T12:00:00Z")
    day, minute, second, fraction, zone = found.groups()
    digits = (fraction or "").ljust(3, "0")
    if fraction and not second:
        raise ValueError("a time is written 2026-01-31 or 2026-01-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}{(zone or 'Z').upper()}")
        moment = moment.astimezone(UTC) + int(digits[:3]) * MILLISECOND
        if digits[3:].strip("0") and comparison in ("gte", "lt"):
            moment += MILLISECOND
    except (ValueError, OverflowError):
        raise ValueError(f"there is no time {value[:40]!r}") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
