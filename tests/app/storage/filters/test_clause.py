from __future__ import annotations

from app.storage.database import Database
from app.storage.filters.clause import Clause, fetch_clause, joined

OR = Clause(" OR ")


def test_pieces_keep_their_values_in_order(database: Database) -> None:
    asked = Clause("SELECT ? || ", "a") + Clause("? || ?", "'b", "c; --")
    assert asked.values == ("a", "'b", "c; --")
    assert database.read(lambda c: fetch_clause(c, asked)) == [("a'bc; --",)]


def test_many_are_joined_without_depth(database: Database) -> None:
    """SQLite refuses an expression 1,000 deep."""
    many = joined(OR, [Clause("? = 5000", n) for n in range(1, 5001)])
    assert many.values == tuple(range(1, 5001))
    assert database.read(lambda c: fetch_clause(c, Clause("SELECT ") + many)) == [(1,)]
    assert joined(OR, [Clause("1")]).sql == "1"
