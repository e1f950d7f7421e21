"""What ExactIndex alone promises: its memory, its freezing, and answers while everything moves."""

from __future__ import annotations

import io
import threading
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pytest

from index.flat import MIN_DEAD_ROWS, FlatIndex
from index.npy_io import write_array
from index.protocol import FrozenIndex
from index.types import Embeddings, Ids, Scores, SnapshotManifest
from tests.index.oracle import nearest, numbers, unit

D = 16


def make_index(n: int) -> FlatIndex:
    index = FlatIndex(D)
    index.add(np.arange(n, dtype=np.int64), unit(n, D))
    return index


def manifest(ntotal: int, d: int = D) -> SnapshotManifest:
    return SnapshotManifest("n", "s", "exact", d, ntotal, 0, "2026-01-01T00:00:00Z", ())


def files(frozen: FrozenIndex) -> dict[str, BinaryIO]:
    streams: dict[str, BinaryIO] = {}
    for name, write in frozen.files.items():
        streams[name] = io.BytesIO()
        write(streams[name])
        streams[name].seek(0)
    return streams


def pair(ids: Ids, vectors: Embeddings) -> dict[str, BinaryIO]:
    streams: dict[str, BinaryIO] = {"ids.npy": io.BytesIO(), "vectors.npy": io.BytesIO()}
    write_array(streams["ids.npy"], ids.dtype, ids.shape, [ids])
    write_array(streams["vectors.npy"], vectors.dtype, vectors.shape, [vectors])
    for stream in streams.values():
        stream.seek(0)
    return streams


def test_width_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="d is 0"):
        FlatIndex(0)


def test_memory_stays_bounded_when_everything_is_replaced_again_and_again() -> None:
    index = make_index(2000)
    for seed in range(30):
        index.add(np.arange(2000, dtype=np.int64), unit(2000, D, seed))
    view = index._view
    assert view is not None
    assert len(view.vectors) <= 2 * 2000 + MIN_DEAD_ROWS
    stored = dict(enumerate(unit(2000, D, 29)))
    np.testing.assert_array_equal(index.search(unit(2, D, 99), 9)[1], nearest(stored, unit(2, D, 99), 9)[1])


def test_memory_is_given_back_when_most_is_removed() -> None:
    index = make_index(20_000)
    index.remove(np.arange(19_000, dtype=np.int64))
    view = index._view
    assert view is not None
    assert len(view.vectors) == 1000
    assert index.search(unit(20_000, D)[19_500:19_501], 1)[1].tolist() == [[19_500]]


@pytest.mark.parametrize("queries", [1, 9])
def test_search_among_mostly_dead_rows_pads_and_never_finds_them(queries: int) -> None:
    index = make_index(1000)  # too few to be swept: the dead rows stay
    index.remove(np.arange(3, 1000, dtype=np.int64))
    scores, ids = index.search(unit(queries, D, 1), 5)
    stored = dict(enumerate(unit(1000, D)[:3]))
    np.testing.assert_array_equal(ids, nearest(stored, unit(queries, D, 1), 5)[1])
    assert np.isneginf(scores[:, 3:]).all()


def test_batch_among_near_equal_vectors_is_exact() -> None:
    """Vectors closer to each other than a matrix product's rounding error."""
    base = unit(1, D)
    vectors = base + unit(3000, D, 1) * np.float32(2e-7)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FlatIndex(D)
    index.add(np.arange(3000, dtype=np.int64)[::-1].copy(), vectors)
    queries = np.repeat(base, 12, axis=0)
    scores, ids = index.search(queries, 50)
    expected = nearest(dict(zip(range(2999, -1, -1), vectors, strict=True)), base, 50)
    np.testing.assert_array_equal(ids, np.repeat(expected[1], 12, axis=0))
    np.testing.assert_array_equal(scores, np.repeat(expected[0], 12, axis=0))


def test_frozen_contents_do_not_move_with_the_index() -> None:
    index = make_index(100)
    index.remove(numbers(7))
    frozen = index.freeze()
    index.add(np.arange(5000, dtype=np.int64), unit(5000, D, 8))
    index.remove(np.arange(4990, dtype=np.int64))
    index.close()
    restored = FlatIndex.restore(manifest(99), files(frozen))
    stored = {i: v for i, v in enumerate(unit(100, D)) if i != 7}
    expected = nearest(stored, unit(3, D, 1), 100)
    scores, ids = restored.search(unit(3, D, 1), 100)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(scores, expected[0])


def test_restored_index_can_be_changed() -> None:
    index = FlatIndex.restore(manifest(10), files(make_index(10).freeze()))
    index.remove(numbers(3))
    index.add(numbers(4, 50), unit(2, D, 5))
    stored = dict(enumerate(unit(10, D)))
    del stored[3]
    stored |= {4: unit(2, D, 5)[0], 50: unit(2, D, 5)[1]}
    np.testing.assert_array_equal(index.search(unit(2, D, 1), 12)[1], nearest(stored, unit(2, D, 1), 12)[1])


def test_empty_index_is_restored_empty() -> None:
    assert FlatIndex.restore(manifest(0), files(FlatIndex(D).freeze())).ntotal == 0


RESTORE_REFUSES = {
    "an id twice": (pair(numbers(1, 1), unit(2, D)), manifest(2)),
    "a negative id": (pair(numbers(1, -1), unit(2, D)), manifest(2)),
    "a vector not of unit length": (pair(numbers(1, 2), unit(2, D) * np.float32(2)), manifest(2)),
    "fewer than the manifest says": (pair(numbers(1, 2), unit(2, D)), manifest(3)),
    "another width": (pair(numbers(1, 2), unit(2, D)), manifest(2, D + 1)),
    "ids and vectors of two lengths": (pair(numbers(1, 2), unit(3, D)), manifest(2)),
    "a file missing": ({"ids.npy": pair(numbers(1), unit(1, D))["ids.npy"]}, manifest(1)),
}


@pytest.mark.parametrize("name", sorted(RESTORE_REFUSES))
def test_restore_refuses(name: str) -> None:
    streams, about = RESTORE_REFUSES[name]
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        FlatIndex.restore(about, streams)


States = npt.NDArray[np.int8]


class Storm:
    """Four threads that add, replace and remove their own ids; four that search and judge every answer.

    Each id has one vector for life, and `state` says how far its life is; an answer is judged by what was
    surely present, and surely absent, during the whole of its search. No id comes back once it was removed.
    """

    ABSENT, ADDING, PRESENT, REMOVING, REMOVED = range(5)
    BATCH = 32

    def __init__(self, n: int) -> None:
        self.vectors = unit(n, D)
        self.state = np.zeros(n, np.int8)
        self.index = FlatIndex(D)
        self.stop = threading.Event()
        self.faults: list[str] = []
        self.searches = 0

    def is_enough(self) -> bool:
        return self.searches > 100 and int((self.state == self.REMOVED).sum()) > 500

    def mutate(self, part: int) -> None:
        rng = np.random.default_rng(part)
        own = np.arange(part, len(self.vectors), 4)
        for start in range(0, len(own), self.BATCH):
            if self.stop.is_set():
                return
            ids = own[start : start + self.BATCH]
            self.move(ids, self.ADDING, self.PRESENT)
            again = rng.choice(own[: start + self.BATCH], 8)
            again = np.unique(again[self.state[again] == self.PRESENT])
            self.index.add(again, self.vectors[again])  # replaced by itself: always there
            gone = rng.choice(own[: start + self.BATCH], 24)
            self.move(np.unique(gone[self.state[gone] == self.PRESENT]), self.REMOVING, self.REMOVED)

    def move(self, ids: Ids, during: int, after: int) -> None:
        self.state[ids] = during
        if after == self.PRESENT:
            self.index.add(ids, self.vectors[ids])
        else:
            self.index.remove(ids)
        self.state[ids] = after

    def check_searches(self, seed: int) -> None:
        queries = unit(64, D, 1000 + seed)
        while not self.stop.is_set():
            size = 9 if self.searches % 5 == 0 else 1
            start = self.searches % (len(queries) - size)
            before = self.state.copy()
            scores, ids = self.index.search(queries[start : start + size], 10)
            after = self.state.copy()
            for i in range(size):
                self.check(queries[start + i], scores[i], ids[i], before, after)
            self.searches += 1

    def check(self, query: Embeddings, scores: Scores, ids: Ids, before: States, after: States) -> None:
        found = ids[ids >= 0]
        if len(set(found.tolist())) != len(found):
            self.faults.append("an id twice")
        if (before[found] == self.REMOVED).any():
            self.faults.append("a removed id was found")
        if (after[found] == self.ABSENT).any():
            self.faults.append("an id was found before it was added")
        if not np.array_equal(scores[: len(found)], np.vecdot(self.vectors[found], query)):
            self.faults.append("a score that is not the inner product")
        surely = np.flatnonzero((before == self.PRESENT) & (after == self.PRESENT))
        better = surely[np.vecdot(self.vectors[surely], query) > scores[-1]]
        if not np.isin(better, found).all():
            self.faults.append("a better vector was missed")

    def check_frozen(self) -> None:
        """A snapshot taken now holds what was surely there, nothing that was not, and no torn row."""
        before = self.state.copy()
        frozen = self.index.freeze()
        after = self.state.copy()
        streams = files(frozen)
        ids: Ids = np.load(streams["ids.npy"])
        if not np.array_equal(np.load(streams["vectors.npy"]), self.vectors[ids]):
            self.faults.append("a torn row in a snapshot")
        if (before[ids] == self.REMOVED).any() or (after[ids] == self.ABSENT).any():
            self.faults.append("a snapshot from another moment")
        surely = np.flatnonzero((before == self.PRESENT) & (after == self.PRESENT))
        if not np.isin(surely, ids).all():
            self.faults.append("a snapshot lacks a vector")


def test_eight_threads_find_nothing_removed_and_miss_nothing_present() -> None:
    storm = Storm(120_000)
    mutators = [threading.Thread(target=storm.mutate, args=(i,)) for i in range(4)]
    searchers = [threading.Thread(target=storm.check_searches, args=(i,)) for i in range(4)]
    for thread in mutators + searchers:
        thread.start()
    while any(thread.is_alive() for thread in mutators) and not storm.is_enough():
        storm.check_frozen()
    storm.stop.set()
    for thread in mutators + searchers:
        thread.join()
    assert storm.faults == []
    assert storm.is_enough()
    assert storm.index.ntotal == (storm.state == storm.PRESENT).sum()
