from __future__ import annotations

import numpy as np
import pytest

from app.encoder.protocol import check_vectors, normalise


def test_normalised_rows_have_length_1_and_are_float32() -> None:
    rows = normalise(np.array([[3.0, 4.0], [0.0, -2.0]]))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, -1.0]])


def test_a_row_of_zeros_stays_one_and_is_not_let_through() -> None:
    rows = normalise(np.zeros((1, 4), np.float16))
    assert not rows.any()
    with pytest.raises(ValueError, match="no length"):
        check_vectors(rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_not_let_through(bad: float) -> None:
    rows = normalise(np.eye(3))
    rows[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        check_vectors(rows)


def test_unit_rows_are_let_through_as_they_are() -> None:
    rows = normalise(np.random.default_rng(0).normal(size=(5, 8)))
    assert check_vectors(rows) is rows
    with pytest.raises(ValueError, match="no length"):
        check_vectors(rows * np.float32(1.1))
