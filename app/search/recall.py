"""Measured recall of approximate indexes: a few recent queries are asked again, exactly, and the answers compared.

Searches leave their vectors here (`note`, which costs them nothing worth measuring). A thread of low priority takes
some now and then, asks their index as they did and once more with every vector compared, and counts how many of the
ten nearest had been found. Below the target it doubles the index's effort; with room to spare for long enough it
halves it again. Only what the index chose is measured: a search that set its own parameters got what it asked for.
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

from app.core.clock import now_rfc3339
from app.core.errors import describe_error
from app.core.types import Target
from index.errors import IndexClosed
from index.protocol import ApproximateIndex, SearchParams, VectorIndex
from index.types import Embeddings, Ids, Scores

log = logging.getLogger(__name__)

IndexKey = tuple[str, Target]

K = 10
WINDOW = 200  # results that the recall shown is the mean of
MIN_RESULTS = 20  # results before anything is done about them
MAX_WAITING = 64  # queries kept of an index that have not been measured
BATCH = 8  # queries that share one exact search: comparing all vectors costs little more for a few than for one
TIE_TOLERANCE = 1e-5  # scores no further apart than this are the same: they were added up in another order
LOWER_MARGIN = 0.7  # the effort is lowered when the misses allowed are undershot by so much
MAX_BACKOFF_STEPS = 6  # an effort that had to be raised again is next lowered after 2, 4, ... 2^6 windows
MAX_TIME_SHARE = 0.01  # of the time spent measuring, at most
MIN_PAUSE = 1.0  # seconds between two looks, at least
MAX_IDLE_WAIT = 60.0  # seconds that measuring waits for a moment without a query, at most
MAX_FILTER_BYTES = 1 << 20  # bytes of a filter's set of ids that is kept with its query


@dataclass(frozen=True, slots=True, eq=False)
class SampledQuery:
    """A query as it was asked: its vector, within which ids, and how many hits were asked of the index."""

    vector: Embeddings
    params: SearchParams
    asked: int


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
    """What is known of one index. `lowered`: the effort was last changed downward; `failed`: how often in vain."""

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
        return sum(share for _, share in self.window) / len(self.window) if self.window else None

    def verdict(self, target: float) -> int:
        """1 to raise the effort, -1 to lower it, 0 to leave it.

        Raised when a full window is below the target, or fewer results are by more than twice their standard error.
        """
        at_10, n = self.at_10(), len(self.window)
        if at_10 is None or n < MIN_RESULTS:
            return 0
        if at_10 < target:
            error = float(np.std([share for _, share in self.window])) / n**0.5
            return int(n == WINDOW or at_10 + 2 * error < target)
        calm = self.measured >= WINDOW << self.failed
        return -int(calm and self.effort > 0 and at_10 >= target + LOWER_MARGIN * (1 - target))

    def changed(self, effort: int) -> None:
        """Begin anew with this effort."""
        lowering = effort < self.effort
        if self.lowered:  # to where it was until now: it held, or it did not
            self.failed = 0 if lowering else min(self.failed + 1, MAX_BACKOFF_STEPS)
        self.effort, self.lowered = effort, lowering
        self.again()

    def again(self) -> None:
        """Forget what was measured; as many of its queries as there is room for are measured again."""
        self.measured = 0
        room = MAX_WAITING - len(self.waiting)
        newest = [sample for sample, _ in self.window][::-1]
        self.waiting.extendleft(newest[:room])
        self.window.clear()


class RecallSampler:
    """Measures the indexes that are searched. `busy` says whether somebody waits for an answer right now."""

    def __init__(self, target: float, busy: Callable[[], bool] = lambda: False) -> None:
        self._target = target
        self._busy = busy
        self._lock = threading.Lock()  # of the tracks
        self._tracks: dict[IndexKey, RecallTracker] = {}
        self._efforts: SearchEffortStore | None = None
        self._closing = threading.Event()
        self._noted = threading.Event()
        self.fault: str | None = None  # why nothing is measured; it goes on trying
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to measure. Once only."""
        self._thread.start()

    def resume(self, efforts: SearchEffortStore) -> None:
        """Begin with these efforts, and keep there what is found."""
        self._efforts = efforts

    def forget(self, collection: str) -> None:
        """Keep nothing of a collection that was dropped: one of the same name begins anew."""
        with self._lock:
            for key in [key for key in self._tracks if key[0] == collection]:
                del self._tracks[key]
        if self._efforts is not None:
            self._efforts.forget(collection)

    def close(self) -> None:
        """Stop; what is being measured is finished."""
        self._closing.set()
        self._noted.set()
        if self._thread.ident is not None:
            self._thread.join()

    def note(self, key: IndexKey, index: VectorIndex, vector: Embeddings, params: SearchParams, asked: int) -> None:
        """Somebody has asked this. Kept if the answer may have been less than exact, and the index could try harder."""
        if not isinstance(index, ApproximateIndex) or index.exact:
            return
        if params.exact or params.probes is not None or params.rerank is not None:
            return
        if params.among is not None and params.among.nbytes > MAX_FILTER_BYTES:
            return
        with self._lock:
            track = self._tracks.get(key)
            if track is None:
                if (kept := self._efforts.get(*key) if self._efforts else None) is not None:
                    index.set_effort(kept)
                track = self._tracks[key] = RecallTracker(weakref.ref(index), effort=index.effort)
            elif track.index() is not index:  # opened again, or built anew
                track.index = weakref.ref(index)
                track.again()
            track.waiting.append(SampledQuery(vector, params, asked))
        self._noted.set()

    def recall(self, key: IndexKey) -> MeasuredRecall | None:
        """What is known of an index; None of one that is exact, or was not searched yet."""
        with self._lock:
            track = self._tracks.get(key)
            if track is None:
                return None
            return MeasuredRecall(track.at_10(), len(track.window), self._target, track.effort, track.updated_at)

    def recalls(self) -> dict[IndexKey, MeasuredRecall]:
        """What is known of every index."""
        with self._lock:
            keys = list(self._tracks)
        return {key: recall for key in keys if (recall := self.recall(key)) is not None}

    def step(self) -> bool:
        """Measure a few queries of the index that has waited longest; False when there are none."""
        with self._lock:
            for gone in [key for key, track in self._tracks.items() if track.index() is None]:
                del self._tracks[gone]
            key = next((key for key, track in self._tracks.items() if track.waiting), None)
            if key is None:
                return False
            track = self._tracks[key] = self._tracks.pop(key)  # to the end: the others come first next time
            samples, index = take_batch(track.waiting), track.index()
        if index is None or not isinstance(index, ApproximateIndex) or index.exact:
            return True
        if index.effort != track.effort:  # a new one begins where the old one had to go
            index.set_effort(track.effort)
            track.effort = index.effort
        found = [(sample, share) for sample, share in measure_recall(index, samples) if share is not None]
        with self._lock:
            track.window.extend(found)
            track.measured += len(found)
            track.updated_at = now_rfc3339()
            change = track.verdict(self._target)
            at_10, n = track.at_10(), len(track.window)
        if change:
            index.set_effort(track.effort + change)
        if index.effort != track.effort:  # it may be at its limit
            with self._lock:
                track.changed(index.effort)
            if self._efforts is not None:
                self._efforts.put(*key, index.effort)
            log.info("effort of %s/%s is %d: recall@10 was %.4f over %d queries", *key, index.effort, at_10, n)
        return True

    def try_step(self) -> bool:
        """Like `step`; what it raises is kept as `fault`, and there is more to do."""
        try:
            more = self.step()
        except IndexClosed:  # meanwhile
            return True
        except Exception as error:  # searches are not concerned
            self.fault = f"recall is not measured: {describe_error(error)}"
            log.warning("%s", self.fault, exc_info=True)
            return True
        self.fault = None
        return more

    def _run(self) -> None:
        lower_priority()
        while self._noted.wait() and not self._closing.is_set():
            began = time.monotonic()
            while self._busy() and time.monotonic() - began < MAX_IDLE_WAIT and not self._closing.wait(MIN_PAUSE / 20):
                pass
            if self._closing.is_set():
                return
            began = time.perf_counter()
            self._noted.clear()
            if self.try_step():
                self._noted.set()
            self._closing.wait(rest_seconds(time.perf_counter() - began))


def rest_seconds(seconds: float) -> float:
    """How long to rest after measuring for so many seconds, to stay within SHARE of the time."""
    return max(MIN_PAUSE, seconds * (1 / MAX_TIME_SHARE - 1))


def take_batch(waiting: deque[SampledQuery]) -> list[SampledQuery]:
    """The newest queries, at most BATCH, that one search can ask; they are waiting no more."""
    newest = waiting[-1]
    alike = [one for one in waiting if one.params.among is newest.params.among and one.asked == newest.asked][-BATCH:]
    kept = [one for one in waiting if one not in alike]
    waiting.clear()
    waiting.extend(kept)
    return alike


def measure_recall(index: VectorIndex, samples: Sequence[SampledQuery]) -> list[tuple[SampledQuery, float | None]]:
    """For each of `samples` (alike) the share of its K nearest that the index finds; None where there are none.

    What is added, replaced or removed between two searches must not count as missed. So where something seems to
    be, the index is asked once more: what it found before or finds after counts as found.
    """
    queries = np.stack([sample.vector for sample in samples])
    params, asked = samples[0].params, samples[0].asked
    scores, ids = index.search(queries, asked, params)
    exact_scores, exact = index.search(queries, K, replace(params, exact=True))
    found = [compute_recall(exact[n], exact_scores[n], ids[n, :K], scores[n, :K]) for n in range(len(samples))]
    if any(one is not None and one < 1 for one in found):
        scores_after, after = index.search(queries, asked, params)
        either = np.concatenate([ids[:, :K], after[:, :K]], axis=1)
        either_scores = np.concatenate([scores[:, :K], scores_after[:, :K]], axis=1)
        found = [compute_recall(exact[n], exact_scores[n], either[n], either_scores[n]) for n in range(len(samples))]
    return list(zip(samples, found, strict=True))


def compute_recall(exact: Ids, exact_scores: Scores, found: Ids, scores: Scores) -> float | None:
    """The share of `exact` ids that is among `found`; others that score like the last of them are as good."""
    nearest = exact[exact >= 0]
    if not len(nearest):
        return None
    last = exact_scores[len(nearest) - 1]
    there = np.isin(nearest, found).sum()
    ties = np.unique(found[(np.abs(scores - last) <= TIE_TOLERANCE) & ~np.isin(found, nearest)])
    return min(1.0, float(there + len(ties)) / len(nearest))


def lower_priority() -> None:
    """Let everything else go first. Of this thread alone, where the system can."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


FILE_NAME = "efforts.json"
MAX_EFFORT = 64  # no index has so many steps


class SearchEffortStore:
    """The efforts of the indexes of one space by collection and target. Any thread may call any method."""

    def __init__(self, folder: Path, space: str) -> None:
        self._path = folder / FILE_NAME
        self._space = space
        self._lock = threading.Lock()
        self._found = self._read()

    def get(self, collection: str, target: Target) -> int | None:
        """The effort found last; None of an index that was not measured."""
        with self._lock:
            return self._found.get(f"{collection}/{target}")

    def put(self, collection: str, target: Target, effort: int) -> None:
        """Keep an effort. A disk that fails costs no more than to measure again."""
        with self._lock:
            self._found[f"{collection}/{target}"] = effort
            self._write()

    def forget(self, collection: str) -> None:
        """Keep nothing of a collection that was dropped."""
        with self._lock:
            gone = [name for name in self._found if name.startswith(f"{collection}/")]
            for name in gone:
                del self._found[name]
            if gone:
                self._write()

    def _read(self) -> dict[str, int]:
        try:
            said = json.loads(self._path.read_text("utf-8"))
            if said["space"] != self._space:
                return {}
            return {str(name): n for name, n in said["efforts"].items() if type(n) is int and 0 <= n <= MAX_EFFORT}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("the efforts found before cannot be read (%s); they are measured anew", type(error).__name__)
            return {}

    def _write(self) -> None:
        draft = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps({"space": self._space, "efforts": self._found}), "utf-8")
            draft.replace(self._path)
        except OSError as error:
            log.warning("efforts are not kept: %s", error.strerror)
