"""Half precision: narrowing rounds to nearest, widening is exact, whatever the number."""

from __future__ import annotations

import numpy as np

from index.float16 import round_to_float16, to_float32
from tests.index.oracle import unit


def test_every_finite_half_is_widened_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(1, -1)
    np.testing.assert_array_equal(to_float32(finite), finite.astype(np.float32))
    assert to_float32(finite).dtype == np.float32


def test_signs_of_zero_are_kept() -> None:
    zeros = np.array([[0.0, -0.0]], np.float16)
    np.testing.assert_array_equal(np.signbit(to_float32(zeros)), [[False, True]])


def test_rounding_is_to_the_nearest_and_small() -> None:
    vectors = unit(100, 64)
    near = round_to_float16(vectors)
    assert (np.abs(near - vectors) <= np.abs(vectors) * 2.0**-11 + 2.0**-25).all()
    np.testing.assert_array_equal(round_to_float16(near), near)
    np.testing.assert_array_equal(near.astype(np.float16), vectors.astype(np.float16))


def test_what_is_widened_is_not_changed() -> None:
    halves = unit(3, 8).astype(np.float16)
    before = halves.copy()
    to_float32(halves)
    np.testing.assert_array_equal(halves, before)
