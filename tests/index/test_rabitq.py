"""What is relied on in FAISS: selectors are respected, all lists hold all rows, bytes come back as they went."""

from __future__ import annotations

import numpy as np
import pytest

from index.rabitq import RaBitQCodes
from tests.index.oracle import unit

N = 3000


@pytest.fixture(scope="module")
def codes() -> RaBitQCodes:
    codes = RaBitQCodes.train(unit(N, 32), 16, 4)
    codes.add(unit(N, 32)[:2000])
    codes.add(unit(N, 32)[2000:])
    return codes


def test_all_lists_hold_every_row_once(codes: RaBitQCodes) -> None:
    assert (codes.n, codes.d, codes.nlist) == (N, 32, 16)
    rows = codes.find_candidates(unit(3, 32, 5), N, 16)
    np.testing.assert_array_equal(np.sort(rows, axis=1), [np.arange(N)] * 3)


def test_likely_rows_come_first(codes: RaBitQCodes) -> None:
    queries = unit(20, 32, 5)
    nearest = np.argmax(queries @ unit(N, 32).T, axis=1)
    rows = codes.find_candidates(queries, 300, 16)
    assert np.mean([row in some for row, some in zip(nearest, rows, strict=True)]) >= 0.95


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
def test_no_one_outside_the_selection_is_nominated(codes: RaBitQCodes, share: float) -> None:
    allowed = np.random.default_rng(2).random(N) < share
    rows = codes.find_candidates(unit(3, 32, 5), N, 16, np.packbits(allowed, bitorder="little"))
    for some in rows:
        np.testing.assert_array_equal(np.sort(some[some >= 0]), np.flatnonzero(allowed))


def test_few_probes_look_at_few_rows_and_pad_the_rest(codes: RaBitQCodes) -> None:
    rows = codes.find_candidates(unit(1, 32, 5), N, 1)[0]
    assert 0 < (rows >= 0).sum() < N


def test_a_query_of_any_length_nominates_the_same(codes: RaBitQCodes) -> None:
    query = unit(1, 32, 5)
    for length in (1e-18, 1e18):
        np.testing.assert_array_equal(
            codes.find_candidates(query * np.float32(length), 50, 4), codes.find_candidates(query, 50, 4)
        )


def test_a_query_gets_the_same_rows_alone_as_among_others(codes: RaBitQCodes) -> None:
    queries = unit(9, 32, 5)
    together = codes.find_candidates(queries, 50, 4)
    for i in range(len(queries)):
        np.testing.assert_array_equal(codes.find_candidates(queries[i : i + 1], 50, 4)[0], together[i])


def test_bytes_give_the_same_codes_again(codes: RaBitQCodes) -> None:
    data = bytes(codes.to_bytes())
    again = RaBitQCodes.from_bytes(data)
    np.testing.assert_array_equal(
        again.find_candidates(unit(3, 32, 5), 50, 4), codes.find_candidates(unit(3, 32, 5), 50, 4)
    )
    assert bytes(again.to_bytes()) == data


@pytest.mark.parametrize("d", [1, 3, 8, 100])
def test_vectors_of_any_width_are_coded(d: int) -> None:
    codes = RaBitQCodes.train(unit(64, d), 2, 2)
    codes.add(unit(64, d))
    assert sorted(codes.find_candidates(unit(1, d, 5), 64, 2)[0].tolist()) == list(range(64))
