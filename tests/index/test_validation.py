"""What counts as a valid id, vector or query."""

from __future__ import annotations

import numpy as np
import pytest

from index.errors import InvalidId, InvalidVector, VectorIndexError
from index.validation import check_batch, check_ids, check_search, check_vectors, has_unit_length, keep_last
from tests.index.oracle import numbers, unit


def test_unit_rows_tells_good_rows_from_bad() -> None:
    rows = unit(6, 8)
    rows[1] = 0
    rows[2, 3] = np.nan
    rows[3, 3] = np.inf
    rows[4] *= 1.02
    rows[5] *= 1e30
    assert has_unit_length(rows).tolist() == [True, False, False, False, False, False]


def test_vectors_normalised_in_half_precision_are_unit() -> None:
    halves = unit(200, 512).astype(np.float16).astype(np.float32)
    check_vectors(halves, 512)


def test_error_names_the_first_bad_row() -> None:
    rows = unit(5, 8)
    rows[3:] = 0
    with pytest.raises(InvalidVector, match=r"2 of 5 vectors .* first: 3"):
        check_vectors(rows, 8)


def test_error_names_the_shape() -> None:
    with pytest.raises(InvalidVector, match=r"float32 \[2, 8\], expected float32 \[n, 9\]"):
        check_vectors(unit(2, 8), 9)


def test_query_may_be_long_or_short_but_not_zero_or_endless() -> None:
    for factor in (1e-15, 1, 1e15):
        check_search(unit(3, 8) * np.float32(factor), 1, 8)
    for factor in (0, 1e-30, 1e30):
        with pytest.raises(InvalidVector, match="zero or not finite"):
            check_search(unit(1, 8) * np.float32(factor), 1, 8)


def test_k_is_not_negative() -> None:
    check_search(unit(1, 8), 0, 8)
    with pytest.raises(ValueError, match="k is -1"):
        check_search(unit(1, 8), -1, 8)


def test_as_many_ids_as_vectors_make_a_batch() -> None:
    check_batch(numbers(1, 1), unit(2, 8), 8)
    with pytest.raises(ValueError, match="1 ids for 2 vectors"):
        check_batch(numbers(1), unit(2, 8), 8)


def test_of_one_id_twice_the_last_counts() -> None:
    assert keep_last(numbers(7, 3, 7, 5, 3)).tolist() == [2, 4, 3]
    assert keep_last(numbers()).tolist() == []


def test_ids_are_zero_or_more() -> None:
    check_ids(numbers())
    check_ids(numbers(0, 5))
    with pytest.raises(InvalidId, match="-3 is negative"):
        check_ids(numbers(1, -3))


def test_errors_are_value_errors_and_ours() -> None:
    assert issubclass(InvalidVector, ValueError)
    assert issubclass(InvalidVector, VectorIndexError)
    assert issubclass(InvalidId, ValueError)
    assert issubclass(InvalidId, VectorIndexError)
