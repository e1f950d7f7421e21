"""Measured recall of approximate indexes: repeats a few recent queries exactly, and compares the answers.

Searches leave their vectors here (`record_query`, at hardly any cost). A thread of low priority takes some now and
then, searches their index as they did and once more with every vector compared, and counts how many of the ten nearest
the first search had found. Below the target it raises the index's search effort by one; with enough room above the
target for long enough it lowers it again. It measures only what the index chose: a search with parameters of its own
got what it wanted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.clock import now_rfc3339
from app.core.files import atomic_write
from app.core.types import Target
from index.errors import IndexClosed
from index.protocol import ApproximateIndex, SearchParams, VectorIndex
from index.types import Embeddings, Ids, Scores

log = logging.getLogger(__name__)

CollectionKey = tuple[str, Target]  # name of a collection, and which of its indexes

K = 10
WINDOW = 200  # results whose mean is the recall that is shown
MIN_RESULTS = 20  # results before the effort may change
MAX_WAITING = 64  # queries of one index that wait to be measured
BATCH = 8  # queries that share one exact search: comparing all vectors costs little more for a few than for one
TIE_TOLERANCE = 1e-5  # scores no further apart than this are equal: their sums were computed in another order
LOWER_MARGIN = 0.7  # the effort is lowered when at most 0.3 of the misses that the target allows occur
MAX_BACKOFF_STEPS = 6  # after lowering in vain the next try comes after 2, 4, ... 2^6 windows
MAX_TIME_SHARE = 0.01  # of the time, at most, for measuring
MIN_PAUSE = 1.0  # seconds between two measurements, at least
MAX_IDLE_WAIT = 60.0  # seconds that measuring waits for a moment without a search, at most
MAX_FILTER_BYTES = 1 << 20  # of a filter's set of ids that is kept with its query
FILE_NAME = "efforts.json"
MAX_EFFORT = 64  # no index has so many steps


@dataclass(frozen=True, slots=True, eq=False)
class SampledQuery:
    """The vector of a search, its parameters, and how many hits it took from the index."""

    vector: Embeddings
    params: SearchParams
    k: int


@dataclass(frozen=True, slots=True)
class MeasuredRecall:
    """Recall@10 over the last `queries` measured (None before the first) at this effort."""

    at_10: float | None
    queries: int
    target: float
    effort: int
    updated_at: str | None


@dataclass(slots=True, eq=False)
class RecallTracker:
    """What is known of one index. `lowered`: the last change of effort was downward; `failed`: how often in vain."""

    index: weakref.ref[VectorIndex]
    waiting: deque[SampledQuery] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))
    window: deque[tuple[SampledQuery, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    effort: int = 0
    measured: int = 0
    lowered: bool = False
    failed: int = 0
    updated_at: str | None = None

    def at_10(self) -> float | None:
        """The mean of the window."""
        return sum(recall for _, recall in self.window) / len(self.window) if self.window else None

    def choose_change(self, target: float) -> int:
        """1 to raise the effort, -1 to lower it, 0 to leave it.

        Raises it when a full window is below the target, or fewer results are by more than twice their standard error.
        """
        at_10, n = self.at_10(), len(self.window)
        if at_10 is None or n < MIN_RESULTS:
            return 0
        if at_10 < target:
            error = float(np.std([recall for _, recall in self.window])) / n**0.5
            return int(n == WINDOW or at_10 + 2 * error < target)
        enough = self.measured >= WINDOW << self.failed
        return -int(enough and self.effort > 0 and at_10 >= target + LOWER_MARGIN * (1 - target))

    def set_effort(self, effort: int) -> None:
        """Begin anew with this effort."""
        lowering = effort < self.effort
        if self.lowered:  # the lower effort was enough, or it was not
            self.failed = 0 if lowering else min(self.failed + 1, MAX_BACKOFF_STEPS)
        self.effort, self.lowered = effort, lowering
        self.restart()

    def restart(self) -> None:
        """Forget the results; measure as many of their queries again as there is room for."""
        self.measured = 0
        room = MAX_WAITING - len(self.waiting)
        newest = [query for query, _ in self.window][::-1]
        self.waiting.extendleft(newest[:room])
        self.window.clear()


class SearchEffortStore:
    """The search efforts of the indexes of one space, by collection and target, in a file.

    Any thread may call any method.
    """

    def __init__(self, folder: Path, space: str) -> None:
        self._path = folder / FILE_NAME
        self._space = space
        self._lock = threading.Lock()
        self._efforts = self._read()

    def get(self, collection: str, target: Target) -> int | None:
        """The effort that was found last; None of an index that was not measured."""
        with self._lock:
            return self._efforts.get(f"{collection}/{target}")

    def put(self, collection: str, target: Target, effort: int) -> None:
        """Keep an effort. A failing disk costs no more than measuring again."""
        with self._lock:
            self._efforts[f"{collection}/{target}"] = effort
            self._write()

    def forget_collection(self, collection: str) -> None:
        """Keep nothing of a collection that was deleted."""
        with self._lock:
            kept = {name: n for name, n in self._efforts.items() if not name.startswith(f"{collection}/")}
            if kept != self._efforts:
                self._efforts = kept
                self._write()

    def _read(self) -> dict[str, int]:
        try:
            content = json.loads(self._path.read_text("utf-8"))
            if content["space"] != self._space:
                return {}
            efforts = content["efforts"].items()
            return {str(name): n for name, n in efforts if type(n) is int and 0 <= n <= MAX_EFFORT}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("search efforts cannot be read (%s); measuring them anew", type(error).__name__)
            return {}

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path, durable=False) as file:
                json.dump({"space": self._space, "efforts": self._efforts}, file)
        except OSError as error:
            log.warning("search efforts are not kept: %s", error.strerror)


class RecallSampler:
    """Measures the indexes that are searched. `is_busy` says whether a search is under way right now."""

    def __init__(self, target: float, is_busy: Callable[[], bool] = lambda: False) -> None:
        self._target = target
        self._is_busy = is_busy
        self._lock = threading.Lock()  # of the trackers
        self._trackers: dict[CollectionKey, RecallTracker] = {}
        self._store: SearchEffortStore | None = None
        backoff = Backoff(MIN_PAUSE, MAX_IDLE_WAIT)
        self._loop = BackgroundLoop("recall-sampler", self._measure_and_rest, "recall is not measured", backoff)

    @property
    def fault(self) -> str | None:
        """Why nothing is measured; it is tried again."""
        return self._loop.fault

    def start(self) -> None:
        """Begin to measure. Once only."""
        self._loop.start()

    def close(self) -> None:
        """Stop after the measurement under way."""
        self._loop.close()

    def use_store(self, store: SearchEffortStore) -> None:
        """Begin with the efforts in this store, and keep there what is found."""
        self._store = store

    def forget_collection(self, collection: str) -> None:
        """Keep nothing of a collection that was deleted: one of the same name begins anew."""
        with self._lock:
            for key in [key for key in self._trackers if key[0] == collection]:
                del self._trackers[key]
        if self._store is not None:
            self._store.forget_collection(collection)

    def record_query(
        self, key: CollectionKey, index: VectorIndex, vector: Embeddings, params: SearchParams, k: int
    ) -> None:
        """Keep a search if its answer may have been less than exact, and the index could search harder."""
        if not isinstance(index, ApproximateIndex) or index.exact:
            return
        if params.exact or params.effort != "normal" or params.nprobe is not None or params.refine_k is not None:
            return
        if params.allowed_ids is not None and params.allowed_ids.nbytes > MAX_FILTER_BYTES:
            return
        with self._lock:
            tracker = self._trackers.get(key)
            if tracker is None:
                if (kept := self._store.get(*key) if self._store else None) is not None:
                    index.set_search_effort(kept)
                tracker = self._trackers[key] = RecallTracker(weakref.ref(index), effort=index.search_effort)
            elif tracker.index() is not index:  # opened again, or built anew
                tracker.index = weakref.ref(index)
                tracker.restart()
            tracker.waiting.append(SampledQuery(vector, params, k))
        self._loop.wake()

    def list_recent(self, key: CollectionKey) -> Embeddings:
        """The vectors [n, d] of recent searches of an index without a filter; [0, 0] for none."""
        with self._lock:
            tracker = self._trackers.get(key)
            recent = [] if tracker is None else [*tracker.waiting, *(query for query, _ in tracker.window)]
        width = recent[0].vector.shape if recent else None  # an older model may have had another
        vectors = [query.vector for query in recent if query.params.allowed_ids is None and query.vector.shape == width]
        return np.stack(vectors) if vectors else np.empty((0, 0), np.float32)

    def recall(self, key: CollectionKey) -> MeasuredRecall | None:
        """What is known of an index; None of one that is exact, or that no search has used yet."""
        with self._lock:
            tracker = self._trackers.get(key)
            if tracker is None:
                return None
            return MeasuredRecall(
                tracker.at_10(), len(tracker.window), self._target, tracker.effort, tracker.updated_at
            )

    def recalls(self) -> dict[CollectionKey, MeasuredRecall]:
        """What is known of every index."""
        with self._lock:
            keys = list(self._trackers)
        return {key: recall for key in keys if (recall := self.recall(key)) is not None}

    def step(self) -> bool:
        """Measure a few queries of the index that has waited longest; False when there are none."""
        with self._lock:
            for gone in [key for key, tracker in self._trackers.items() if tracker.index() is None]:
                del self._trackers[gone]
            key = next((key for key, tracker in self._trackers.items() if tracker.waiting), None)
            if key is None:
                return False
            tracker = self._trackers[key] = self._trackers.pop(key)  # to the end: the others come first next time
            queries, index = take_batch(tracker.waiting), tracker.index()
        if index is None or not isinstance(index, ApproximateIndex) or index.exact:
            return True
        if index.search_effort != tracker.effort:  # a new index begins with the effort of the old one
            index.set_search_effort(tracker.effort)
            tracker.effort = index.search_effort
        found = [(query, recall) for query, recall in measure_recall(index, queries) if recall is not None]
        with self._lock:
            tracker.window.extend(found)
            tracker.measured += len(found)
            tracker.updated_at = now_rfc3339()
            change = tracker.choose_change(self._target)
            at_10, n = tracker.at_10(), len(tracker.window)
        if change:
            index.set_search_effort(tracker.effort + change)
        if index.search_effort != tracker.effort:  # the index may be at its limit
            effort = index.search_effort
            with self._lock:
                tracker.set_effort(effort)
            if self._store is not None:
                self._store.put(*key, effort)
            log.info("search effort of %s/%s is %d: recall@10 was %.4f over %d queries", *key, effort, at_10, n)
        return True

    def _measure_and_rest(self) -> float | None:
        lower_priority()
        self._wait_while_busy()
        if self._loop.is_closing():
            return None
        began = time.perf_counter()
        try:
            more = self.step()
        except IndexClosed:  # meanwhile
            more = True
        self._loop.pause(rest_seconds(time.perf_counter() - began))
        return 0.0 if more else None

    def _wait_while_busy(self) -> None:
        began = time.monotonic()
        while self._is_busy() and time.monotonic() - began < MAX_IDLE_WAIT and not self._loop.pause(MIN_PAUSE / 20):
            pass


def rest_seconds(seconds: float) -> float:
    """How long to rest after measuring for so many seconds, to stay within MAX_TIME_SHARE."""
    return max(MIN_PAUSE, seconds * (1 / MAX_TIME_SHARE - 1))


def take_batch(waiting: deque[SampledQuery]) -> list[SampledQuery]:
    """Remove the newest queries that one search can answer from `waiting`, at most BATCH, and return them."""
    newest = waiting[-1]
    alike = [
        query for query in waiting if query.params.allowed_ids is newest.params.allowed_ids and query.k == newest.k
    ][-BATCH:]
    kept = [query for query in waiting if query not in alike]
    waiting.clear()
    waiting.extend(kept)
    return alike


def measure_recall(index: VectorIndex, queries: Sequence[SampledQuery]) -> list[tuple[SampledQuery, float | None]]:
    """For each of `queries` (alike) the share of its K nearest that the index finds; None where there are none.

    What is added, replaced or removed between two searches must not count as missed. So where one seems to be missed,
    this searches once more: what the index found before or finds after counts as found.
    """
    vectors = np.stack([query.vector for query in queries])
    params, k = queries[0].params, queries[0].k
    scores, ids = index.search(vectors, k, params)
    exact_scores, exact = index.search(vectors, K, replace(params, exact=True))
    found = [compute_recall(exact[n], exact_scores[n], ids[n, :K], scores[n, :K]) for n in range(len(queries))]
    if any(recall is not None and recall < 1 for recall in found):
        scores_after, after = index.search(vectors, k, params)
        either = np.concatenate([ids[:, :K], after[:, :K]], axis=1)
        either_scores = np.concatenate([scores[:, :K], scores_after[:, :K]], axis=1)
        found = [compute_recall(exact[n], exact_scores[n], either[n], either_scores[n]) for n in range(len(queries))]
    return list(zip(queries, found, strict=True))


def compute_recall(exact: Ids, exact_scores: Scores, found: Ids, scores: Scores) -> float | None:
    """The share of `exact` ids that is among `found`; others that score like the last of them are as good."""
    nearest = exact[exact >= 0]
    if not len(nearest):
        return None
    last = exact_scores[len(nearest) - 1]
    hits = np.isin(nearest, found).sum()
    ties = np.unique(found[(np.abs(scores - last) <= TIE_TOLERANCE) & ~np.isin(found, nearest)])
    return min(1.0, float(hits + len(ties)) / len(nearest))


def lower_priority() -> None:
    """Give the calling thread the lowest priority, where the system can."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
