"""Heads: a linear map that a collection was taught, between the vectors of texts and those of its pictures.

Stored vectors stay as the encoder made them. A head maps the query, and only where it is compared with the other kind:
a text that looks for pictures goes through the matrix, a picture that looks for texts through the transposed one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from app.core.types import AnswerWarning, Target
from app.encoder.protocol import Embeddings, normalise
from app.storage.database import Database
from app.storage.row_cache import open_cache
from app.storage.sql import Connection
from app.storage.tables import heads

INACTIVE = AnswerWarning(
    "head_inactive",
    "the collection was taught for another model: teach it again (`sightline teach`), or take its head off",
)
MAX_CACHED = 8  # matrices in memory, of the heads that were used last


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """`matrix` float32 [d, d] maps rows: text @ matrix.

    `maps_pictures`: the transposed map does not make pictures find their texts worse.
    """

    id: str
    matrix: Embeddings = field(repr=False)
    maps_pictures: bool = True

    def map_texts(self, vectors: Embeddings) -> Embeddings:
        """Unit vectors of texts [n, d], to compare with those of pictures."""
        return normalise(vectors @ self.matrix)

    def is_for(self, kind: Target | None, target: Target) -> bool:
        """Whether queries of this kind (None: a vector, of which nobody knows) that look for `target` go through it."""
        return kind is not None and kind != target and (kind == "texts" or self.maps_pictures)

    def map_query(self, vector: Embeddings, kind: Target | None, target: Target) -> Embeddings:
        """The vector [d] of a query of this kind, to compare with stored vectors of `target`."""
        if not self.is_for(kind, target):
            return vector
        matrix = self.matrix if kind == "texts" else self.matrix.T
        mapped = normalise(np.einsum("nd,de->ne", vector[None], matrix))  # not `@`: see `Spread`
        return np.asarray(mapped[0])


class HeadCache:
    """The head that each collection uses now, for vectors of one space."""

    def __init__(self, database: Database, space: str) -> None:
        self._database = database
        self._space = space
        self._lock = threading.Lock()
        self._cached: dict[str, Head] = {}  # by id; a head never changes

    def get(self, collection: str) -> Head | None:
        """None without a head, and with one that was taught for another model."""
        return self.find(collection)[0]

    def find(self, collection: str) -> tuple[Head | None, bool]:
        """The head, and whether the collection uses one that was taught for another model: that counts for nothing."""
        return self._database.read(lambda c: self._find(c, collection))

    def _find(self, c: Connection, collection: str) -> tuple[Head | None, bool]:
        used = open_cache(c).remember(("head", collection), lambda: heads.get_used(c, collection))
        if used is None or used[1] != self._space:
            return None, used is not None
        with self._lock:
            head = self._cached.pop(used[0], None)
        if head is None:
            values, maps_pictures = heads.read_matrix(c, used[0])
            head = Head(used[0], read_matrix(values), maps_pictures)
        with self._lock:
            self._cached[head.id] = head  # the newest comes last
            while len(self._cached) > MAX_CACHED:
                del self._cached[next(iter(self._cached))]
        return head, False


def read_matrix(values: bytes) -> Embeddings:
    """float32 [d, d] of what `heads.save` stored."""
    row = np.frombuffer(values, "<f4")
    return row.reshape(-1, round(len(row) ** 0.5)).astype(np.float32)
