"""Any order of add, remove, search, filter, snapshot, build, crash and restart, against a dict and brute force."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from index.errors import SnapshotMissing
from index.factory import IndexConfig, load_sealed_segment, open_index
from index.flat import FlatIndex
from index.float16 import round_to_float16
from index.idset import IdSet
from index.protocol import SearchParams
from index.segment_builder import build_segment
from index.segmented import MAX_SEARCH_EFFORT, SegmentedIndex
from index.snapshot import load, save
from index.types import Embeddings
from tests.index.oracle import nearest, unit

D = 8
# Few vectors and few ids: replacements, ties and ids that come back are the rule.
VECTORS = unit(40, D)
HALVES = round_to_float16(VECTORS)
ids = st.lists(st.integers(0, 30), max_size=12)


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.index: FlatIndex = FlatIndex(D)
        self.stored_vectors: dict[int, Embeddings] = {}
        self.seq = 0
        self.saved: tuple[int, dict[int, Embeddings]] = (0, {})

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder)

    @rule(ids=ids, seed=st.integers(0, 39))
    def add(self, ids: list[int], seed: int) -> None:
        rows = (np.array(ids, np.int64) * 7 + seed) % len(VECTORS)
        self.index.add(np.array(ids, np.int64), VECTORS[rows])
        self.stored_vectors |= dict(zip(ids, VECTORS[rows], strict=True))
        self.seq += 1

    @rule(ids=ids)
    def remove(self, ids: list[int]) -> None:
        self.index.remove(np.array(ids, np.int64))
        for id in ids:
            self.stored_vectors.pop(id, None)
        self.seq += 1

    @rule(query=st.integers(0, 39), queries=st.sampled_from([1, 2, 9]), k=st.integers(0, 40))
    def search(self, query: int, queries: int, k: int) -> None:
        asked = VECTORS[(np.arange(queries) + query) % len(VECTORS)]
        scores, found = self.index.search(asked, k)
        expected = nearest(self.stored_vectors, asked, k)
        np.testing.assert_array_equal(found, expected[1])
        np.testing.assert_array_equal(scores, expected[0])

    @rule()
    def sweep(self) -> None:
        with self.index._lock:
            self.index._move_rows(self.index.view(), self.index.ntotal)

    @rule()
    def snapshot(self) -> None:
        save(self.folder, self.index.freeze(), name="machine", space="space", applied_seq=self.seq)
        self.saved = self.seq, dict(self.stored_vectors)

    @rule()
    def restart(self) -> None:
        self.index.close()
        self.seq, self.stored_vectors = self.saved[0], dict(self.saved[1])
        try:
            self.index, manifest = load(self.folder, FlatIndex, name="machine", space="space", d=D)
        except SnapshotMissing:
            self.index = FlatIndex(D)
        else:
            assert manifest.applied_seq == self.seq

    @invariant()
    def counts_what_is_stored(self) -> None:
        assert self.index.ntotal == len(self.stored_vectors)


class SegmentedMachine(RuleBasedStateMachine):
    """A segmented index beside its log; a sealed segment may be built from the log while both go on."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.config = IndexConfig("machine", "space", D, self.folder)
        self.seq = 0
        self.index, _ = self.open()
        self.index.set_search_effort(MAX_SEARCH_EFFORT)
        self.log: dict[int, tuple[int, Embeddings | None]] = {}  # by id: its last entry, as the database keeps it
        self.upto: int | None = None  # of a build under way

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder)

    def open(self) -> tuple[SegmentedIndex, int]:
        opened = open_index(self.config, last_seq=self.seq)
        assert opened.refused is None
        assert isinstance(opened.index, SegmentedIndex)
        return opened.index, opened.applied_seq

    @property
    def stored_vectors(self) -> dict[int, Embeddings]:
        return {id: vector for id, (_, vector) in self.log.items() if vector is not None}

    @rule(ids=ids, seed=st.integers(0, 39))
    def add(self, ids: list[int], seed: int) -> None:
        rows = (np.array(ids, np.int64) * 7 + seed) % len(HALVES)
        for id, row in zip(ids, rows, strict=True):
            self.seq += 1
            self.log[id] = self.seq, HALVES[row]
        self.index.add(np.array(ids, np.int64), HALVES[rows])

    @rule(ids=ids)
    def remove(self, ids: list[int]) -> None:
        for id in ids:
            if id in self.log:
                self.seq += 1
                self.log[id] = self.seq, None
        self.index.remove(np.array(ids, np.int64))

    @rule(query=st.integers(0, 39), queries=st.sampled_from([1, 2, 9]), k=st.integers(0, 40), exact=st.booleans())
    def search(self, query: int, queries: int, k: int, exact: bool) -> None:
        self.compare(self.stored_vectors, query, queries, k, SearchParams(exact=exact))

    @rule(query=st.integers(0, 39), k=st.integers(0, 40), allowed_ids=ids, exact=st.booleans())
    def search_some(self, query: int, k: int, allowed_ids: list[int], exact: bool) -> None:
        some = {id: vector for id, vector in self.stored_vectors.items() if id in allowed_ids}
        wanted = IdSet.of(np.array(allowed_ids, np.int64))
        self.compare(some, query, 2, k, SearchParams(exact=exact, allowed_ids=wanted))

    @rule()
    def begin_a_build(self) -> None:
        self.index.begin_rebuild()
        self.upto = self.seq

    @precondition(lambda self: self.upto is not None and self.stored_vectors)
    @rule(crash=st.booleans())
    def finish_the_build(self, crash: bool) -> None:
        """The log is read late: what was replaced or removed meanwhile is not in it any more."""
        found = {id: vector for id, (seq, vector) in self.log.items() if vector is not None and seq <= (self.upto or 0)}
        upto, self.upto = self.upto, None
        if not found:
            self.index.end_rebuild()
            return
        block = np.array(list(found), np.int64), np.stack(list(found.values()))
        build_segment(self.config.segment_folder, [block], name="machine", space="space", d=D, applied_seq=upto or 0)
        if crash:
            self.restart()
            return
        segment = load_sealed_segment(self.config)
        segment.brute_force_rows = 0
        self.index.replace_segment(segment)

    @rule()
    def snapshot(self) -> None:
        if (frozen := self.index.freeze()) is not None:
            save(self.folder, frozen, name="machine", space="space", applied_seq=self.seq)

    @rule()
    def restart(self) -> None:
        """Nothing in memory is left: the index is what lies on the disk, and what the log says after it."""
        self.index.close()
        (self.index, applied_seq), self.upto = self.open(), None
        if self.index.sealed is not None:
            self.index.sealed.brute_force_rows = 0
        self.index.set_search_effort(MAX_SEARCH_EFFORT)
        rest = {id: vector for id, (seq, vector) in self.log.items() if seq > applied_seq}
        self.index.remove(np.array([id for id, vector in rest.items() if vector is None], np.int64))
        new = {id: vector for id, vector in rest.items() if vector is not None}
        if new:
            self.index.add(np.array(list(new), np.int64), np.stack(list(new.values())))

    @invariant()
    def counts_what_is_stored(self) -> None:
        assert self.index.ntotal == len(self.stored_vectors)

    def compare(self, stored: dict[int, Embeddings], query: int, queries: int, k: int, params: SearchParams) -> None:
        asked = HALVES[(np.arange(queries) + query) % len(HALVES)]
        scores, found = self.index.search(asked, k, params)
        expected = nearest(stored, asked, k)
        np.testing.assert_array_equal(found, expected[1])
        np.testing.assert_array_equal(scores, expected[0])


def machine_settings(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


# 10,000 steps together.
IndexMachine.TestCase.settings = machine_settings(140)
SegmentedMachine.TestCase.settings = machine_settings(60)
test_any_order_of_steps_agrees_with_brute_force = IndexMachine.TestCase
test_any_order_of_steps_with_builds_and_crashes_agrees_too = SegmentedMachine.TestCase
