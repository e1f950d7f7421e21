"""What a database says of its own tables, and what only its own words can change: for `app.storage.table_copy`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import apsw

from app.storage.database import Database
from app.storage.sql import Connection, Row, fetch_all, fetch_number


@dataclass(frozen=True, slots=True)
class Table:
    """A table with rows of its own. `key` are the columns that tell rows apart, and order them."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def key_of(self, row: Row) -> list[Any]:
        return [row[self.columns.index(name)] for name in self.key]


class Catalogue(Protocol):
    """Of one kind of database. Each function runs in a transaction of the caller's."""

    def has_table(self, c: Connection, name: str) -> bool: ...

    def list_tables(self, c: Connection) -> dict[str, Table]:
        """Every table with rows of its own, each after those that it refers to; columns in the order of their names."""

    def stop_triggers(self, c: Connection, table: Table) -> None:
        """Let rows come in without what their arrival would change."""

    def start_triggers(self, c: Connection, table: Table) -> None: ...

    def adapt_rows(self, table: Table, rows: Sequence[Row]) -> Iterable[Row]:
        """Rows of another database as this one stores them."""

    def read_numbers(self, c: Connection) -> dict[str, int]:
        """The highest number that each numbered table has ever given, to rows that are deleted, too."""

    def set_numbers(self, c: Connection, numbers: dict[str, int]) -> None: ...

    def fill_words(self, c: Connection) -> None:
        """Make the index of words of the pictures that are there."""


class SqliteCatalogue:
    """Of SQLite."""

    def has_table(self, c: Connection, name: str) -> bool:
        return fetch_number(c, "SELECT count(*) FROM pragma_table_list WHERE name = ?", (name,)) > 0

    def list_tables(self, c: Connection) -> dict[str, Table]:
        sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT GLOB 'sqlite_*'"
        found, references = {}, {}
        for (name,) in fetch_all(c, sql):
            columns = fetch_all(c, "SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden = 0", (name,))
            key = tuple(column for _, column in sorted((pk, column) for column, pk in columns if pk))
            found[name] = Table(name, tuple(sorted(column for column, _ in columns)), key)
            rows = fetch_all(c, 'SELECT DISTINCT "table" FROM pragma_foreign_key_list(?)', (name,))
            references[name] = {row[0] for row in rows}
        return order_by_references(found, references)

    def stop_triggers(self, c: Connection, table: Table) -> None:
        self._switch_triggers(c, 0)

    def start_triggers(self, c: Connection, table: Table) -> None:
        self._switch_triggers(c, 1)

    def _switch_triggers(self, c: Connection, on: int) -> None:
        assert isinstance(c, apsw.Connection)
        c.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, on)

    def adapt_rows(self, table: Table, rows: Sequence[Row]) -> Iterable[Row]:
        return [tuple(int(value) if isinstance(value, bool) else value for value in row) for row in rows]

    def read_numbers(self, c: Connection) -> dict[str, int]:
        return dict(fetch_all(c, "SELECT name, seq FROM sqlite_sequence"))

    def set_numbers(self, c: Connection, numbers: dict[str, int]) -> None:
        for name, number in numbers.items():
            sql = "SELECT instr(upper(sql), 'AUTOINCREMENT') FROM sqlite_master WHERE name = ?"
            if fetch_number(c, sql, (name,)):  # the others take the highest number that is there, and one more
                c.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
                c.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))

    def fill_words(self, c: Connection) -> None:
        c.execute("INSERT INTO image_words (image_words) VALUES ('delete-all')")
        c.execute("INSERT INTO image_parts (image_parts) VALUES ('delete-all')")
        c.execute(
            "INSERT INTO image_words (rowid, caption, tags, name, folder, ocr, generated)"
            " SELECT key, caption, tags, name, folder, ocr, generated FROM spelled_images"
        )
        c.execute(
            "INSERT INTO image_parts (rowid, text)"
            " SELECT key, concat_ws(' ', caption, tags, name, ocr, generated) FROM spelled_images"
        )


def catalogue_of(database: Database) -> Catalogue:
    """The catalogue of this kind of database."""
    return SqliteCatalogue()


def order_by_references(tables: dict[str, Table], references: dict[str, set[str]]) -> dict[str, Table]:
    """The tables so that each comes after those that it refers to."""
    ordered: dict[str, Table] = {}
    while len(ordered) < len(tables):
        free = [name for name in sorted(tables) if name not in ordered and references[name] <= {*ordered, name}]
        assert free, "tables refer to each other in a circle"
        ordered |= {name: tables[name] for name in free}
    return ordered


def quote_name(name: str) -> str:
    """A name of a table or a column, as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'
