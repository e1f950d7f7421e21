from __future__ import annotations

import apsw

from app.storage.sql import fetch_all, fetch_number, fetch_one


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
