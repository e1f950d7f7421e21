"""IndexHandle: one open index with its log and its follower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.core.types import EmbeddingSpace, Target
from app.storage.database import Database
from app.storage.tables import embeddings
from index.errors import LogReplaced
from index.factory import IndexConfig
from index.follower import Follower
from index.protocol import RemoteIndex, VectorIndex
from index.segmented import SegmentedIndex
from index.types import LogEntry, Op

IndexKey = tuple[str, Target]  # label of a collection, and which of its indexes

TOTALS = ("open", "vectors", "lag", "bytes", "tail", "tombstones", "building")  # of open indexes, for metrics
OVERHEAD = 32 << 10  # bytes of an open index besides its vectors


class EmbeddingLog:
    """The log of one (collection, target); implements `LogReader`. Only its reader uses `mark`."""

    def __init__(self, database: Database, space: EmbeddingSpace, key: IndexKey) -> None:
        self._database = database
        self._space = space.fingerprint
        self._label, self._target = key
        self.mark = ""

    def count_after(self, seq: int) -> int:
        """How many entries have a number past `seq`."""
        return self._database.read(lambda c: embeddings.count_after(c, self._label, self._space, self._target, seq))

    def last_seq(self) -> int:
        """The number of the last entry, 0 for an empty log."""
        return self._database.read(lambda c: embeddings.get_last_seq(c, self._label, self._space, self._target))

    def read_end(self) -> tuple[int, str]:
        """The number of the last entry, and the mark of that moment."""
        return self._database.read(
            lambda c: (
                embeddings.get_last_seq(c, self._label, self._space, self._target),
                embeddings.find_newest_mark(c) or "",
            )
        )

    def has_mark(self, mark: str) -> bool:
        """Whether the log has this mark; "" is none, which every log has."""
        return self._database.read(lambda c: embeddings.find_newest_mark(c, mark)) is not None

    def read(self, after_seq: int, limit: int, /) -> Sequence[LogEntry]:
        """Up to `limit` entries past `after_seq`, in order. Raises LogReplaced."""
        mark, rows = self._database.read(
            lambda c: (
                embeddings.find_newest_mark(c, self.mark),
                embeddings.list_after(c, self._label, self._space, self._target, after_seq, limit),
            )
        )
        if mark is None:
            raise LogReplaced(f"the log has no mark {self.mark}")
        self.mark = mark
        return [
            LogEntry(seq, Op(op), key, None if vector is None else np.frombuffer(vector, dtype="<f4"))
            for seq, op, key, vector in rows
        ]


@dataclass(eq=False, slots=True)
class IndexHandle:
    """One open index. Searches read `index`; only `follower` changes it, and an `IndexBuilder` its sealed segment.

    `users` counts the searches that use it now, `used_at` is when the last one came. The builder sets `building` and
    `build_error`.
    """

    key: IndexKey
    config: IndexConfig
    log: EmbeddingLog
    index: VectorIndex
    follower: Follower
    users: int = 0
    used_at: float = 0.0
    building: bool = False
    build_error: str | None = None

    @property
    def nbytes(self) -> int:
        """What it holds in memory, about."""
        return OVERHEAD + self.index.nbytes

    def describe(self) -> dict[str, object]:
        """Its row in `GET /v1/stats`, under the names of that interface."""
        index = self.index
        followed: dict[str, object] = {"applied_seq": self.follower.applied_seq, "lag": self.follower.lag}
        if isinstance(index, RemoteIndex):
            followed["ghosts"] = index.orphans
        if not isinstance(index, SegmentedIndex):
            return {"kind": index.kind, "ntotal": index.ntotal, **followed}
        stats, sealed = index.stats(), index.sealed
        return {
            "kind": stats.kind,
            "ntotal": stats.ntotal,
            **followed,
            "base": stats.sealed,
            "tail": stats.growing,
            "tombstones": stats.tombstones,
            "built_seq": sealed.manifest.applied_seq if sealed else None,
            "built_at": sealed.manifest.created_at if sealed else None,
            "building": self.building,
            "build_error": self.build_error,
            "probes": stats.nprobe,
            "rerank": stats.refine_k,
            "effort": stats.search_effort,
            "efforts": {
                name: {"probes": depth.nprobe, "rerank": depth.refine_k, "recall": depth.recall}
                for name, depth in stats.depths.items()
            },
        }

    def add_to(self, totals: dict[str, float]) -> None:
        """Add its numbers to those of other open indexes."""
        totals["open"] += 1
        totals["vectors"] += self.index.ntotal
        totals["lag"] = max(totals["lag"], self.follower.lag)
        totals["bytes"] += self.nbytes
        if isinstance(self.index, SegmentedIndex):
            stats = self.index.stats()
            totals["tail"] += stats.growing
            totals["tombstones"] += stats.tombstones
            totals["building"] += self.building
