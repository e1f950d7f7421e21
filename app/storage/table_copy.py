"""Copies the rows of every table from one database into another, of either kind: the half of `sightline move`.

Both databases say themselves which tables and columns they have, so that a new table is copied, too. Only what belongs
to one place stays behind (`NOT_COPIED`), and what a database makes of other rows, as its index of words.

Rows go in portions in the order of their keys; the transaction of each also notes, in the table `moving` of the target,
how far it came. So a move that was killed goes on there. As long as that table exists the target is unfinished:
`app.service.data_dir` opens it for nobody else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.core.errors import StartupError
from app.storage.catalogue import ROWID, Catalogue, Table, catalogue_of, quote_name
from app.storage.database import Database
from app.storage.library import COUNT_ANYTHING
from app.storage.sql import Connection, Row, fetch_all, fetch_number, fetch_one

# How far a move is, how old the schema is; and what PostgreSQL makes of words and counts.
NOT_COPIED = frozenset({"moving", "schema_version", "image_words", "image_counts"})
FIRST_ROWS = 16  # of the first portion of a table
MAX_ROWS = 2_000
PORTION_BYTES = 4 << 20  # what a portion should have
SOURCE = "(source)"  # the row of `moving` that says what is moved
FINISHED = "finished"

# What is done, and how much of how much.
Report = Callable[[str, int, int], None]

CREATE_MOVING = "CREATE TABLE moving (name TEXT PRIMARY KEY, place TEXT NOT NULL)"
SET_PLACE = "INSERT INTO moving (name, place) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET place = excluded.place"
# A lease is held by a process of the source, and its deadline goes by the clock of the source.
END_LEASES = (
    "UPDATE images SET lease_until = 0 WHERE lease_owner IS NOT NULL",
    "UPDATE sources SET lease_until = 0 WHERE lease_owner IS NOT NULL",
    "UPDATE enrichments SET state = 'waiting', owner = NULL, lease_until = NULL WHERE state = 'running'",
)


@dataclass(frozen=True, slots=True)
class Digest:
    """How many rows a table has, and the sum of their SHA-256: the same in whatever order they come."""

    rows: int
    sum: int


class TableCopy:
    """One move of all rows. Nobody changes the source meanwhile: the caller holds it for itself."""

    def __init__(self, source: Database, target: Database) -> None:
        """Raises StartupError where the two have other tables or columns."""
        self._source, self._target = source, target
        self._catalogue = catalogue_of(target)
        ours, theirs = (list_copied(side) for side in (source, target))
        if odd := sorted(name for name in ours | theirs if not has_same_columns(ours.get(name), theirs.get(name))):
            raise StartupError(f"source and target have other tables or columns ({', '.join(odd)}); nothing was copied")
        # in the order that the references of the target want, and with the columns that both have
        self.tables = [ours[name].keep_columns(theirs[name].columns) for name in theirs]

    def begin(self, source_id: str) -> None:
        """Mark the target as unfinished. Raises StartupError where it holds something, or another move."""

        def work(c: Connection) -> None:
            if not is_moving(c, self._catalogue):
                if not is_empty(c):
                    raise StartupError("the target database holds something already; name an empty one")
                c.execute(CREATE_MOVING)
                set_place(c, SOURCE, source_id)
            elif get_place(c, SOURCE) != source_id:
                raise StartupError("the target database holds an unfinished move of another source; name an empty one")

        self._target.write(work)

    def copy_rows(self, report: Report) -> int:
        """Copy what is not there yet, table after table; returns how many rows the source has."""
        self._target.write(lambda c: self._catalogue.stop_triggers(c, self.tables))
        done, total = 0, sum(count_rows(self._source, table) for table in self.tables)
        for table in self.tables:
            done += count_rows(self._target, table) if self.read_place(table.name) else 0
            for rows in self._copy_portions(table):
                done += rows
                report(f"rows of {table.name}", done, total)
        return total

    def check_rows(self, report: Report) -> str:
        """Compare all rows of both; returns their digest. Raises StartupError where they differ."""
        return self._digest_rows(report, (self._source, self._target))

    def digest_source(self, report: Report) -> str:
        """The digest that `check_rows` would return."""
        return self._digest_rows(report, (self._source,))

    def _digest_rows(self, report: Report, sides: Sequence[Database]) -> str:
        total = sum(count_rows(self._source, table) for table in self.tables)
        done = 0
        digests = []
        for table in self.tables:
            one, *others = (digest_rows(side, table) for side in sides)
            for other in others:
                if one != other:
                    raise StartupError(
                        f"{table.name} has {one.rows} rows in the source and {other.rows} in the target"
                        + (", and they differ" if one.rows == other.rows else "")
                        + ": the source has changed since this move began; empty the target and begin again"
                    )
            done += one.rows
            report("checking rows", done, total)
            digests.append((table.name, one.rows, one.sum))
        return hashlib.sha256(repr(sorted(digests)).encode()).hexdigest()

    def finish(self, change: Callable[[Connection], object]) -> None:
        """Go on with the numbers of the source, and give the target to everybody.

        `change` says in the same transaction what is otherwise there.
        """
        numbers = self._source.read(catalogue_of(self._source).read_numbers)

        def work(c: Connection) -> None:
            self._catalogue.set_numbers(c, numbers)
            for statement in END_LEASES:
                c.execute(statement)
            change(c)
            self._catalogue.start_triggers(c, self.tables)
            c.execute("DROP TABLE moving")

        self._target.write(work)

    def read_place(self, name: str) -> Any:
        """How far a table, or the files, have come; None before the beginning."""
        return self._target.read(lambda c: get_place(c, name))

    def write_place(self, name: str, place: Any) -> None:
        self._target.write(lambda c: set_place(c, name, place))

    def _copy_portions(self, table: Table) -> Iterator[int]:
        """Copy the rows of a table past the place that was reached; yields how many each portion had."""
        place = self.read_place(table.name)
        limit = FIRST_ROWS
        while place != FINISHED:
            rows = self._source.read(partial(select_rows, table=table, place=place, limit=limit))
            is_last = not table.key or len(rows) < limit
            reached = FINISHED if is_last else table.key_of(rows[-1])
            self._target.write(partial(self._insert, table, rows, place is None, reached))
            yield len(rows)
            place = reached
            if rows:
                limit = max(1, min(MAX_ROWS, PORTION_BYTES * len(rows) // sum(map(measure_row, rows))))

    def _insert(self, table: Table, rows: Sequence[Row], is_first: bool, reached: Any, c: Connection) -> None:
        if is_first:  # what the schema itself puts there
            sql = "DELETE FROM " + quote_name(table.name)
            c.execute(sql)
        self._catalogue.insert(c, table, rows)
        set_place(c, table.name, reached)


def is_unfinished(database: Database) -> bool:
    """Whether a move into this database has begun and not ended."""
    return database.read(lambda c: is_moving(c, catalogue_of(database)))


def is_moving(c: Connection, catalogue: Catalogue) -> bool:
    return catalogue.has_table(c, "moving")


def list_copied(database: Database) -> dict[str, Table]:
    """The tables of a database whose rows are copied."""
    found = database.read(catalogue_of(database).list_tables)
    return {name: table for name, table in found.items() if name not in NOT_COPIED}


def is_empty(c: Connection) -> bool:
    """Whether a database holds no more than a new one does."""
    return fetch_number(c, COUNT_ANYTHING) == 0 and fetch_number(c, "SELECT count(*) FROM collections") <= 1


def has_same_columns(one: Table | None, other: Table | None) -> bool:
    """Whether two databases mean the same table. SQLite numbers the rows of each; only some numbers matter."""
    return one is not None and other is not None and {*one.columns} ^ {*other.columns} <= {ROWID}


def select_rows(c: Connection, table: Table, place: Sequence[Any] | None, limit: int) -> list[Row]:
    """The rows past `place` in the order of the key; all of a table without a key, which has one or a few."""
    names = ", ".join(map(quote_name, table.columns))
    sql = f"SELECT {names} FROM {quote_name(table.name)}"
    if not table.key:
        return fetch_all(c, sql)
    key = ", ".join(map(quote_name, table.key))
    if place is not None:
        sql += f" WHERE ({key}) > ({', '.join('?' * len(table.key))})"
    sql += f" ORDER BY {key} LIMIT ?"
    return fetch_all(c, sql, (*(place or ()), limit))


def count_rows(database: Database, table: Table) -> int:
    sql = "SELECT count(*) FROM " + quote_name(table.name)
    return database.read(lambda c: fetch_number(c, sql))


def digest_rows(database: Database, table: Table) -> Digest:
    """Read a whole table."""
    place: Any = None
    limit = FIRST_ROWS
    count = total = 0
    while True:
        rows = database.read(partial(select_rows, table=table, place=place, limit=limit))
        count += len(rows)
        total += sum(digest_row(row) for row in rows)
        if not table.key or len(rows) < limit:
            return Digest(count, total % (1 << 256))
        place = table.key_of(rows[-1])
        limit = max(1, min(MAX_ROWS, PORTION_BYTES * len(rows) // sum(map(measure_row, rows))))


def digest_row(row: Row) -> int:
    """SHA-256 over the values of a row: numbers, texts and bytes, which both databases give alike."""
    return int.from_bytes(hashlib.sha256(repr(tuple(row)).encode()).digest())


def measure_row(row: Row) -> int:
    """About how many bytes a row has."""
    return sum(len(value) if isinstance(value, str | bytes | memoryview) else 8 for value in row) + 1


def get_place(c: Connection, name: str) -> Any:
    row = fetch_one(c, "SELECT place FROM moving WHERE name = ?", (name,))
    return None if row is None else json.loads(row[0], object_hook=lambda found: bytes.fromhex(found["bytes"]))


def set_place(c: Connection, name: str, place: Any) -> None:
    text = json.dumps(place, default=lambda value: {"bytes": bytes(value).hex()})
    c.execute(SET_PLACE, (name, text))
