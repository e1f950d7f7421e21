"""What a database says of its own tables, and what only its own words can change: for `app.storage.table_copy`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import apsw

from app.core.errors import StartupError
from app.storage.address import is_postgresql
from app.storage.database import Database
from app.storage.sql import Connection, Row, fetch_all, fetch_number

if TYPE_CHECKING:
    from app.storage.postgresql.connection import PostgresqlConnection

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

    def stop_triggers(self, c: Connection, tables: Iterable[Table]) -> None:
        """Let rows come in without what their arrival would change."""

    def start_triggers(self, c: Connection, tables: Iterable[Table]) -> None: ...

    def insert(self, c: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows of another database; of pictures also into the index of words. Raises StartupError."""

    def read_numbers(self, c: Connection) -> dict[str, int]:
        """The highest number that each numbered table has ever given, to rows that are deleted, too."""

    def set_numbers(self, c: Connection, numbers: dict[str, int]) -> None:
        """Let each table go on after the number that it has here, or after that of its highest row."""


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

    def stop_triggers(self, c: Connection, tables: Iterable[Table]) -> None:
        assert isinstance(c, apsw.Connection)
        c.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)

    def start_triggers(self, c: Connection, tables: Iterable[Table]) -> None:
        assert isinstance(c, apsw.Connection)
        c.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)

    def insert(self, c: Connection, table: Table, rows: Sequence[Row]) -> None:
        names = ", ".join(map(quote_name, table.columns))
        sql = f"INSERT INTO {quote_name(table.name)} ({names}) VALUES ({', '.join('?' * len(table.columns))})"
        c.executemany(sql, rows)
        if table.name == "images" and rows:
            first, last = (table.key_of(row)[0] for row in (rows[0], rows[-1]))
            c.execute(
                "INSERT INTO image_words (rowid, caption, tags, name, folder, ocr, generated)"
                " SELECT key, caption, tags, name, folder, ocr, generated FROM spelled_images"
                " WHERE key BETWEEN ? AND ?",
                (first, last),
            )
            c.execute(
                "INSERT INTO image_parts (rowid, text)"
                " SELECT key, concat_ws(' ', caption, tags, name, ocr, generated) FROM spelled_images"
                " WHERE key BETWEEN ? AND ?",
                (first, last),
            )

    def read_numbers(self, c: Connection) -> dict[str, int]:
        return dict(fetch_all(c, "SELECT name, seq FROM sqlite_sequence"))

    def set_numbers(self, c: Connection, numbers: dict[str, int]) -> None:
        for name, number in numbers.items():
            sql = "SELECT instr(upper(sql), 'AUTOINCREMENT') FROM sqlite_master WHERE name = ?"
            if fetch_number(c, sql, (name,)):  # the others take the highest number that is there, and one more
                c.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
                c.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))


class PostgresqlCatalogue:
    """Of PostgreSQL: the schema that is first in the search path."""

    def has_table(self, c: Connection, name: str) -> bool:
        sql = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = ?"
        return fetch_number(c, sql, (name,)) > 0

    def list_tables(self, c: Connection) -> dict[str, Table]:
        found, references = {}, {}
        for (name,) in fetch_all(c, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"):
            sql = "SELECT attname FROM pg_attribute WHERE attrelid = quote_ident(?)::regclass AND attnum > 0"
            sql += " AND NOT attisdropped"
            columns = {column for (column,) in fetch_all(c, sql, (name,))}
            sql = "SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, n)"
            sql += " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum"
            sql += " WHERE i.indrelid = quote_ident(?)::regclass AND i.indisprimary ORDER BY k.n"
            key = tuple(column for (column,) in fetch_all(c, sql, (name,)))
            found[name] = Table(name, tuple(sorted(columns)), key)
            sql = "SELECT t.relname FROM pg_constraint f JOIN pg_class t ON t.oid = f.confrelid"
            sql += " WHERE f.contype = 'f' AND f.conrelid = quote_ident(?)::regclass"
            references[name] = {row[0] for row in fetch_all(c, sql, (name,))}
        return order_by_references(found, references)

    def stop_triggers(self, c: Connection, tables: Iterable[Table]) -> None:
        for table in tables:  # an owner may do this; session_replication_role is for superusers
            sql = f"ALTER TABLE {quote_name(table.name)} DISABLE TRIGGER USER"
            c.execute(sql)

    def start_triggers(self, c: Connection, tables: Iterable[Table]) -> None:
        for table in tables:
            sql = f"ALTER TABLE {quote_name(table.name)} ENABLE TRIGGER USER"
            c.execute(sql)

    def insert(self, c: Connection, table: Table, rows: Sequence[Row]) -> None:
        from psycopg import DataError  # the extra is there, or there were no such connection

        raw: PostgresqlConnection = c  # type: ignore[assignment]
        names = ", ".join(map(quote_name, table.columns))
        try:
            with raw.raw.cursor().copy(f"COPY {quote_name(table.name)} ({names}) FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row(row)
        except (ValueError, DataError) as error:
            raise StartupError(f"a row of {table.name} cannot be kept by PostgreSQL: {error}") from None
        raw.has_changed = True
        if table.name == "images" and rows:
            first, last = (table.key_of(row)[0] for row in (rows[0], rows[-1]))
            c.execute("INSERT INTO image_words (key) SELECT key FROM images WHERE key BETWEEN ? AND ?", (first, last))
            raw.has_new_words = True  # the commit fills them

    def read_numbers(self, c: Connection) -> dict[str, int]:
        sql = "SELECT table_name, pg_sequence_last_value(pg_get_serial_sequence(quote_ident(table_name), column_name)"
        sql += "::regclass) FROM information_schema.columns"
        sql += " WHERE table_schema = current_schema() AND is_identity = 'YES' AND column_name <> ?"
        return {name: number for name, number in fetch_all(c, sql, (ROWID,)) if number is not None}

    def set_numbers(self, c: Connection, numbers: dict[str, int]) -> None:
        sql = "SELECT table_name, column_name FROM information_schema.columns"
        sql += " WHERE table_schema = current_schema() AND is_identity = 'YES'"
        for name, column in fetch_all(c, sql):
            sql = f"SELECT max({quote_name(column)}) FROM {quote_name(name)}"
            number = max(fetch_number(c, sql), numbers.get(name, 0) if column != ROWID else 0)
            if number > 0:
                fetch_all(c, "SELECT setval(pg_get_serial_sequence(quote_ident(?), ?), ?)", (name, column, number))


def catalogue_of(database: Database) -> Catalogue:
    """The catalogue of this kind of database."""
    return PostgresqlCatalogue() if is_postgresql(database.address) else SqliteCatalogue()


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
