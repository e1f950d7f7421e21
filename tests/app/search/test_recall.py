"""Measured recall, on a real approximate index whose misses are known."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.types import Target
from app.search import recall as module
from app.search.recall import (
    BATCH,
    MAX_WAITING,
    MIN_RESULTS,
    WINDOW,
    K,
    RecallSampler,
    SearchEffortStore,
    compute_recall,
    measure_recall,
    rest_seconds,
)
from index.flat import FlatIndex
from index.idset import IdSet
from index.protocol import ApproximateIndex, SearchParams, VectorIndex
from index.sealed_segment import Depth
from index.segmented import SegmentedIndex
from index.types import Embeddings, Ids, Scores
from tests.index.ivf import LISTS, IvfIndex
from tests.index.sealed import sealed
from tests.support.servers import wait_until

D, N = 24, 6_000
KEY: tuple[str, Target] = ("default", "images")
PLAIN = SearchParams()


def unit(rng: np.random.Generator, n: int) -> Embeddings:
    rows = rng.normal(size=(n, D)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def vectors() -> Embeddings:
    return unit(np.random.default_rng(1), N)


@pytest.fixture
def index(vectors: Embeddings) -> IvfIndex:
    index = IvfIndex(vectors)
    index.add(np.arange(N), vectors)
    return index


@pytest.fixture
def queries() -> Iterator[Embeddings]:
    """New queries without an end."""

    def generate_queries() -> Iterator[Embeddings]:
        rng = np.random.default_rng(2)
        while True:
            yield from unit(rng, 100)

    return generate_queries()


def ask(sampler: RecallSampler, index: VectorIndex, queries: Any, n: int = 1, params: SearchParams = PLAIN) -> None:
    """`n` searches as the searcher does them."""
    for _ in range(n):
        sampler.record_query(KEY, index, next(queries), params, K + 16)


def measure(sampler: RecallSampler, index: VectorIndex, queries: Any, n: int) -> None:
    """`n` searches, all of them measured."""
    for _ in range(0, n, BATCH):
        ask(sampler, index, queries, BATCH)
        while sampler.step():
            pass


def recall_of(index: IvfIndex, queries: Embeddings) -> float:
    """The oracle: recall@10 counted by hand."""
    _, found = index.search(queries, K)
    _, exact = index.search(queries, K, SearchParams(exact=True))
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def test_an_ivf_can_be_adjusted_and_an_exact_index_cannot(index: IvfIndex) -> None:
    assert isinstance(index, ApproximateIndex)
    assert not isinstance(FlatIndex(D), ApproximateIndex)


@pytest.mark.parametrize("effort", [0, 2, 4, 6])
def test_what_is_measured_is_the_recall(index: IvfIndex, effort: int) -> None:
    sampler = RecallSampler(target=0.0)
    index.set_search_effort(effort)
    asked = unit(np.random.default_rng(3), 96)
    measure(sampler, index, iter(asked), 96)
    recall = sampler.recall(KEY)
    assert recall is not None
    assert recall.at_10 == pytest.approx(recall_of(index, asked))
    assert (recall.queries, recall.effort, recall.target) == (96, effort, 0.0)
    assert recall.updated_at is not None
    assert (recall.at_10 == 1.0) == (effort == 6)
    assert sampler.recalls() == {KEY: recall}


def test_below_the_target_the_effort_is_raised_until_it_is_reached(index: IvfIndex, queries: Any) -> None:
    sampler = RecallSampler(target=0.95)
    efforts = []
    for _ in range(40):
        measure(sampler, index, queries, MIN_RESULTS)
        efforts.append(index.search_effort)
    recall = sampler.recall(KEY)
    assert recall is not None
    assert recall.at_10 is not None
    assert recall.at_10 >= 0.95
    assert recall_of(index, unit(np.random.default_rng(4), 500)) >= 0.94
    assert efforts[0] > 0
    assert index.search_effort < LISTS.bit_length() - 1  # and no further than it must
    assert efforts[-1] == recall.effort == index.search_effort
    index.set_search_effort(index.search_effort - 1)
    assert recall_of(index, unit(np.random.default_rng(4), 500)) < 0.95


def test_with_room_to_spare_the_effort_is_lowered_but_not_again_and_again(index: IvfIndex, queries: Any) -> None:
    sampler = RecallSampler(target=0.9)
    measure(sampler, index, queries, 10 * WINDOW)
    needed = index.search_effort
    index.set_search_effort(6)
    sampler._trackers[KEY].set_effort(6)
    efforts = [6]
    for _ in range(200):
        measure(sampler, index, queries, 40)
        if index.search_effort != efforts[-1]:
            efforts.append(index.search_effort)
    assert min(efforts) <= needed
    assert efforts[:2] == [6, 5]
    assert needed in efforts[-2:]
    assert len(efforts) <= (6 - needed) + 10  # 40 windows: it was tried again after 1, 2, 4, 8, 16 of them
    assert len(efforts) >= (6 - needed) + 1


def test_one_bad_query_among_good_ones_raises_nothing(index: IvfIndex, queries: Any) -> None:
    sampler = RecallSampler(target=0.99)
    index.set_search_effort(6)
    measure(sampler, index, queries, 2 * MIN_RESULTS)
    tracker = sampler._trackers[KEY]
    tracker.effort = 5
    tracker.window[0] = (tracker.window[0][0], 0.5)
    at_10 = tracker.at_10()
    assert at_10 is not None
    assert at_10 < 0.99
    assert tracker.choose_change(0.99) == 0


def test_an_exact_index_is_not_measured(vectors: Embeddings, index: IvfIndex, queries: Any) -> None:
    sampler = RecallSampler(target=0.99)
    exact = FlatIndex(D)
    exact.add(np.arange(100), vectors[:100])
    ask(sampler, exact, queries, 3)
    index.exact = True  # an index that is small enough to compare with everything for now
    ask(sampler, index, queries, 3)
    assert sampler.recall(KEY) is None
    assert not sampler.step()


@pytest.mark.parametrize(
    "params",
    [SearchParams(exact=True), SearchParams(nprobe=1), SearchParams(refine_k=10), SearchParams(effort="fast")],
    ids=str,
)
def test_a_search_with_parameters_of_its_own_is_not_measured(
    index: IvfIndex, queries: Any, params: SearchParams
) -> None:
    sampler = RecallSampler(target=0.99)
    ask(sampler, index, queries, params=params)
    assert not sampler.step()


def test_recent_searches_without_a_filter_are_what_a_segment_is_calibrated_with(index: IvfIndex, queries: Any) -> None:
    sampler = RecallSampler(target=0.99)
    assert sampler.list_recent(KEY).shape == (0, 0)
    ask(sampler, index, queries, 3)
    sampler.step()
    ask(sampler, index, queries, 2)
    ask(sampler, index, queries, 4, SearchParams(allowed_ids=IdSet.of(np.arange(5))))
    sampler.record_query(KEY, index, np.ones(D + 1, np.float32), SearchParams(), 10)  # of another model
    assert sampler.list_recent(KEY).shape == (5, D)


def test_a_filtered_search_is_measured_within_its_ids(index: IvfIndex, queries: Any) -> None:
    some = IdSet.of(np.arange(0, N, 50))
    asked: list[SearchParams | None] = []
    whole = index.search

    def search(queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        asked.append(params)
        return whole(queries, k, params)

    index.search = search  # type: ignore[method-assign]
    sampler = RecallSampler(target=0.0)
    ask(sampler, index, queries, 4)
    ask(sampler, index, queries, 4, SearchParams(allowed_ids=some))
    while sampler.step():
        pass
    assert [params.allowed_ids for params in asked if params] == [some, some, some, None, None, None]
    recall = sampler.recall(KEY)
    assert recall is not None
    assert recall.queries == 8
    ask(sampler, index, queries, 1, SearchParams(allowed_ids=IdSet(np.zeros(module.MAX_FILTER_BYTES + 1, np.uint8))))
    assert not sampler.step()


class Changing(IvfIndex):
    """Changes after every search, as an index does while pictures come and go."""

    change: Callable[[], None] = staticmethod(lambda: None)

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        answer = super().search(queries, k, params)
        self.change()
        return answer


@pytest.mark.parametrize("what", ["added", "removed", "replaced", "both"])
def test_what_changes_while_it_is_measured_is_not_missed(vectors: Embeddings, what: str) -> None:
    index = Changing(vectors)
    index.add(np.arange(N), vectors)
    index.set_search_effort(6)
    query = unit(np.random.default_rng(5), 1)
    _, nearest = index.search(query, 40)
    ids, new = iter(nearest[0]), iter(range(N, 2 * N))
    rng = np.random.default_rng(6)

    def change() -> None:
        near = query + 0.001 * unit(rng, 1)
        near /= np.linalg.norm(near)
        if what in ("added", "both"):
            index.add(np.array([next(new)]), near)
        if what in ("removed", "both"):
            index.remove(np.array([next(ids)]))
        if what == "replaced":
            index.add(np.array([next(ids)]), -near)

    index.change = change
    sample = module.SampledQuery(query[0], PLAIN, K + 16)
    for _ in range(5):
        assert [one for _, one in measure_recall(index, [sample])] == [1.0]


def test_a_share_counts_ties_once_and_fewer_than_ten_as_all() -> None:
    ids, scores = np.arange(3), np.array([0.9, 0.8, 0.7], np.float32)

    def recall_of(*pairs: tuple[int, float]) -> float | None:
        return compute_recall(
            ids, scores, np.array([id for id, _ in pairs]), np.array([s for _, s in pairs], np.float32)
        )

    assert recall_of((0, 0.9), (1, 0.8), (2, 0.7)) == 1.0
    assert recall_of((0, 0.9), (1, 0.8)) == pytest.approx(2 / 3)
    assert recall_of((0, 0.9), (1, 0.8), (7, 0.7)) == 1.0
    assert recall_of((0, 0.9), (7, 0.7), (7, 0.7), (0, 0.9)) == pytest.approx(2 / 3)
    assert recall_of((7, 0.95), (8, 0.6), (-1, -np.inf)) == 0.0
    padded = np.array([5, -1, -1])
    assert compute_recall(padded, np.array([0.5, -np.inf, -np.inf], np.float32), padded, scores) == 1.0
    assert compute_recall(padded[1:], scores[1:], padded, scores) is None


def test_an_empty_index_says_nothing(vectors: Embeddings, queries: Any) -> None:
    sampler = RecallSampler(target=0.99)
    index = IvfIndex(vectors)
    measure(sampler, index, queries, 8)
    recall = sampler.recall(KEY)
    assert recall is not None
    assert (recall.at_10, recall.queries) == (None, 0)


def test_what_is_kept_is_bounded_and_the_newest(index: IvfIndex, queries: Any) -> None:
    sampler = RecallSampler(target=0.0)
    ask(sampler, index, queries, 3 * MAX_WAITING)
    steps = 0
    while sampler.step():
        steps += 1
    assert steps == MAX_WAITING / BATCH
    measure(sampler, index, queries, 2 * WINDOW)
    recall = sampler.recall(KEY)
    assert recall is not None
    assert recall.queries == WINDOW


def test_an_index_built_anew_begins_with_the_effort_of_the_old_one(
    vectors: Embeddings, index: IvfIndex, queries: Any
) -> None:
    sampler = RecallSampler(target=0.95)
    measure(sampler, index, queries, 10 * WINDOW)
    assert index.search_effort > 0
    new = IvfIndex(vectors)
    new.add(np.arange(N), vectors)
    measure(sampler, new, queries, BATCH)
    assert new.search_effort == index.search_effort
    recall = sampler.recall(KEY)
    assert recall is not None
    assert 0 < recall.queries <= MAX_WAITING + BATCH  # those of the old one that were asked again, and the new ones


def test_a_restart_begins_with_the_effort_that_was_found(
    vectors: Embeddings, index: IvfIndex, queries: Any, tmp_path: Path
) -> None:
    before = RecallSampler(target=0.95)
    before.use_store(SearchEffortStore(tmp_path, "space"))
    measure(before, index, queries, 10 * WINDOW)
    assert index.search_effort > 0
    for space, effort in (("space", index.search_effort), ("another", 0)):
        after = RecallSampler(target=0.95)
        after.use_store(SearchEffortStore(tmp_path, space))
        new = IvfIndex(vectors)
        ask(after, new, queries)
        assert new.search_effort == effort
        assert (recall := after.recall(KEY)) is not None
        assert recall.effort == effort
    before.forget_collection("default")
    assert (before.recall(KEY), SearchEffortStore(tmp_path, "space").get(*KEY)) == (None, None)


def test_an_index_that_is_gone_is_forgotten(vectors: Embeddings, queries: Any) -> None:
    sampler = RecallSampler(target=0.95)
    index = IvfIndex(vectors)
    ask(sampler, index, queries)
    del index
    gc.collect()
    assert not sampler.step()
    assert sampler.recall(KEY) is None


def test_the_thread_measures_and_survives_an_index_that_was_closed(
    index: IvfIndex, queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_PAUSE", 0.001)
    monkeypatch.setattr(module, "MAX_TIME_SHARE", 0.9)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    broken = FlatIndex(D)
    broken.close()
    broken.exact, broken.effort, broken.set_effort = False, 0, lambda effort: None  # type: ignore[attr-defined]
    busy = threading.Event()
    busy.set()
    sampler = RecallSampler(target=0.95, is_busy=busy.is_set)
    sampler.start()
    sampler.record_query(("broken", "texts"), broken, next(queries), PLAIN, 26)
    ask(sampler, index, queries, MAX_WAITING)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "recall-sampler"]
    wait_until(lambda: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) == 19, 20)
    busy.clear()
    wait_until(lambda: index.search_effort > 0, 20)
    recall = sampler.recall(KEY)
    assert recall is not None
    sampler.close()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_a_failing_measurement_is_a_fault_until_one_succeeds(
    index: IvfIndex, queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_PAUSE", 0.3)
    monkeypatch.setattr(module, "MAX_TIME_SHARE", 0.9)
    sampler = RecallSampler(target=0.95)
    search = index.search

    def fail(*_: Any) -> Any:
        raise RuntimeError("at /secret/place")

    monkeypatch.setattr(index, "search", fail)
    ask(sampler, index, queries, 3 * BATCH)
    sampler.start()
    wait_until(lambda: sampler.fault is not None, 20)
    assert sampler.fault == "recall is not measured: RuntimeError"
    monkeypatch.setattr(index, "search", search)
    ask(sampler, index, queries)
    wait_until(lambda: sampler.fault is None, 20)
    sampler.close()


def test_while_somebody_waits_nothing_is_measured(
    index: IvfIndex, queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_PAUSE", 0.001)
    asked = threading.Event()

    def is_busy() -> bool:
        asked.set()
        return True

    sampler = RecallSampler(target=0.95, is_busy=is_busy)
    sampler.start()
    ask(sampler, index, queries, 5)
    assert asked.wait(20)
    recall = sampler.recall(KEY)
    sampler.close()
    assert recall is not None
    assert recall.queries == 0
    assert not asked.wait(0) or sampler.recall(KEY) == recall


def test_measuring_takes_a_hundredth_of_the_time_at_most() -> None:
    for seconds in (0.02, 0.5, 3.0):
        assert seconds / (seconds + rest_seconds(seconds)) <= 0.01 + 1e-9
    assert rest_seconds(0.0) == module.MIN_PAUSE


def test_the_index_of_the_service_is_measured_once_it_has_a_segment(tmp_path: Path, queries: Any) -> None:
    live, sampler = SegmentedIndex(D), RecallSampler(target=0.9)
    stored = unit(np.random.default_rng(7), 2_000)
    live.add(np.arange(2_000), stored)
    assert isinstance(live, ApproximateIndex)
    assert live.exact
    ask(sampler, live, queries)
    assert sampler.recall(KEY) is None
    live.begin_rebuild()
    base = sealed(tmp_path, np.arange(2_000), stored)
    base.params = replace(base.params, normal=Depth(1, 10, 0.99))  # as if calibrated on other queries than are asked
    live.replace_segment(base)
    assert not live.exact
    measure(sampler, live, queries, 6 * WINDOW)
    recall = sampler.recall(KEY)
    assert recall is not None
    assert recall.at_10 is not None
    assert recall.at_10 >= 0.9
    assert recall.effort == live.search_effort > 0
    live.close()
    ask(sampler, live, queries)  # nobody is hurt
