"""RaBitQCodes: vectors as codes of one bit a direction, in inverted lists, as sealed segments of format 1 have them.

New segments have `ProductCodes`; those of format 1 are searched until they are built again.

RaBitQ: Gao and Long, SIGMOD 2024, https://arxiv.org/abs/2405.12497
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from index.idset import Bitmap
from index.product_codes import THREADS, Candidates, load_faiss
from index.types import Embeddings


class RaBitQCodes:
    """Any number of threads may search."""

    def __init__(self, index: Any) -> None:
        faiss = load_faiss()
        self._index = index
        self.d, self.n = int(index.d), int(index.ntotal)
        self.nlist = int(faiss.downcast_index(index.index).nlist)

    def find_candidates(
        self, queries: Embeddings, depth: int, nprobe: int, allowed: Bitmap | None = None
    ) -> Candidates:
        """The `depth` rows whose codes look nearest to each of `queries`, of those in `allowed`, in `nprobe` lists."""
        faiss = load_faiss()
        selector = None if allowed is None else faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(allowed))
        params = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=nprobe, sel=selector))
        # The setting is the calling thread's own. More threads than queries only wait for each other.
        faiss.omp_set_num_threads(min(len(queries), THREADS))
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        candidates: Candidates = self._index.search((queries / lengths).astype(np.float32), depth, params=params)[1]
        return candidates

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The codes in FAISS's format, as they were written. FAISS is not safe with any other bytes."""
        return cls(load_faiss().deserialize_index(np.frombuffer(data, np.uint8)))
