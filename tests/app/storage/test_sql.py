from __future__ import annotations

import apsw

from app.storage.database import Database
from app.storage.sql import Clause, fetch_all, fetch_clause, fetch_number, fetch_one, join_clauses

OR = Clause(" OR ")


def test_rows_come_as_tuples_in_order() -> None:
    c = apsw.Connection(":memory:")
    assert fetch_all(c, "SELECT value, 'x' FROM json_each('[3,1]')") == [(3, "x"), (1, "x")]
    assert fetch_all(c, "SELECT 1 WHERE ?", (0,)) == []
    assert fetch_one(c, "SELECT value FROM json_each('[3,1]')") == (3,)
    assert fetch_one(c, "SELECT 1 WHERE 0") is None


def test_a_number_is_0_for_null_and_for_no_row() -> None:
    c = apsw.Connection(":memory:")
    assert fetch_number(c, "SELECT ?", (7,)) == 7
    assert fetch_number(c, "SELECT NULL") == 0
    assert fetch_number(c, "SELECT 1 WHERE 0") == 0


def test_pieces_keep_their_values_in_order(database: Database) -> None:
    asked = Clause("SELECT ? || ", "a") + Clause("? || ?", "'b", "c; --")
    assert asked.values == ("a", "'b", "c; --")
    assert database.read(lambda c: fetch_clause(c, asked)) == [("a'bc; --",)]


def test_many_are_joined_without_depth(database: Database) -> None:
    """SQLite refuses an expression 1,000 deep."""
    many = join_clauses(OR, [Clause("? = 5000", n) for n in range(1, 5001)])
    assert many.values == tuple(range(1, 5001))
    assert database.read(lambda c: fetch_clause(c, Clause("SELECT ") + many)) == [(1,)]
    assert join_clauses(OR, [Clause("1")]).sql == "1"
