"""The connection that every function on tables takes, and typed shorthands for queries.

The statements are SQLite's; `app.storage.postgresql.dialect` says what PostgreSQL makes of them. They have what both
can do: `RETURNING` and `ON CONFLICT`, numbers for flags (`is_new = 1`), parameters as `?` or all as `?1`.

A `Clause` is a piece of SQL that a function joins at run time. Each piece comes from a constant, and pieces can only be
joined, so that no value becomes part of a statement: tests/test_architecture.py checks every place that makes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Row = tuple[Any, ...]
Bound = str | int | float | None


class Connection(Protocol):
    """What `apsw.Connection` and that of PostgreSQL have in common. A row is a tuple; flags are 0 and 1, or bools."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Iterator[Any]:
        """Run a statement; its rows."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run a statement once for each row of values."""

    def changes(self) -> int:
        """How many rows the last INSERT, UPDATE or DELETE changed."""


def fetch_all(c: Connection, sql: str, values: Sequence[Any] = ()) -> list[Row]:
    return list(c.execute(sql, values))


def fetch_one(c: Connection, sql: str, values: Sequence[Any] = ()) -> Row | None:
    """The first row; None when there is none."""
    return next(iter(c.execute(sql, values)), None)


def fetch_number(c: Connection, sql: str, values: Sequence[Any] = ()) -> int:
    """The one number that a query returns; 0 for NULL or no row."""
    row = fetch_one(c, sql, values)
    return int(row[0] or 0) if row else 0


def write_places(rows: int, columns: int) -> str:
    """The places of a VALUES of so many rows; the columns are called `column1` and so on in both databases."""
    row = "(?" + ", ?" * (columns - 1) + ")"
    return row + (", " + row) * (rows - 1)


@dataclass(frozen=True, slots=True, init=False)
class Clause:
    """SQL with its values in the order of their question marks."""

    sql: str
    values: tuple[Bound, ...]

    def __init__(self, sql: str, *values: Bound) -> None:
        object.__setattr__(self, "sql", sql)
        object.__setattr__(self, "values", values)

    def __add__(self, other: Clause) -> Clause:
        return Clause(self.sql + other.sql, *self.values, *other.values)


def join_clauses(word: Clause, clauses: Sequence[Clause]) -> Clause:
    """The clauses with `word` between them, in brackets nested like a balanced tree: SQLite bounds the depth."""
    if len(clauses) == 1:
        return clauses[0]
    middle = len(clauses) // 2
    return (
        Clause("(") + join_clauses(word, clauses[:middle]) + word + join_clauses(word, clauses[middle:]) + Clause(")")
    )


def fetch_clause(c: Connection, clause: Clause) -> list[Row]:
    """All rows of a statement."""
    return list(c.execute(clause.sql, clause.values))
