from __future__ import annotations

from app.sources.key_index import KeyIndex


def test_a_key_names_its_row_unless_it_comes_twice() -> None:
    names = [f"{n:09}" for n in range(1_000)]
    keys = KeyIndex([*names, "twice", "ü/twice", "twice"])
    assert [keys.find_row(name) for name in names] == list(range(1_000))
    assert keys.find_row("ü/twice") == 1_001
    assert keys.find_row("twice") is None
    assert keys.find_row("000001000") is None
    assert keys.count_unfound() == 0
    assert KeyIndex(["a", "b", "c"]).count_unfound() == 3


def test_no_rows_have_no_keys() -> None:
    assert KeyIndex([]).find_row("a") is None
