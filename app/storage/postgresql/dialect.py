"""SQLite's statements as PostgreSQL takes them. What a name can do is in functions.sql; here is what needs other words.

- `?` and `?1` become `$1`; a value that is None becomes NULL in the text, as PostgreSQL asks for the types of values.
- `x IS ?` becomes `x = $1` or `x IS NULL`, so that an index serves it.
- `x IN (SELECT value FROM json_each(?))` becomes `x = ANY($1)`, and the JSON list that was bound an array.
- `LIKE` does not tell cases apart, `INDEXED BY` is none of its business.
- `FRAGMENTS` are what has no form for both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from app.storage.filters import sql as filters
from app.storage.filters import values
from app.storage.tables import images
from app.storage.tables.collections import LABEL_OF_NAME

FRAGMENTS = {
    filters.DATED: "json_is_dated(type, atom)",
    filters.DAY_NUMBER: "json_moment(type, atom)",
    filters.UTC_OF_TAKEN: "utc_of_taken(taken_at, taken_offset)",
    images.COUNT_BY_STATUS: "SELECT * FROM count_by_status(" + LABEL_OF_NAME + ")",
    images.COUNT_ALL: "SELECT label, of_label.* FROM collections, count_by_status(label) AS of_label",
    values.ENTRY: "json_sortable(metadata, ?, ?, ?, ?)",
}
IN_LIST = r"(?<!atom) (NOT )?IN \(SELECT value FROM json_each\(\?(\d*)\)\)"
TOKEN = re.compile(rf"'(?:[^']|'')*'|{IN_LIST}| IS \?(\d*)|\?(\d*)| LIKE | INDEXED BY \w+|(\w+) ->> '\$\.([\w.]+)'")
CHANGES = ("INSERT", "UPDATE", "DELETE")
WORDS = re.compile(r"\s*(INSERT INTO|UPDATE) images\b.*\b(caption|tags|source|ocr_text|generated_caption)\b", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A place for a value in a statement: which value, and how it is compared."""

    index: int
    form: str = ""  # "IS", "IN" or "NOT IN"

    def write(self, place: str) -> str:
        is_null = place == "NULL"
        if self.form == "IS":
            return " IS NULL" if is_null else f" = {place}"
        if self.form:
            return f" = ANY({place})" if self.form == "IN" else f" <> ALL({place})"
        return place


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement in parts: texts and the places between them."""

    parts: tuple[str | Parameter, ...]
    lists: frozenset[int]  # the values that are JSON lists
    is_change: bool
    has_words: bool  # it may change the words of a picture
    _written: dict[int, tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    def write(self, nulls: int) -> tuple[str, tuple[int, ...]]:
        """The text when the values of the bits `nulls` are None, and the indexes of the values that it takes."""
        written = self._written.get(nulls)
        if written is None:
            numbers: dict[int, int] = {}
            text = ""
            for part in self.parts:
                if isinstance(part, str):
                    text += part
                elif nulls >> part.index & 1:
                    text += part.write("NULL")
                else:
                    text += part.write(f"${numbers.setdefault(part.index, len(numbers) + 1)}")
            written = self._written[nulls] = text, tuple(numbers)
        return written


@lru_cache(maxsize=2048)
def parse(sql: str) -> Statement:
    """A statement of SQLite in parts."""
    for fragment, other in FRAGMENTS.items():
        sql = sql.replace(fragment, other)
    parts: list[str | Parameter] = []
    lists: set[int] = set()
    end = count = 0
    for match in TOKEN.finditer(sql):
        parts.append(sql[end : match.start()])
        end = match.end()
        text = match.group()
        negated, listed, compared, plain, column, path = match.groups()
        if text.startswith("'"):
            parts.append(text)
        elif column is not None:
            parts.append(f"(json_of({column}) #>> '{{{path.replace('.', ',')}}}')")
        elif text.endswith((" LIKE ",)):
            parts.append(" ILIKE ")
        elif text.startswith(" INDEXED BY"):
            continue
        else:
            number = next(one for one in (listed, compared, plain) if one is not None)
            index = int(number) - 1 if number else count
            count += 1
            form = ("NOT IN" if negated else "IN") if listed is not None else "IS" if compared is not None else ""
            parts.append(Parameter(index, form))
            if listed is not None:
                lists.add(index)
    parts.append(sql[end:])
    return Statement(
        tuple(parts),
        frozenset(lists),
        sql.lstrip().startswith(CHANGES),
        bool(WORDS.match(sql.partition(" RETURNING ")[0])),
    )


def bind(sql: str, values: Sequence[Any]) -> tuple[Statement, str, list[Any]]:
    """A statement, its text for these values, and the values in the order of `$1`, `$2`."""
    statement = parse(sql)
    nulls = 0
    for n, value in enumerate(values):
        if value is None:
            nulls |= 1 << n
    text, indexes = statement.write(nulls)
    return statement, text, [_convert(values[n], n in statement.lists) for n in indexes]


def _convert(value: Any, is_list: bool) -> Any:
    if is_list:
        return [_convert(one, False) for one in _read_list(value)]
    if type(value) is str:
        return value.replace("\0", "") if "\0" in value else value
    if type(value) is bool:
        return int(value)
    return value


def _read_list(text: str) -> list[Any]:
    """The values of a JSON list, all of one type: numbers become floats if one of them is."""
    found = [one for one in json.loads(text) if one is not None]
    if any(type(one) is float for one in found):
        return [float(one) for one in found]
    return found
