"""RaBitQCodes: vectors as codes of one bit a direction, in inverted lists. The one place that calls FAISS.

Rows are numbered in the order in which they are added. Measured with FAISS 1.15: searches respect a selector,
find every row when all lists are probed, and start no thread for a single query.
"""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from index.idset import Bitmap
from index.types import Embeddings

SEED = 1
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
Candidates = npt.NDArray[np.int64]
"""Shape [q, depth]: rows, the likeliest first; -1 where the searched lists hold no more."""


class RaBitQCodes:
    """Any number of threads may search; one trains and fills."""

    def __init__(self, index: Any) -> None:
        faiss = _faiss()
        self._index = index
        self.d, self.n = int(index.d), int(index.ntotal)
        self.nlist = int(faiss.downcast_index(index.index).nlist)

    @classmethod
    def train(cls, sample: Embeddings, nlist: int, rounds: int) -> Self:
        """No codes yet, in `nlist` lists around the centroids that k-means finds in `sample` [n, d]."""
        faiss = _faiss()
        d = sample.shape[1]
        # A code has one bit for each direction; a rotation spreads what an embedding keeps in a few of them.
        rotation = faiss.RandomRotationMatrix(d, d)
        rotation.init(SEED)
        ivf = faiss.IndexIVFRaBitQFastScan(faiss.IndexFlatIP(d), d, nlist, faiss.METRIC_INNER_PRODUCT)
        ivf.cp.niter, ivf.cp.seed = rounds, SEED
        ivf.cp.min_points_per_centroid, ivf.cp.max_points_per_centroid = 1, len(sample)
        index = faiss.IndexPreTransform(rotation, ivf)
        faiss.omp_set_num_threads(THREADS)
        index.train(sample)
        return cls(index)

    def add(self, vectors: Embeddings) -> None:
        """Encode `vectors` [n, d] as the next rows."""
        _faiss().omp_set_num_threads(THREADS)
        self._index.add(vectors)
        self.n = int(self._index.ntotal)

    def find_candidates(
        self, queries: Embeddings, depth: int, nprobe: int, allowed: Bitmap | None = None
    ) -> Candidates:
        """The `depth` rows whose codes look nearest to each of `queries`, of those in `allowed`, in `nprobe` lists."""
        faiss = _faiss()
        selector = None if allowed is None else faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(allowed))
        params = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=nprobe, sel=selector))
        # The setting is the calling thread's own. More threads than queries only wait for each other.
        faiss.omp_set_num_threads(min(len(queries), THREADS))
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        candidates: Candidates = self._index.search((queries / lengths).astype(np.float32), depth, params=params)[1]
        return candidates

    def to_bytes(self) -> memoryview:
        """The codes in FAISS's format."""
        return memoryview(_faiss().serialize_index(self._index))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The codes that `to_bytes` wrote. FAISS is not safe with any other bytes."""
        return cls(_faiss().deserialize_index(np.frombuffer(data, np.uint8)))


def _faiss() -> Any:
    import faiss  # when it is needed: a server of small indexes alone saves its memory

    return faiss
