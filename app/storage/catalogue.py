"""What a database says of its own tables, and what only its own words can change: for `app.storage.table_copy`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import apsw

from app.storage.database import Database
from app.storage.sql import Connection, Row, fetch_all, fetch_number

ROWID = "rowid"  # the order in which rows came: SQLite has it beside the columns of a table, PostgreSQL as one of them


@dataclass(frozen=True, slots=True)
class Table:
    """A table with rows of its own. `key` are the columns that tell rows apart, and order them."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def key_of(self, row: Row) -> list[Any]:
        return [row[self.columns.index(name)] for name in self.key]

    def keep_columns(self, names: Collection[str]) -> Table:
        """The same without the columns that are not among these."""
        return Table(self.name, tuple(name for name in self.columns if name in names), self.key)


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
        sql = "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        sql += " AND name NOT GLOB 'sqlite_*'"
        found, references = {}, {}
        for name, has_no_rowid in fetch_all(c, sql):
            listed = fetch_all(c, "SELECT name, pk, type FROM pragma_table_xinfo(?) WHERE hidden = 0", (name,))
            key = tuple(column for _, column in sorted((pk, column) for column, pk, _ in listed if pk))
            columns = {column for column, _, _ in listed}
            if not has_no_rowid and not any(pk and type == "INTEGER" for _, pk, type in listed):
                columns.add(ROWID)
            found[name] = Table(name, tuple(sorted(columns)), key)
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
