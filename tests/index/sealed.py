"""Sealed segments made on the spot, and segmented indexes that lie in one wholly or in part."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index import snapshot
from index.sealed_segment import SealedSegment
from index.segment_builder import build_segment
from index.segmented import MAX_SEARCH_EFFORT, SegmentedIndex
from index.types import Embeddings, Ids
from tests.index.oracle import unit


def sealed(
    folder: Path, ids: Ids, vectors: Embeddings, seq: int = 1, asked: Sequence[Embeddings] = ()
) -> SealedSegment:
    """A sealed segment of these vectors whose codes always give the candidates."""
    build_segment(folder, [(ids, vectors)], name="n", space="s", d=vectors.shape[1], applied_seq=seq, asked=asked)
    return load(folder, vectors.shape[1])


def load(folder: Path, d: int) -> SealedSegment:
    """The segment in `folder`."""
    base, _ = snapshot.load(folder, SealedSegment, name="n", space="s", d=d)
    base.brute_force_rows = 0
    return base


def seal_again(folder: Path, n: int, d: int) -> None:
    """Build the same segment over and over, until the process is killed."""
    vectors = unit(n, d)
    while True:
        sealed(folder, np.arange(n, dtype=np.int64), vectors)


class SealedIndex(SegmentedIndex):
    """After every addition a new sealed segment holds those ids that are multiples of `step`; the growing one the rest.

    Searches look into every list and compare everything there.
    """

    def __init__(self, d: int, step: int = 1) -> None:
        super().__init__(d)
        self.set_search_effort(MAX_SEARCH_EFFORT)
        self._step = step
        self._stored: dict[int, Embeddings] = {}

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        super().add(ids, vectors)
        self._stored |= dict(zip(ids.tolist(), vectors.copy(), strict=True))
        self.reseal()

    def remove(self, ids: Ids) -> None:
        super().remove(ids)
        for id in ids.tolist():
            self._stored.pop(id, None)

    def reseal(self) -> None:
        """Build a sealed segment of what is stored and go on with it."""
        self.begin_rebuild()
        self.rebuild(self._stored)

    def rebuild(self, stored: dict[int, Embeddings]) -> None:
        """Go on with a sealed segment of `stored`, which was taken after `begin_rebuild`."""
        kept = [id for id in stored if id % self._step == 0]
        if not kept:
            return
        folder = Path(tempfile.mkdtemp())
        try:
            self.replace_segment(sealed(folder, np.array(kept, np.int64), np.stack([stored[id] for id in kept])))
        finally:
            shutil.rmtree(folder)  # its files live on while they are mapped
