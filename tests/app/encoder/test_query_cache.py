"""Vectors of recent texts: found again, bounded, the oldest go first."""

from __future__ import annotations

import numpy as np

from app.encoder.query_cache import OVERHEAD, QueryCache

D = 8
ENTRY = 4 * D + 4 + OVERHEAD  # bytes of a text of one letter


def vector(n: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.full(D, n, np.float32)


def test_a_text_that_was_put_is_found_and_another_is_not() -> None:
    recent = QueryCache(10 * ENTRY)
    recent.put("a", vector(1))
    found = recent.get("a")
    assert found is not None
    assert found.tolist() == [1] * D
    assert recent.get("A") is None


def test_the_least_recently_used_go_when_it_is_full() -> None:
    recent = QueryCache(3 * ENTRY)
    for n, text in enumerate("abc"):
        recent.put(text, vector(n))
    recent.get("a")
    recent.put("d", vector(3))
    assert [text for text in "abcd" if recent.get(text) is not None] == ["a", "c", "d"]


def test_nothing_is_remembered_without_room() -> None:
    recent = QueryCache(0)
    recent.put("a", vector(1))
    assert recent.get("a") is None
    assert len(recent) == 0


def test_putting_again_counts_once() -> None:
    recent = QueryCache(2 * ENTRY)
    for _ in range(5):
        recent.put("a", vector(1))
    recent.put("b", vector(2))
    assert len(recent) == 2


def test_no_larger_array_is_kept_alive() -> None:
    whole = np.zeros((1000, D), np.float32)
    recent = QueryCache(10 * ENTRY)
    recent.put("a", whole[0])
    found = recent.get("a")
    assert found is not None
    assert found.base is None
