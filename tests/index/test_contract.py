"""What every VectorIndex must do. A new implementation adds itself to IMPLEMENTATIONS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from index.errors import IndexClosed, InvalidId, InvalidVector
from index.flat import FlatIndex
from index.float16 import round_to_float16
from index.idset import IdSet
from index.protocol import SearchParams, VectorIndex
from index.segmented import SegmentedIndex
from index.types import Embeddings
from tests.index import oracle
from tests.index.oracle import nearest, numbers
from tests.index.sealed import SealedIndex

IMPLEMENTATIONS: dict[str, Callable[[int], VectorIndex]] = {
    "exact": FlatIndex,
    "tail alone": SegmentedIndex,
    "base alone": SealedIndex,
    "base and tail": lambda d: SealedIndex(d, step=2),
}
REMOTE = "milvus"
D = 24


def unit(n: int, d: int, seed: int = 0) -> Embeddings:
    """Unit vectors that half precision holds as they are, so that every index must give the same answers."""
    return round_to_float16(oracle.unit(n, d, seed))


@pytest.fixture(params=[*sorted(IMPLEMENTATIONS), REMOTE])
def index(request: pytest.FixtureRequest) -> Iterator[VectorIndex]:
    if request.param == REMOTE:  # a Milvus for all tests, an empty collection for each
        index: VectorIndex = request.getfixturevalue("milvus")(D)
    else:
        index = IMPLEMENTATIONS[request.param](D)
    yield index
    index.close()


def check_search(index: VectorIndex, stored: dict[int, Embeddings], queries: Embeddings, k: int) -> None:
    scores, ids = index.search(queries, k)
    expected_scores, expected_ids = nearest(stored, queries, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-6)
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64
    assert index.ntotal == len(stored)


@pytest.mark.parametrize("k", [1, 10, 63, 64, 65, 500])
@pytest.mark.parametrize("queries", [1, 3, 8, 40])
def test_search_equals_brute_force(index: VectorIndex, queries: int, k: int) -> None:
    ids, vectors = np.arange(500, dtype=np.int64) * 7 + 3, unit(500, D)
    index.add(ids, vectors)
    check_search(index, dict(zip(ids.tolist(), vectors, strict=True)), unit(queries, D, seed=1), k)


def test_search_pads_what_is_missing(index: VectorIndex) -> None:
    index.add(numbers(5, 9), unit(2, D))
    scores, ids = index.search(unit(10, D, seed=1), 4)
    assert (ids[:, 2:] == -1).all()
    assert np.isneginf(scores[:, 2:]).all()
    assert set(ids[:, :2].ravel().tolist()) == {5, 9}


def test_search_of_an_empty_index_is_all_padding(index: VectorIndex) -> None:
    scores, ids = index.search(unit(2, D), 3)
    assert ids.tolist() == [[-1] * 3] * 2
    assert np.isneginf(scores).all()


def test_search_for_nothing_has_no_columns(index: VectorIndex) -> None:
    index.add(numbers(1), unit(1, D))
    assert index.search(unit(2, D), 0)[1].shape == (2, 0)


def test_search_without_queries_has_no_rows(index: VectorIndex) -> None:
    index.add(numbers(1), unit(1, D))
    assert index.search(np.empty((0, D), np.float32), 3)[1].shape == (0, 3)


def test_search_refuses_a_negative_k(index: VectorIndex) -> None:
    with pytest.raises(ValueError, match="k is -1"):
        index.search(unit(1, D), -1)


def test_search_takes_params_with_the_call(index: VectorIndex) -> None:
    index.add(np.arange(50, dtype=np.int64), unit(50, D))
    exact = index.search(unit(2, D, seed=1), 5, SearchParams(exact=True))
    stored = dict(enumerate(unit(50, D)))
    np.testing.assert_array_equal(exact[1], nearest(stored, unit(2, D, seed=1), 5)[1])


@pytest.mark.parametrize("share", [1, 2, 10, 250])
@pytest.mark.parametrize("queries", [1, 9])
def test_search_among_some_finds_the_best_of_these(index: VectorIndex, queries: int, share: int) -> None:
    stored = dict(zip(range(0, 1500, 3), unit(500, D), strict=True))
    index.add(np.arange(0, 1500, 3, dtype=np.int64), unit(500, D))
    gone = numbers(0, 30, 750)
    index.remove(gone)
    for id in gone.tolist():
        del stored[id]
    wanted = np.arange(0, 1500, share, dtype=np.int64)
    few = {id: vector for id, vector in stored.items() if id % share == 0}
    asked = unit(queries, D, seed=1)
    scores, ids = index.search(asked, 10, SearchParams(allowed_ids=IdSet.of(wanted)))
    expected = nearest(few, asked, 10)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_allclose(scores, expected[0], rtol=0, atol=1e-6)


def test_search_among_ids_that_are_not_there_is_all_padding(index: VectorIndex) -> None:
    index.add(numbers(1, 2), unit(2, D))
    for among in (numbers(), numbers(7, 9_000_000)):
        assert index.search(unit(1, D), 3, SearchParams(allowed_ids=IdSet.of(among)))[1].tolist() == [[-1] * 3]


def test_search_params_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SearchParams().exact = True  # type: ignore[misc]


@pytest.mark.parametrize("queries", [1, 9])
def test_equal_scores_are_ordered_by_lower_id(index: VectorIndex, queries: int) -> None:
    one = unit(1, D)
    if (
        index.kind == REMOTE
    ):  # which adds up each row in an order of its own: where nothing is rounded, equals are equal
        one = np.array([[0.25] * 16 + [0] * (D - 16)], np.float32)
    ids = np.random.default_rng(3).permutation(300).astype(np.int64)
    index.add(ids, np.repeat(one, 300, axis=0))
    scores, found = index.search(np.repeat(one, queries, axis=0), 20)
    assert found.tolist() == [list(range(20))] * queries
    assert len(np.unique(scores)) == 1


def test_scores_do_not_depend_on_the_batch(index: VectorIndex) -> None:
    index.add(np.arange(777, dtype=np.int64), unit(777, D))
    queries = unit(33, D, seed=1)
    together = index.search(queries, 10)
    for i in range(len(queries)):
        alone = index.search(queries[i : i + 1], 10)
        rounding = 2.0**-22 if index.kind == REMOTE else 0
        np.testing.assert_allclose(alone[0][0], together[0][i], rtol=0, atol=rounding)
        np.testing.assert_array_equal(alone[1][0], together[1][i])


def test_add_of_a_known_id_replaces(index: VectorIndex) -> None:
    index.add(numbers(1, 2), unit(2, D))
    new = unit(1, D, seed=5)
    index.add(numbers(2), new)
    check_search(index, {1: unit(2, D)[0], 2: new[0]}, new, 2)


def test_add_twice_is_as_good_as_once(index: VectorIndex) -> None:
    for _ in range(3):
        index.add(numbers(1, 2, 3), unit(3, D))
    check_search(index, dict(zip([1, 2, 3], unit(3, D), strict=True)), unit(2, D, seed=1), 3)


def test_add_of_one_id_twice_keeps_the_last(index: VectorIndex) -> None:
    vectors = unit(3, D)
    index.add(numbers(7, 8, 7), vectors)
    check_search(index, {7: vectors[2], 8: vectors[1]}, unit(2, D, seed=1), 2)


def test_add_of_nothing_changes_nothing(index: VectorIndex) -> None:
    index.add(numbers(), np.empty((0, D), np.float32))
    assert index.ntotal == 0


def test_add_copies_what_it_is_given(index: VectorIndex) -> None:
    vectors = unit(2, D)
    index.add(numbers(1, 2), vectors)
    vectors[:] = 0
    check_search(index, dict(zip([1, 2], unit(2, D), strict=True)), unit(1, D, seed=1), 2)


def test_remove_forgets_and_ignores_the_unknown(index: VectorIndex) -> None:
    vectors = unit(5, D)
    index.add(np.arange(5, dtype=np.int64), vectors)
    index.remove(numbers(1, 99, 3, 1))
    index.remove(numbers())
    check_search(index, {i: vectors[i] for i in (0, 2, 4)}, unit(2, D, seed=1), 5)


def test_removed_id_can_come_back(index: VectorIndex) -> None:
    index.add(numbers(1), unit(1, D))
    index.remove(numbers(1))
    new = unit(1, D, seed=9)
    index.add(numbers(1), new)
    check_search(index, {1: new[0]}, new, 2)


def test_any_id_of_an_int64_is_kept(index: VectorIndex) -> None:
    index.add(numbers(0, 2**63 - 1), unit(2, D))
    assert index.search(unit(2, D), 1)[1].ravel().tolist() == [0, 2**63 - 1]


def bad_vectors() -> dict[str, Embeddings]:
    bad = {name: unit(3, D) for name in ("nan", "inf", "zero", "long", "huge")}
    bad["nan"][1, 2] = np.nan
    bad["inf"][1, 2] = -np.inf
    bad["zero"][1] = 0
    bad["long"][1] *= 1.5
    bad["huge"][1] *= np.float32(1e38)
    bad["wide"] = unit(3, D + 1)
    bad["flat"] = unit(3, D).reshape(-1)
    bad["double"] = unit(3, D).astype(np.float64)
    return bad


@pytest.mark.parametrize("name", sorted(bad_vectors()))
def test_add_of_a_bad_vector_stores_nothing(index: VectorIndex, name: str) -> None:
    index.add(numbers(1), unit(1, D, seed=4))
    with pytest.raises(InvalidVector):
        index.add(numbers(1, 2, 3), bad_vectors()[name])
    check_search(index, {1: unit(1, D, seed=4)[0]}, unit(1, D), 2)


@pytest.mark.parametrize("name", sorted(set(bad_vectors()) - {"long"}))
def test_search_refuses_a_bad_query(index: VectorIndex, name: str) -> None:
    with pytest.raises(InvalidVector):
        index.search(bad_vectors()[name], 1)


def test_query_of_another_length_scales_the_scores(index: VectorIndex) -> None:
    index.add(np.arange(20, dtype=np.int64), unit(20, D))
    query = unit(1, D, seed=1)
    scores, ids = index.search(query, 5)
    long_scores, long_ids = index.search(query * np.float32(1024), 5)
    np.testing.assert_array_equal(ids, long_ids)
    np.testing.assert_allclose(long_scores, scores * 1024, rtol=1e-6)


def test_negative_or_ill_typed_ids_are_refused(index: VectorIndex) -> None:
    for ids in (numbers(-1), np.array([1], np.int32), numbers(1).reshape(1, 1)):
        with pytest.raises(InvalidId):
            index.add(ids, unit(1, D))  # type: ignore[arg-type]
        with pytest.raises(InvalidId):
            index.remove(ids)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 ids for 1 vectors"):
        index.add(numbers(1, 2), unit(1, D))
    assert index.ntotal == 0


def test_closed_index_refuses_everything_but_close(index: VectorIndex) -> None:
    index.add(numbers(1), unit(1, D))
    index.close()
    index.close()
    assert index.d == D
    calls: list[Callable[[], object]] = [
        lambda: index.add(numbers(1), unit(1, D)),
        lambda: index.remove(numbers(1)),
        lambda: index.search(unit(1, D), 1),
        lambda: index.ntotal,
    ]
    for call in calls:
        with pytest.raises(IndexClosed):
            call()


def test_search_sees_a_batch_whole_or_not_at_all(index: VectorIndex) -> None:
    """One thread swaps 40 vectors at once, again and again; a search finds the old 40 or the new 40."""
    old, new = unit(40, D), -unit(40, D)
    ids = np.arange(40, dtype=np.int64)
    index.add(ids, old)
    stop = threading.Event()

    def swap_vectors() -> None:
        while not stop.is_set():
            index.add(ids, new)
            index.add(ids, old)

    thread = threading.Thread(target=swap_vectors)
    thread.start()
    try:
        query = unit(1, D, seed=1)
        answers = [nearest(dict(enumerate(v)), query, 40)[1].tolist() for v in (old, new)]
        for _ in range(500):
            assert index.search(query, 40)[1].tolist() in answers
    finally:
        stop.set()
        thread.join()
