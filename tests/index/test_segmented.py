"""A segmented index: both segments as one, the dead stay dead, and a new segment changes no answer."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.errors import IndexClosed
from index.flat import FlatIndex
from index.float16 import round_to_float16
from index.idset import IdSet
from index.protocol import SearchParams
from index.sealed_segment import Depth
from index.segmented import MAX_SEARCH_EFFORT, RebuildPolicy, SegmentedIndex, SegmentedStats
from index.types import Embeddings
from tests.index.oracle import nearest, numbers, unit
from tests.index.sealed import SealedIndex, sealed

D = 16
SECONDS = float(os.environ.get("SIGHTLINE_TEST_MIXED_SECONDS", "2"))


def make_vectors(ids: range, seed: int = 0) -> dict[int, Embeddings]:
    return dict(zip(ids, round_to_float16(unit(len(ids), D, seed)), strict=True))


def put(index: SegmentedIndex, stored: dict[int, Embeddings]) -> None:
    index.add(np.array(list(stored), np.int64), np.stack(list(stored.values())))


def make_segmented(folder: Path, stored: dict[int, Embeddings]) -> SegmentedIndex:
    """A segmented index whose segment holds `stored`, searched with all effort."""
    live = SegmentedIndex(D, sealed(folder, np.array(list(stored), np.int64), np.stack(list(stored.values()))))
    live.set_search_effort(MAX_SEARCH_EFFORT)
    return live


def check_search(index: SegmentedIndex, stored: dict[int, Embeddings], k: int = 20) -> None:
    queries = unit(3, D, 5)
    scores, ids = index.search(queries, k)
    expected = nearest(stored, queries, k)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(scores, expected[0])
    assert index.ntotal == len(stored)


def test_without_a_sealed_segment_it_is_a_flat_index_of_whole_vectors() -> None:
    live, exact = SegmentedIndex(D), FlatIndex(D)
    for index in (live, exact):
        index.add(np.arange(100, dtype=np.int64), unit(100, D))
    for answer, same in zip(live.search(unit(4, D, 5), 9), exact.search(unit(4, D, 5), 9), strict=True):
        np.testing.assert_array_equal(answer, same)
    assert live.stats() == SegmentedStats("exact", 100, 0, 100, 0, {}, 0)
    assert live.freeze() is not None


def test_scores_with_a_segment_are_those_of_vectors_in_half_precision(tmp_path: Path) -> None:
    live = SegmentedIndex(D, sealed(tmp_path, np.arange(50, dtype=np.int64), unit(50, D)))
    live.add(numbers(50), unit(51, D)[50:])
    query = unit(1, D, 5)
    scores, ids = live.search(query, 51)
    order = np.argsort(ids[0])
    np.testing.assert_array_equal(scores[0][order], np.vecdot(round_to_float16(unit(51, D)), query[0]))
    np.testing.assert_allclose(scores[0][order], np.vecdot(unit(51, D), query[0]), rtol=0, atol=2**-11)


def test_what_is_replaced_or_removed_never_comes_back(tmp_path: Path) -> None:
    stored = make_vectors(range(200))
    live = make_segmented(tmp_path, stored)
    live.remove(np.arange(0, 50, dtype=np.int64))
    live.add(np.arange(100, 120, dtype=np.int64), round_to_float16(unit(20, D, 1)))
    live.remove(np.arange(110, 130, dtype=np.int64))
    stored |= dict(zip(range(100, 120), round_to_float16(unit(20, D, 1)), strict=True))
    for id in (*range(50), *range(110, 130)):
        del stored[id]
    check_search(live, stored, 250)
    stats = live.stats()
    assert (stats.sealed, stats.growing, stats.tombstones, stats.ntotal) == (200, 10, 80, 130)
    live.remove(np.arange(200, dtype=np.int64))
    check_search(live, {}, 5)


@pytest.mark.parametrize("allowed", [[], [3], list(range(0, 300, 7)), list(range(150, 250))])
def test_a_filter_applies_to_both_segments(tmp_path: Path, allowed: list[int]) -> None:
    stored = make_vectors(range(300))
    live = make_segmented(tmp_path, {id: stored[id] for id in range(200)})
    put(live, {id: stored[id] for id in range(200, 300)})
    live.remove(numbers(3, 7, 210))
    few = {id: vector for id, vector in stored.items() if id in allowed and id not in (3, 7, 210)}
    params = SearchParams(allowed_ids=IdSet.of(np.array(allowed, np.int64)))
    expected = nearest(few, unit(2, D, 5), 12)
    np.testing.assert_array_equal(live.search(unit(2, D, 5), 12, params)[1], expected[1])
    exact = SearchParams(exact=True, allowed_ids=params.allowed_ids)
    np.testing.assert_array_equal(live.search(unit(2, D, 5), 12, exact)[1], expected[1])


def test_parameters_of_the_search_replace_those_of_the_index(tmp_path: Path) -> None:
    stored = make_vectors(range(2000))
    live = make_segmented(tmp_path, stored)
    live.set_search_effort(0)
    query = unit(30, D, 5)
    expected = nearest(stored, query, 10)[1]
    np.testing.assert_array_equal(live.search(query, 10, SearchParams(exact=True))[1], expected)
    np.testing.assert_array_equal(live.search(query, 10, SearchParams(nprobe=10**6, refine_k=10**6))[1], expected)
    least = live.search(query, 10, SearchParams(nprobe=1, refine_k=1))[1]
    assert 0.1 < np.isin(least, expected).mean() < 0.98


def test_a_fast_search_looks_less_far(tmp_path: Path) -> None:
    live = make_segmented(tmp_path, make_vectors(range(2000)))
    live.set_search_effort(0)
    assert live.sealed is not None
    live.sealed.params = replace(live.sealed.params, normal=Depth(8, 500, 0.99), fast=Depth(1, 20, 0.9))
    query = unit(30, D, 5)
    for effort, depth in live.stats().depths.items():
        same = SearchParams(nprobe=depth.nprobe, refine_k=depth.refine_k)
        found = live.search(query, 10, SearchParams(effort=effort))[1]
        np.testing.assert_array_equal(found, live.search(query, 10, same)[1])
    assert (live.search(query, 10)[1] != found).any()


def test_each_step_of_effort_doubles_nprobe_and_refine_k(tmp_path: Path) -> None:
    live = make_segmented(tmp_path, make_vectors(range(2000)))
    live.set_search_effort(0)
    first = live.stats()
    live.set_search_effort(1)
    second = live.stats()
    assert first.nprobe is not None
    assert first.refine_k is not None
    assert live.sealed is not None
    assert second.nprobe == min(2 * first.nprobe, live.sealed.params.nlist)
    assert second.refine_k == min(2 * first.refine_k, 2000)
    for given, kept in ((99, MAX_SEARCH_EFFORT), (-3, 0)):
        live.set_search_effort(given)
        assert live.search_effort == kept
    live.set_search_effort(MAX_SEARCH_EFFORT)
    assert (live.stats().nprobe, live.stats().refine_k) == (live.sealed.params.nlist, 2000)


def test_a_new_segment_takes_over_and_loses_no_change_during_its_build(tmp_path: Path) -> None:
    stored = make_vectors(range(100))
    live = SegmentedIndex(D)
    live.set_search_effort(MAX_SEARCH_EFFORT)
    put(live, stored)
    live.begin_rebuild()
    base = sealed(tmp_path, np.arange(100, dtype=np.int64), np.stack(list(stored.values())))
    live.add(numbers(5, 200), round_to_float16(unit(2, D, 8)))
    live.remove(numbers(6))
    stored |= dict(zip((5, 200), round_to_float16(unit(2, D, 8)), strict=True))
    del stored[6]
    check_search(live, stored)
    live.replace_segment(base)
    check_search(live, stored, 120)
    stats = live.stats()
    assert (stats.kind, stats.sealed, stats.growing, stats.tombstones) == ("base+tail", 100, 2, 2)
    assert live.freeze() is None


def test_a_segment_that_is_ahead_or_behind_loses_and_revives_nothing(tmp_path: Path) -> None:
    """A build reads a growing log: it may get entries that the index has yet to apply, or miss what changed since."""
    stored = make_vectors(range(100))
    live = SegmentedIndex(D)
    live.set_search_effort(MAX_SEARCH_EFFORT)
    put(live, {id: stored[id] for id in range(50)})
    live.begin_rebuild()
    base = sealed(tmp_path, np.arange(10, 60, dtype=np.int64), np.stack([stored[id] for id in range(10, 60)]))
    live.replace_segment(base)
    check_search(live, {id: stored[id] for id in range(60)}, 70)
    put(live, {id: stored[id] for id in range(50, 60)})  # the follower applies what the segment held already
    check_search(live, {id: stored[id] for id in range(60)}, 70)


def test_memory_counts_the_growing_segment_whole_and_the_segment_without_its_mapped_vectors(tmp_path: Path) -> None:
    d = 256
    live = SegmentedIndex(d)
    live.add(np.arange(1000, dtype=np.int64), unit(1000, d))
    whole = live.nbytes
    assert 1000 * 4 * d <= whole <= 1000 * (4 * d + 200)
    live.begin_rebuild()
    live.replace_segment(sealed(tmp_path, np.arange(1000, dtype=np.int64), unit(1000, d)))
    assert 1000 * d / 8 < live.nbytes < whole / 2


def test_a_rebuild_that_ends_in_vain_changes_nothing(tmp_path: Path) -> None:
    live = make_segmented(tmp_path, make_vectors(range(10)))
    live.begin_rebuild()
    live.end_rebuild()
    with pytest.raises(RuntimeError, match="without begin_rebuild"):
        live.replace_segment(sealed(tmp_path / "other", numbers(1), unit(1, D)))
    check_search(live, make_vectors(range(10)))


def test_no_answer_is_a_mixture_while_segments_are_swapped(tmp_path: Path) -> None:
    """Three threads search while contents alternate between two and segments come and go: always one of the two."""
    contents = [make_vectors(range(60), seed) for seed in (0, 1)]
    queries = unit(2, D, 5)
    answers = [nearest(stored, queries, 30) for stored in contents]
    allowed = {answer[1].tobytes() + answer[0].tobytes() for answer in answers}
    live = make_segmented(tmp_path / "first", contents[0])
    bases = [
        sealed(tmp_path / str(n), np.arange(60, dtype=np.int64), np.stack(list(stored.values())))
        for n, stored in enumerate(contents)
    ]
    stop = threading.Event()
    wrong: list[object] = []

    def search() -> None:
        while not stop.is_set():
            scores, ids = live.search(queries, 30)
            if ids.tobytes() + scores.tobytes() not in allowed:
                wrong.append(ids)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and not wrong:
        for n in (1, 0):
            put(live, contents[n])
            live.begin_rebuild()
            live.replace_segment(bases[n])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_eight_threads_of_mixed_work_are_right_at_every_moment() -> None:
    """Each thread owns ids: what it added is found, what it removed is not, whatever the others and the builder do."""
    index = SealedIndex(D, step=2)
    SegmentedIndex.add(index, np.arange(5000, 5200, dtype=np.int64), round_to_float16(unit(200, D, 99)))
    stop = threading.Event()
    wrong: list[object] = []

    def work(owner: int) -> None:
        random = np.random.default_rng(owner)
        vectors = round_to_float16(unit(40, D, owner))
        inside: dict[int, int] = {}
        while not stop.is_set() and not wrong:
            id = owner * 100 + int(random.integers(20))
            row = int(random.integers(40))
            if random.random() < 0.4:
                index._stored.pop(id, None)
                SegmentedIndex.remove(index, numbers(id))
                inside.pop(id, None)
            else:
                index._stored[id] = vectors[row].copy()  # the log comes first
                SegmentedIndex.add(index, numbers(id), vectors[row : row + 1])
                inside[id] = row
            mine = IdSet.of(np.arange(owner * 100, owner * 100 + 100, dtype=np.int64))
            found = index.search(vectors[row : row + 1], 25, SearchParams(allowed_ids=mine))[1][0]
            expected = nearest({id: vectors[at] for id, at in inside.items()}, vectors[row : row + 1], 25)[1][0]
            if found.tolist() != expected.tolist():
                wrong.append((owner, found.tolist(), expected.tolist()))

    def build() -> None:
        while not stop.is_set() and not wrong:
            index.begin_rebuild()
            index.rebuild(dict(index._stored))  # taken after the mark, as a builder reads the log

    threads = [threading.Thread(target=work, args=(owner,)) for owner in range(7)] + [threading.Thread(target=build)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_search_under_way_outlives_the_closing(tmp_path: Path) -> None:
    live = make_segmented(tmp_path, make_vectors(range(300)))
    view = live._current()
    live.close()
    with pytest.raises(IndexClosed):
        live.search(unit(1, D), 1)
    with pytest.raises(IndexClosed):
        live.stats()
    assert view.sealed is not None
    assert view.sealed.search_exact(unit(1, D), 1)[1].shape == (1, 1)


STATS = SegmentedStats("base+tail", 1_000_000, 1_000_000, 0, 0, {"normal": Depth(64, 400, 0.99)}, 0)


@pytest.mark.parametrize(
    ("change", "unchanged", "due"),
    [
        ({}, 0.0, False),
        ({"growing": 62_501}, 0.0, True),
        ({"growing": 62_000}, 0.0, False),
        ({"growing": 8_000}, 61.0, True),
        ({"growing": 8_000}, 59.0, False),
        ({"growing": 7_000}, 10_000.0, False),
        ({"tombstones": 200_001}, 0.0, True),
        ({"tombstones": 200_000}, 10_000.0, False),
        ({"sealed": 1000, "ntotal": 15_000, "growing": 14_000}, 0.0, False),
        ({"sealed": 1000, "ntotal": 15_000, "growing": 14_000}, 61.0, True),
        ({"sealed": 0, "ntotal": 50_000, "growing": 50_000}, 10_000.0, False),
        ({"sealed": 0, "ntotal": 50_001, "growing": 50_001}, 0.0, True),
        ({"ntotal": 0, "tombstones": 1_000_000}, 10_000.0, False),
        ({"is_outdated": True}, 61.0, True),
        ({"is_outdated": True}, 59.0, False),
    ],
)
def test_a_new_segment_is_due_when_many_rows_are_growing_or_dead(
    change: dict[str, int], unchanged: float, due: bool
) -> None:
    assert RebuildPolicy().is_due(replace(STATS, **change), unchanged) is due  # type: ignore[arg-type]
