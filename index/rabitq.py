"""Codes: the one place that speaks to FAISS. Vectors as RaBitQ codes of one bit a direction, in inverted lists.

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
"""Shape [q, depth]: rows, the likeliest first; -1 where the probed lists hold no more."""


class RaBitQCodes:
    """Searched by any number of threads; trained and filled by one."""

    def __init__(self, index: Any) -> None:
        faiss = _faiss()
        self._index = index
        self.d, self.n = int(index.d), int(index.ntotal)
        self.lists = int(faiss.downcast_index(index.index).nlist)

    @classmethod
    def trained(cls, sample: Embeddings, lists: int, rounds: int) -> Self:
        """No codes yet, in `lists` around the centroids that k-means finds in `sample` [n, d] in so many rounds."""
        faiss = _faiss()
        d = sample.shape[1]
        # A code has one bit for each direction; a rotation spreads what an embedding keeps in a few of them.
        rotation = faiss.RandomRotationMatrix(d, d)
        rotation.init(SEED)
        ivf = faiss.IndexIVFRaBitQFastScan(faiss.IndexFlatIP(d), d, lists, faiss.METRIC_INNER_PRODUCT)
        ivf.cp.niter, ivf.cp.seed = rounds, SEED
        ivf.cp.min_points_per_centroid, ivf.cp.max_points_per_centroid = 1, len(sample)
        index = faiss.IndexPreTransform(rotation, ivf)
        faiss.omp_set_num_threads(THREADS)
        index.train(sample)
        return cls(index)

    def add(self, vectors: Embeddings) -> None:
        """Code `vectors` [n, d] as the next rows."""
        _faiss().omp_set_num_threads(THREADS)
        self._index.add(vectors)
        self.n = int(self._index.ntotal)

    def nominate(self, queries: Embeddings, depth: int, probes: int, allowed: Bitmap | None = None) -> Candidates:
        """The `depth` rows that look nearest to each of `queries`, of those in `allowed`, in the nearest lists."""
        faiss = _faiss()
        selector = None if allowed is None else faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(allowed))
        params = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=probes, sel=selector))
        # The setting is the calling thread's own. More threads than queries only wait for each other.
        faiss.omp_set_num_threads(min(len(queries), THREADS))
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        nominated: Candidates = self._index.search((queries / lengths).astype(np.float32), depth, params=params)[1]
        return nominated

    def to_bytes(self) -> memoryview:
        """Everything, in FAISS's format."""
        return memoryview(_faiss().serialize_index(self._index))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave. The bytes must be just these: FAISS is not safe with others."""
        return cls(_faiss().deserialize_index(np.frombuffer(data, np.uint8)))


def _faiss() -> Any:
    import faiss  # when it is needed: who has small indexes alone is spared its memory

    return faiss
