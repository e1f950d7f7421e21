"""ProductCodes: vectors as product codes of two bits a dimension, in inverted lists. The one place that trains FAISS.

A random rotation spreads what an embedding keeps in a few directions, and fills up odd widths. Then each pair of
directions of what is left of a vector without its centroid has a code of four bits; FAISS scans 32 vectors at once
(FastScan). Rows are numbered in the order in which they are added.

Which lists a query looks into may depend on where it lies, see `Gap`. Nothing here calls BLAS during a search: its
threads would wait for each other (two searching threads fell to a third of their rate).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from index.idset import Bitmap
from index.types import Embeddings, Scores

SEED = 1
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CODE_BITS, CODED_TOGETHER, BLOCK = 4, 2, 32
"""Bits of a code, directions that it stands for, and vectors that FAISS scans together."""
Candidates = npt.NDArray[np.int64]
"""Shape [q, depth]: rows, the likeliest first; -1 where the searched lists hold no more."""
Lists = npt.NDArray[np.int64]
"""Shape [q, nprobe]: the lists that each query looks into."""


@dataclass(frozen=True, slots=True, eq=False)
class Gap:
    """Texts lie apart from pictures, so the lists nearest to a text are not those that hold its nearest pictures.

    `stored` and `asked` [d] are the means of stored vectors and of queries of another kind. To choose its lists a query
    takes `share` of the way from the second to the first; a query that lies where stored vectors do takes none, one
    between them a part.
    """

    stored: Embeddings
    asked: Embeddings
    share: float

    def measure_steps(self, queries: Embeddings) -> Scores:
        """How much of the whole way each of the unit vectors `queries` [q, d] takes: [q], from 0 to `share`."""
        way = self.stored - self.asked
        length = float(way @ way)
        if not self.share or not length:
            return np.zeros(len(queries), np.float32)
        left = np.vecdot(self.stored - queries, way) / np.float32(length)
        return np.asarray(np.float32(self.share) * left.clip(0, 1), np.float32)


class ProductCodes:
    """Any number of threads may search; one trains and fills."""

    def __init__(self, index: Any, gap: Gap | None = None) -> None:
        faiss = load_faiss()
        self._index = index  # owns all that follows
        self._ivf = faiss.downcast_index(index.index)
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        self.d, self.n, self.nlist = int(index.d), int(index.ntotal), int(self._ivf.nlist)
        width = int(self._ivf.d)
        self._rotation = faiss.vector_to_array(rotation.A).reshape(width, self.d)
        centroids = faiss.downcast_index(self._ivf.quantizer)
        self._centroids = faiss.vector_to_array(centroids.codes).view(np.float32).reshape(-1, width)
        self.gap = gap

    @property
    def gap(self) -> Gap | None:
        """By which queries choose their lists; None: all choose the nearest."""
        return self._gap

    @gap.setter
    def gap(self, gap: Gap | None) -> None:
        self._gap = gap
        way = np.zeros(self.d, np.float32) if gap is None else gap.stored - gap.asked
        self._gains: Scores = np.asarray(self._rotate(way[None]) @ self._centroids.T, np.float32)

    @classmethod
    def train(cls, sample: Embeddings, nlist: int, rounds: int) -> Self:
        """No codes yet, in `nlist` lists around the centroids that k-means finds in `sample` [n, d]."""
        faiss = load_faiss()
        d = sample.shape[1]
        pairs = -(-d // CODED_TOGETHER)
        width = CODED_TOGETHER * pairs
        rotation = faiss.RandomRotationMatrix(d, width)
        rotation.init(SEED)
        metric = faiss.METRIC_INNER_PRODUCT
        ivf = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(width), width, nlist, pairs, CODE_BITS, metric, BLOCK)
        ivf.by_residual = True
        ivf.cp.niter, ivf.cp.seed, ivf.pq.cp.seed = rounds, SEED, SEED
        ivf.cp.min_points_per_centroid, ivf.cp.max_points_per_centroid = 1, max(len(sample), 1)
        ivf.pq.cp.min_points_per_centroid = 1
        index = faiss.IndexPreTransform(rotation, ivf)
        faiss.omp_set_num_threads(THREADS)
        # k-means wants a vector for each of its centroids
        index.train(np.resize(sample, (max(len(sample), 1 << CODE_BITS, nlist), d)))
        return cls(index)

    def add(self, vectors: Embeddings) -> None:
        """Encode `vectors` [n, d] as the next rows."""
        load_faiss().omp_set_num_threads(THREADS)
        self._index.add(vectors)
        self.n = int(self._index.ntotal)

    def find_candidates(
        self, queries: Embeddings, depth: int, nprobe: int, allowed: Bitmap | None = None
    ) -> Candidates:
        """The `depth` rows whose codes look nearest to each of `queries`, of those in `allowed`, in `nprobe` lists.

        FAISS leaves out rows with the least score that codes can have.
        """
        faiss = load_faiss()
        selector = None if allowed is None else faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(allowed))
        params = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        # The setting is the calling thread's own. More threads than queries only wait for each other.
        faiss.omp_set_num_threads(min(max(len(queries), 1), THREADS))
        turned, lists, nearness = self._choose_lists(queries, nprobe)
        found = np.empty((len(queries), depth), np.float32)
        candidates: Candidates = np.empty((len(queries), depth), np.int64)
        self._ivf.search_preassigned_c(
            len(queries),
            faiss.swig_ptr(turned),
            depth,
            faiss.swig_ptr(lists),
            faiss.swig_ptr(nearness),
            faiss.swig_ptr(found),
            faiss.swig_ptr(candidates),
            False,
            params,
        )
        return candidates

    def rank_lists(self, queries: Embeddings) -> Lists:
        """All lists [q, nlist] in the order in which each of `queries` would look into them."""
        routed = self._compare_centroids(_normalise(queries))[2]
        return np.argsort(-routed, axis=1, kind="stable")

    def find_lists(self, vectors: Embeddings) -> npt.NDArray[np.intp]:
        """The list [n] that holds each of `vectors` [n, d]."""
        return np.asarray(np.argmax(self._rotate(vectors) @ self._centroids.T, axis=1))

    def _choose_lists(self, queries: Embeddings, nprobe: int) -> tuple[Embeddings, Lists, Scores]:
        """The rotated queries, the lists of each, and its inner products with their centroids."""
        turned, scores, routed = self._compare_centroids(_normalise(queries))
        if nprobe >= self.nlist:
            lists = np.tile(np.arange(self.nlist), (len(queries), 1))
        else:
            lists = np.ascontiguousarray(np.argpartition(-routed, nprobe - 1, axis=1)[:, :nprobe])
        return turned, lists, np.ascontiguousarray(np.take_along_axis(scores, lists, 1))

    def _compare_centroids(self, unit: Embeddings) -> tuple[Embeddings, Scores, Scores]:
        """The rotated queries, their inner products [q, nlist] with the centroids, and these as lists are chosen by."""
        turned = np.empty((len(unit), len(self._rotation)), np.float32)
        scores = np.empty((len(unit), self.nlist), np.float32)
        for i, query in enumerate(unit):
            np.vecdot(self._rotation, query, out=turned[i])
            np.vecdot(self._centroids, turned[i], out=scores[i])
        if self._gap is None:
            return turned, scores, scores
        return turned, scores, scores + self._gap.measure_steps(unit)[:, None] * self._gains

    def _rotate(self, vectors: Embeddings) -> Embeddings:
        return np.asarray(vectors @ self._rotation.T, np.float32)

    def to_bytes(self) -> memoryview:
        """The codes in FAISS's format."""
        return memoryview(load_faiss().serialize_index(self._index))

    @classmethod
    def from_bytes(cls, data: bytes, gap: Gap | None = None) -> Self:
        """The codes that `to_bytes` wrote. FAISS is not safe with any other bytes."""
        return cls(load_faiss().deserialize_index(np.frombuffer(data, np.uint8)), gap)


def _normalise(queries: Embeddings) -> Embeddings:
    """Of any length that float32 can hold, to length 1."""
    wide = queries.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)


def load_faiss() -> Any:
    import faiss  # when it is needed: a server of small indexes alone saves its memory

    return faiss
