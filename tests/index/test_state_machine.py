"""Any order of add, replace, remove, search, snapshot and restart, against a dict and brute force."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from index.exact import ExactIndex
from index.factory import IndexConfig, open_index
from index.snapshot import save
from index.types import Embeddings
from tests.index.oracle import nearest, unit

D = 8
# Few vectors and few ids: replacements, ties and ids that come back are the rule.
VECTORS = unit(40, D)
# Hundreds of snapshots: on a disk, fsync would take three quarters of the time.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
ids = st.lists(st.integers(0, 30), max_size=12)


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.config = IndexConfig("machine", "space", D, self.folder)
        self.index: ExactIndex = ExactIndex(D)
        self.stored: dict[int, Embeddings] = {}
        self.seq = 0
        self.saved: tuple[int, dict[int, Embeddings]] = (0, {})

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder)

    @rule(ids=ids, seed=st.integers(0, 39))
    def add(self, ids: list[int], seed: int) -> None:
        rows = (np.array(ids, np.int64) * 7 + seed) % len(VECTORS)
        self.index.add(np.array(ids, np.int64), VECTORS[rows])
        self.stored |= dict(zip(ids, VECTORS[rows], strict=True))
        self.seq += 1

    @rule(ids=ids)
    def remove(self, ids: list[int]) -> None:
        self.index.remove(np.array(ids, np.int64))
        for id in ids:
            self.stored.pop(id, None)
        self.seq += 1

    @rule(query=st.integers(0, 39), queries=st.sampled_from([1, 2, 9]), k=st.integers(0, 40))
    def search(self, query: int, queries: int, k: int) -> None:
        asked = VECTORS[(np.arange(queries) + query) % len(VECTORS)]
        scores, found = self.index.search(asked, k)
        expected = nearest(self.stored, asked, k)
        np.testing.assert_array_equal(found, expected[1])
        np.testing.assert_array_equal(scores, expected[0])

    @rule()
    def sweep(self) -> None:
        with self.index._lock:
            self.index._move(self.index._current(), self.index.ntotal)

    @rule()
    def snapshot(self) -> None:
        save(self.folder, self.index.freeze(), name="machine", space="space", applied_seq=self.seq)
        self.saved = self.seq, dict(self.stored)

    @rule()
    def restart(self) -> None:
        self.index.close()
        opened = open_index(self.config, head=self.seq)
        assert isinstance(opened.index, ExactIndex)
        assert opened.refused is None
        self.index = opened.index
        self.seq, self.stored = self.saved[0], dict(self.saved[1])
        assert opened.applied_seq == self.seq

    @invariant()
    def counts_what_is_stored(self) -> None:
        assert self.index.ntotal == len(self.stored)


IndexMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_any_order_of_steps_agrees_with_brute_force = IndexMachine.TestCase
