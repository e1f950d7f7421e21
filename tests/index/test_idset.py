"""A set of ids as a bitmap, against Python's own sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import InvalidId
from index.idset import MAX_ID, IdSet
from tests.index.oracle import numbers

some = st.sets(st.integers(0, 200))


def array(ids: set[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(sorted(ids), np.int64)


@given(ids=some, added=some, removed=st.sets(st.integers(0, 5000)))
def test_it_holds_what_a_set_holds(ids: set[int], added: set[int], removed: set[int]) -> None:
    kept = IdSet.of(array(ids))
    after = kept.with_changes(array(added), array(removed))
    assert set(kept) == ids  # what it was made from has not changed
    assert set(after) == (ids | added) - removed
    assert len(after) == len((ids | added) - removed)
    asked = np.arange(-2, 300, dtype=np.int64)
    assert after.contains(asked).tolist() == [id in set(after) for id in asked.tolist()]


def test_an_id_twice_counts_once() -> None:
    assert len(IdSet.of(numbers(3, 3, 11, 3))) == 2


def test_its_bits_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        IdSet.of(numbers(1)).bitmap[0] = 0


def test_it_takes_a_bit_for_each_id_up_to_the_largest() -> None:
    assert IdSet.of(numbers(7)).nbytes == 1
    assert IdSet.of(numbers(8)).nbytes == 2


def test_negative_and_huge_ids_are_refused() -> None:
    with pytest.raises(InvalidId, match="negative"):
        IdSet.of(numbers(-1))
    with pytest.raises(ValueError, match="past"):
        IdSet.of(numbers(MAX_ID + 1))
