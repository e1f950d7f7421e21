"""Filters as SQL. Every function runs inside the caller's transaction.

A condition is 1 or 0 for every row, never NULL, so that `NOT` inverts it. A condition on JSON first looks for the bytes
that every match must contain (`instr`), which is several times as fast.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Protocol, runtime_checkable

import apsw

from app.core.errors import Timeout
from app.core.text import split_words
from app.core.types import AnswerWarning, Target
from app.storage.filters.model import Field, Filter
from app.storage.sql import Clause, Connection, fetch_clause, join_clauses
from app.storage.tables.collections import IN_COLLECTION

Value = str | int | float | bool
Bounds = Sequence[tuple[str, int | float | str]]  # ("gt", 3), or for times ("gt", "2026-01-01T00:00:00.000Z")

MAX_SECONDS = 30.0  # for one scan of the rows
TOO_LONG = "the filter took longer than {:g} s on these rows; make it simpler"
STEPS = 20_000  # of SQLite's virtual machine between two checks of the time
MAX_NEEDLES = 8  # texts that `instr` looks for; looking for more costs as much as the condition

ALL, EMPTY = Clause("TRUE"), Clause("")
IN_ORDER = Clause(" ORDER BY key")
AND, OR, NOT = Clause(" AND "), Clause(" OR "), Clause("NOT ")
OPEN, CLOSE = Clause("("), Clause(")")
KEYS = {"images": Clause("SELECT key FROM images WHERE "), "texts": Clause("SELECT key FROM texts WHERE ")}
PAST, BELOW = IN_COLLECTION + " AND key > ? AND ", IN_COLLECTION + " AND key < ? AND "
THESE = "key IN (SELECT value FROM json_each(?)) AND " + IN_COLLECTION + " AND "
COLUMNS = {
    "id": Clause("id"),
    "tags": Clause("tags"),
    "auto_tags": Clause("auto_tags"),
    "caption": Clause("caption"),
    "source": Clause("source"),
    "format": Clause("format"),
    "width": Clause("width"),
    "height": Clause("height"),
    "bytes": Clause("bytes"),
    "animated": Clause("animated"),
    "created_at": Clause("created_at"),
    "job_id": Clause("job_id"),
    "taken_at": Clause("taken_at"),
    "camera": Clause("camera"),
    "lens": Clause("lens"),
    "ocr_text": Clause("ocr_text"),
    "generated_caption": Clause("generated_caption"),
    "video_id": Clause("video_id"),
    "t_ms": Clause("t_ms"),
    "location": Clause("latitude"),  # whether it is there: both or neither are
    "metadata": Clause("metadata"),
    "text": Clause("text"),
}
COMPARED = {"gt": Clause(" > "), "gte": Clause(" >= "), "lt": Clause(" < "), "lte": Clause(" <= ")}
ATOM = Clause("atom")
THERE = Clause(" IS NOT NULL")
IS_NUMBER = Clause("type IN ('integer', 'real')")
# A date; or seconds or milliseconds since 1970: a number of 1973 to 5138, or ten or thirteen digits from 2001 on.
DATED = (
    "(type = 'text' AND (atom GLOB '[0-9][0-9][0-9][0-9][-:/][0-9][0-9][-:/][0-9][0-9]*'"
    " OR length(atom) IN (10, 13) AND atom GLOB '1*' AND atom NOT GLOB '*[^0-9]*')"
    " OR type IN ('integer', 'real') AND atom >= 1e8 AND atom < 1e14)"
)
# The day number of a time, also as cameras (`2019:07:04 12:00:00`) and programs (`+0200`) write it; NULL for none.
DAY_NUMBER = (
    "CASE WHEN type <> 'text' OR atom NOT GLOB '????[^0-9]*'"
    " THEN julianday(CASE WHEN atom + 0 < 1e11 THEN atom + 0 ELSE atom / 1e3 END, 'unixepoch') ELSE"
    " julianday(substr(atom, 1, 4) || '-' || substr(atom, 6, 2) || '-' || substr(atom, 9, 2) ||"
    " CASE WHEN atom GLOB '??????????*[+-][0-9][0-9][0-9][0-9]'"
    " THEN substr(atom, 11, length(atom) - 12) || ':' || substr(atom, -2)"
    " ELSE replace(substr(atom, 11), ' UTC', 'Z') END) END"
)
IS_DATED, MOMENT = Clause(DATED), Clause(DAY_NUMBER)
ZONELESS = len("2019-07-04T12:00:00.000")
# The time in UTC of a picture whose camera tells its offset.
UTC_OF_TAKEN = "strftime('%Y-%m-%dT%H:%M:%f', taken_at, (-taken_offset) || ' minutes')"
TAKEN_UTC = Clause(UTC_OF_TAKEN)
EARTH = 6_371_008.8  # metres: the mean radius
METRES_PER_DEGREE = EARTH * math.pi / 180
# Of the haversine formula, with the centre's latitude, its cosine, and its longitude.
HALVES = "pow(sin(radians(latitude - ?) / 2), 2) + cos(radians(latitude)) * ? * pow(sin(radians(longitude - ?) / 2), 2)"
LISTED, UNLISTED = " IN (SELECT value FROM json_each(?))", " NOT IN (SELECT value FROM json_each(?))"

TABLES: dict[Target, Clause] = {"images": Clause("images"), "texts": Clause("texts")}
MAX_EXPLAINED = 2_000
NEWEST_ROWS = " WHERE " + IN_COLLECTION + " ORDER BY key DESC LIMIT ?) AS newest, "
COMPARABLE = {  # what a range of each kind compares, and how it is written
    "number": (IS_NUMBER, "a range with numbers compares numbers, not texts"),
    "time": (IS_DATED + AND + MOMENT + THERE, "a time is 2026-01-31, 2026-01-31T12:00:00Z, or seconds since 1970"),
}


@runtime_checkable
class LimitedConnection(Protocol):
    """A connection to a server that ends what takes too long."""

    def limit_time(self, seconds: float) -> AbstractContextManager[None]:
        """Interrupt the statements of the block after `seconds`. Raises Timeout."""


def select_keys(c: Connection, collection: str, filter: Filter, after: int = 0) -> list[int]:
    """The keys past `after` of the rows that match, ascending. Raises Timeout."""
    return _fetch_keys(c, filter, Clause(PAST, collection, after), IN_ORDER)


def select_newest(c: Connection, collection: str, filter: Filter, limit: int, before: int | None) -> list[int]:
    """Up to `limit` keys below `before` of rows that match, descending. Raises Timeout."""
    below = Clause(BELOW, collection, before if before is not None else 1 << 62)
    return _fetch_keys(c, filter, below, Clause(" ORDER BY key DESC LIMIT ?", limit))


def select_passing(c: Connection, collection: str, filter: Filter, keys: Iterable[int]) -> list[int]:
    """Those of `keys` whose rows match. Raises Timeout."""
    return _fetch_keys(c, filter, Clause(THESE, to_json([int(key) for key in keys]), collection), IN_ORDER)


def _fetch_keys(c: Connection, filter: Filter, among: Clause, order: Clause = EMPTY) -> list[int]:
    with time_limit(c):
        return [row[0] for row in fetch_clause(c, KEYS[filter.target] + among + filter.condition + order)]


def change_position(c: Connection, target: Target) -> tuple[int, int]:
    """The highest key of the target's rows, and the number of the last change."""
    ((key, change),) = fetch_clause(c, NEWEST[target])
    return key, change


NEWEST = {
    "images": Clause("SELECT (SELECT coalesce(max(key), 0) FROM images), (SELECT coalesce(max(n), 0) FROM changes)"),
    "texts": Clause("SELECT (SELECT coalesce(max(key), 0) FROM texts), (SELECT coalesce(max(n), 0) FROM changes)"),
}


def changed_keys(c: Connection, target: Target, since: int) -> list[int] | None:
    """The keys of rows that changed or were deleted after the change `since`; None when they are forgotten."""
    ((oldest,),) = fetch_clause(c, Clause("SELECT coalesce(min(n), 0) FROM changes"))
    if oldest > since + 1:
        return None
    query = Clause("SELECT DISTINCT key FROM changes WHERE n > ? AND target = ?", since, target)
    return [row[0] for row in fetch_clause(c, query)]


def explain_filter(c: Connection, collection: str, filter: Filter) -> list[AnswerWarning]:
    """Why a filter may match fewer rows than meant: entries that no row has, and values that its ranges cannot compare.

    It looks at the newest MAX_EXPLAINED rows. Raises Timeout.
    """
    found = []
    for field, kind in filter.compared:
        suits, form = COMPARABLE.get(kind or "", (ALL, ""))
        counts = Clause("count(*), sum(iif(") + suits + Clause(", 0, 1)), max(CASE WHEN NOT (") + suits
        rows = Clause(") THEN json_quote(value) END) FROM (SELECT metadata FROM ") + TABLES[filter.target]
        rows += Clause(NEWEST_ROWS, collection, MAX_EXPLAINED)
        values = Clause("json_each(metadata, ?) WHERE typeof(key) <> 'text' AND type <> 'null'", json_path(field))
        with time_limit(c):
            ((count, odd, example),) = fetch_clause(c, Clause("SELECT ") + counts + rows + values)
        name = ".".join(("metadata", *field.path))[:100]
        if not count:
            detail = f"none of the {filter.target} has {name} (of the newest {MAX_EXPLAINED:,})"
            found.append(AnswerWarning("filter_no_value", detail, "filter"))
        elif odd:
            detail = f"{odd:,.0f} of {count:,} values of {name} are no {kind}s, like {str(example)[:60]}; {form}"
            found.append(AnswerWarning("filter_other_values", detail, "filter"))
    return found


@contextmanager
def time_limit(c: Connection, seconds: float = MAX_SECONDS) -> Iterator[None]:
    """Interrupt the statements of the block after `seconds`. Raises Timeout."""
    if isinstance(c, LimitedConnection):
        with c.limit_time(seconds):
            yield
        return
    assert isinstance(c, apsw.Connection)
    until = monotonic() + seconds
    c.set_progress_handler(lambda: monotonic() > until, STEPS)
    try:
        yield
    except apsw.InterruptError:
        raise Timeout(TOO_LONG.format(seconds)) from None
    finally:
        c.set_progress_handler(None)


def combine(must: Sequence[Clause], should: Sequence[Clause], must_not: Sequence[Clause]) -> Clause:
    """All of `must`, at least one of `should` if there are any, none of `must_not`."""
    parts = [*must, *([join_clauses(OR, should)] if should else []), *(NOT + clause for clause in must_not)]
    return join_clauses(AND, parts) if parts else ALL


def match_values(field: Field, values: Sequence[Value], *, negated: bool = False) -> Clause:
    """One of the field's values is one of `values`; or, `negated`, one of them is none of `values`."""
    column = COLUMNS[field.name]
    if not field.is_json:
        if len(values) == 1 and not negated:
            return OPEN + column + Clause(" IS ?)", values[0])
        listed = Clause(UNLISTED if negated else LISTED, to_json(values))
        return OPEN + column + THERE + AND + column + listed + CLOSE
    flags = ["true" if value else "false" for value in values if isinstance(value, bool)]
    numbers = [value for value in values if not isinstance(value, bool | str)]
    texts = [value for value in values if isinstance(value, str)]
    one_of = Clause(
        "CASE type WHEN 'text' THEN atom IN (SELECT value FROM json_each(?))"
        " WHEN 'integer' THEN atom IN (SELECT value FROM json_each(?))"
        " WHEN 'real' THEN atom IN (SELECT value FROM json_each(?))"
        " WHEN 'null' THEN ? = 1 WHEN 'array' THEN ? = 1 WHEN 'object' THEN ? = 1"
        " ELSE type IN (SELECT value FROM json_each(?)) END",
        to_json(texts),
        to_json(numbers),
        to_json(numbers),
        *[int(negated)] * 3,  # null, a list and an object are never values, negated or not
        to_json(flags),
    )
    if negated:
        return _some(field, NOT + OPEN + one_of + CLOSE, ())
    return _some(field, one_of, texts if len(texts) == len(values) else ())


def match_words(field: Field, text: str) -> Clause:
    """The field contains every word of `text`."""
    wanted = sorted(split_words(text), key=len)
    column = COLUMNS[field.name]
    if field.is_json:
        return _some(field, Clause("type = 'text' AND has_words(atom, ?)", text), ())
    # An ASCII text contains an ASCII word letter for letter, and no other words.
    if all(word.isascii() for word in wanted):
        likely = OPEN + column + Clause(" LIKE ? OR ", f"%{wanted[-1]}%") + _foreign(column) + CLOSE
    else:
        likely = _foreign(column)
    return OPEN + column + THERE + AND + likely + Clause(" AND has_words(") + column + Clause(", ?))", text)


def _foreign(column: Clause) -> Clause:
    """Whether a text has a character that is not ASCII."""
    return Clause("octet_length(") + column + Clause(") <> length(") + column + CLOSE


def match_range(field: Field, bounds: Bounds) -> Clause:
    """One of the field's values is within all bounds."""
    column = COLUMNS[field.name]
    timed = isinstance(bounds[0][1], str)
    if not field.is_json:
        compared = [column + COMPARED[name] + Clause("?", bound) for name, bound in bounds]
        return OPEN + column + THERE + AND + join_clauses(AND, compared) + CLOSE
    if timed:
        written = IS_DATED + AND
        compared = [MOMENT + COMPARED[name] + Clause("julianday(?)", bound) for name, bound in bounds]
    else:  # json_extract parses the bound as it parses the stored number
        written = IS_NUMBER + AND
        compared = [ATOM + COMPARED[name] + Clause("json_extract(?, '$')", to_json(b)) for name, b in bounds]
    return _some(field, written + join_clauses(AND, compared), ())


def match_taken(bounds: Sequence[tuple[str, str]]) -> Clause:
    """The time of taking is within all bounds. One with a zone means a moment; where the camera tells no offset, its
    clock is taken for one in that zone."""
    compared = []
    for name, bound in bounds:
        wall = bound[:ZONELESS]
        on_clock = Clause("taken_at") + COMPARED[name] + Clause("?", wall)
        if wall != bound:
            moment = datetime.fromisoformat(bound).astimezone(UTC).replace(tzinfo=None)
            in_utc = TAKEN_UTC + COMPARED[name] + Clause("?", moment.isoformat(timespec="milliseconds"))
            on_clock = Clause("CASE WHEN taken_offset IS NULL THEN ") + on_clock + Clause(" ELSE ") + in_utc
            on_clock += Clause(" END")
        compared.append(on_clock)
    return Clause("(taken_at IS NOT NULL AND ") + join_clauses(AND, compared) + CLOSE


def match_box(north: float, west: float, south: float, east: float) -> Clause:
    """The place lies in the box, which may cross the 180th meridian (then `west` > `east`); a pole has no longitude."""
    box = Clause("(latitude IS NOT NULL AND latitude BETWEEN ? AND ? AND (abs(latitude) = 90", south, north)
    if west <= east:
        box += Clause(" OR longitude BETWEEN ? AND ?", west, east)
        for edge in (west, east):
            box += Clause(" OR longitude = ?", -edge) if abs(edge) == 180 else EMPTY
    else:
        box += Clause(" OR longitude >= ? OR longitude <= ?", west, east)
    return box + Clause("))")


def match_circle(latitude: float, longitude: float, radius: float) -> Clause:
    """The place is at most `radius` metres away, on a sphere (haversine)."""
    reach = radius / METRES_PER_DEGREE + 1e-6
    near = Clause("(latitude IS NOT NULL AND latitude BETWEEN ? AND ?", latitude - reach, latitude + reach)
    away = Clause(HALVES, latitude, math.cos(math.radians(latitude)), longitude)
    return near + Clause(" AND ? * asin(min(1.0, sqrt(", 2 * EARTH) + away + Clause("))) <= ?)", radius)


def match_present(field: Field) -> Clause:
    """The field has a value: it is there, not null, and no empty list."""
    column = COLUMNS[field.name]
    if not field.is_json:
        return OPEN + column + THERE + CLOSE
    path = json_path(field)
    return (
        Clause("(CASE json_type(")
        + column
        + Clause(", ?) WHEN 'array' THEN EXISTS (SELECT 1 FROM json_each(", path)
        + column
        + Clause(", ?) WHERE type <> 'null') WHEN 'null' THEN FALSE ELSE json_type(", path)
        + column
        + Clause(", ?) IS NOT NULL END)", path)
    )


def match_null(field: Field) -> Clause:
    """The field is there and null, or a list with a null in it."""
    column = COLUMNS[field.name]
    if not field.is_json:
        return OPEN + column + Clause(" IS NULL)")
    return _some(field, Clause("type = 'null'"), ())


def _some(field: Field, question: Clause, texts: Sequence[str]) -> Clause:
    """Whether `question` holds for one of the values at the field's path: the value itself, or those of its list.

    With `texts`, the value must be one of them, so that `instr` looks for them first.
    """
    column = COLUMNS[field.name]
    needles = (
        [to_json(text) for text in texts]
        if 0 < len(texts) <= MAX_NEEDLES
        else [to_json(part) for part in field.path[-1:]]
    )
    found = [Clause("instr(") + column + Clause(", ?) > 0", needle) for needle in needles]
    likely = join_clauses(OR, found) + AND if found else EMPTY
    return (
        OPEN
        + likely
        + Clause("EXISTS (SELECT 1 FROM json_each(")
        + column
        + Clause(", ?) WHERE typeof(key) <> 'text' AND (", json_path(field))  # a text key is an entry of an object
        + question
        + Clause(")))")
    )


def json_path(field: Field) -> str:
    """The field's path in SQLite's syntax, as a bound value."""
    return "".join(["$", *(f'."{name}"' for name in field.path)])


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
