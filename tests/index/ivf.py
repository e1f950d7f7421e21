"""A real approximate index for tests: FAISS's inverted lists, of which it looks into 2^effort."""

from __future__ import annotations

import threading

import faiss
import numpy as np

from index.protocol import SearchParams
from index.types import Embeddings, Ids, Scores

LISTS = 64


class IvfIndex:
    """Whole vectors in LISTS lists; implements `ApproximateIndex`. Exact when it looks into all of them."""

    kind = "ivf"
    exact = False

    def __init__(self, training: Embeddings) -> None:
        self.d = training.shape[1]
        self.search_effort = 0
        self._lock = threading.Lock()
        self._quantizer = faiss.IndexFlatIP(self.d)
        self._index = faiss.IndexIVFFlat(self._quantizer, self.d, LISTS, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.seed = 1
        self._index.train(training)

    @property
    def ntotal(self) -> int:
        """How many ids are inside."""
        return int(self._index.ntotal)

    @property
    def nbytes(self) -> int:
        return 4 * int(self.ntotal * self.d)

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        """Store vectors; a known id is replaced."""
        with self._lock:
            self._index.remove_ids(ids)  # type: ignore[arg-type]
            self._index.add_with_ids(vectors, ids)

    def remove(self, ids: Ids) -> None:
        """Forget ids."""
        with self._lock:
            self._index.remove_ids(ids)  # type: ignore[arg-type]

    def set_search_effort(self, effort: int) -> None:
        """Look into 2^effort lists."""
        self.search_effort = min(max(effort, 0), LISTS.bit_length() - 1)

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        """The best of some lists, or of all."""
        params = params or SearchParams()
        probes = LISTS if params.exact else params.nprobe or 1 << self.search_effort
        how = faiss.SearchParametersIVF(nprobe=min(probes, LISTS))  # type: ignore[call-arg]
        if params.allowed_ids is not None:
            bits = np.zeros(params.allowed_ids.nbytes + 8, np.uint8)
            bits[: params.allowed_ids.nbytes] = params.allowed_ids.bitmap
            how.sel = chosen = faiss.IDSelectorBitmap(len(bits) * 8, faiss.swig_ptr(bits))
        threads = faiss.omp_get_max_threads()
        with self._lock:
            faiss.omp_set_num_threads(1)  # more would wait for each other longer than they search
            scores, ids = self._index.search(queries, k, params=how)
            faiss.omp_set_num_threads(threads)
        if params.allowed_ids is not None:
            del chosen
        scores[ids < 0] = -np.inf
        return scores, ids

    def close(self) -> None:
        """Nothing to give back."""
