from __future__ import annotations

from app.storage.database import Database
from app.storage.filters.clause import Clause, fetch_clause, join_clauses

OR = Clause(" OR ")


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
