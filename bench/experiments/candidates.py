"""The candidates for the sealed segment: partitioned indexes with short codes, and two HNSWs.

Each candidate is built from the same vectors into a folder, and opened from there. The partitioned ones may compare
their best rows again with half-precision vectors, in a mapped file ordered by list.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from app.encoder.protocol import Embeddings
from bench.environment import install
from bench.experiments.vectors import BLOCK, K
from bench.weights import WORK
from index.float16 import to_float32

Found = npt.NDArray[np.int64]
Search = Callable[[Embeddings], Found]
TRAINED = 64  # training vectors for each list
LINKS, CONSTRUCTION = 32, 100  # of both HNSWs
PROBES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
EF_SEARCH = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)  # of both HNSWs


@dataclass(frozen=True, slots=True)
class Effort:
    """Lists to search (for HNSW, candidates to keep), and how many candidates to compare again."""

    probes: int
    rerank: int = 0

    def __str__(self) -> str:
        return f"{self.probes}" + (f", {self.rerank} again" if self.rerank else "")


class Candidate(Protocol):
    """An index with its name and the efforts it may use, lowest first for each depth of re-ranking."""

    name: str
    efforts: list[Effort]

    def build(self, rows: Embeddings, folder: Path) -> None:
        """Build it and write it into the folder."""

    def open(self, folder: Path) -> None:
        """Open what was built."""

    def at(self, effort: Effort) -> Search:
        """The search [q, d] to [q, K] at this effort."""


def choose_nlist(count: int) -> int:
    """The power of two nearest to the root of `count`. A quarter of FAISS's advice, and faster at the same recall."""
    return int(2 ** max(4, round(math.log2(math.sqrt(count)))))


def sample_rows(count: int) -> Found:
    """The rows that train the lists."""
    wanted = min(count, TRAINED * choose_nlist(count))
    return np.sort(np.random.default_rng(3).choice(count, wanted, replace=False))


def load_centroids(rows: Embeddings, folder: Path) -> Embeddings:
    """The centroids of the lists, computed once for each count; a file beside them holds the seconds."""
    path = folder / f"centroids-{len(rows)}.npy"
    if not path.exists():
        began = time.perf_counter()
        kmeans: Any = faiss.Kmeans(
            rows.shape[1], choose_nlist(len(rows)), niter=10, spherical=True, max_points_per_centroid=TRAINED
        )
        kmeans.train(np.ascontiguousarray(rows[sample_rows(len(rows))]))
        path.with_suffix(".seconds").write_text(str(time.perf_counter() - began), encoding="ascii")
        np.save(path, kmeans.centroids)
    return np.load(path)  # type: ignore[no-any-return]


class Partitioned:
    """IVF lists of codes; `code` is FAISS's name for the code."""

    def __init__(self, name: str, code: str, reranks: Sequence[int]) -> None:
        self.name, self._code = name, code
        self.efforts = [Effort(p, r) for r in reranks for p in PROBES]

    def build(self, rows: Embeddings, folder: Path) -> None:
        n, d = rows.shape
        index: Any = faiss.index_factory(d, f"IVF{choose_nlist(n)},{self._code}", faiss.METRIC_INNER_PRODUCT)
        chosen = sample_rows(n)
        index.quantizer.add(load_centroids(rows, folder.parent))
        index.train(np.ascontiguousarray(rows[chosen]))
        blocks = [slice(start, min(n, start + BLOCK)) for start in range(0, n, BLOCK)]
        home = np.concatenate([index.quantizer.search(np.ascontiguousarray(rows[b]), 1)[1][:, 0] for b in blocks])
        order = np.argsort(home, kind="stable")
        np.save(folder / "ids.npy", order)
        half = np.lib.format.open_memmap(folder / "half.npy", "w+", np.float16, (n, d))
        for block in blocks:
            part = np.ascontiguousarray(rows[order[block]])
            index.add(part)
            half[block] = part
        half.flush()
        faiss.write_index(index, str(folder / "index.faiss"))

    def open(self, folder: Path) -> None:
        self._index = faiss.read_index(str(folder / "index.faiss"))
        self._ids = np.load(folder / "ids.npy", mmap_mode="r")
        self._half = np.load(folder / "half.npy", mmap_mode="r")

    def at(self, effort: Effort) -> Search:
        words: Any = faiss  # its type stubs lack keyword arguments
        kind = words.IVFRaBitQSearchParameters if self._code.startswith("RaBitQ") else words.SearchParametersIVF
        params = kind(nprobe=effort.probes)

        def search(queries: Embeddings) -> Found:
            _, rows = self._index.search(queries, max(K, effort.rerank), params=params)
            if effort.rerank:
                rows = np.stack([self._again(*pair) for pair in zip(queries, rows, strict=True)])
            return np.where(rows < 0, -1, self._ids[rows])

        return search

    def _again(self, query: Embeddings, rows: Found) -> Found:
        rows = rows[rows >= 0]
        scores = to_float32(np.asarray(self._half)[rows]) @ query
        best = np.full(K, -1, np.int64)
        top = rows[np.argsort(-scores)[:K]]
        best[: len(top)] = top
        return best


class FaissGraph:
    """FAISS HNSW32 with whole vectors."""

    name = "FAISS HNSW32"

    def __init__(self) -> None:
        self.efforts = [Effort(e) for e in EF_SEARCH]

    def build(self, rows: Embeddings, folder: Path) -> None:
        index = faiss.IndexHNSWFlat(rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = CONSTRUCTION
        for start in range(0, len(rows), BLOCK):
            index.add(np.ascontiguousarray(rows[start : start + BLOCK]))
        faiss.write_index(index, str(folder / "index.faiss"))

    def open(self, folder: Path) -> None:
        self._index = faiss.read_index(str(folder / "index.faiss"))

    def at(self, effort: Effort) -> Search:
        words: Any = faiss
        params = words.SearchParametersHNSW(efSearch=effort.probes)

        def search(queries: Embeddings) -> Found:
            found: Found = self._index.search(queries, K, params=params)[1]
            return found

        return search


class Hnswlib:
    """hnswlib, installed into its own environment and imported from there."""

    name = "hnswlib"

    def __init__(self) -> None:
        self.efforts = [Effort(e) for e in EF_SEARCH]

    def build(self, rows: Embeddings, folder: Path) -> None:
        index = self._library().Index("ip", rows.shape[1])
        index.init_index(len(rows), M=LINKS, ef_construction=CONSTRUCTION)
        for start in range(0, len(rows), BLOCK):
            part = np.ascontiguousarray(rows[start : start + BLOCK])
            index.add_items(part, np.arange(start, start + len(part)), num_threads=os.cpu_count() or 1)
        index.save_index(str(folder / "index.hnsw"))
        (folder / "d").write_text(str(rows.shape[1]), encoding="ascii")

    def open(self, folder: Path) -> None:
        self._index = self._library().Index("ip", int((folder / "d").read_text(encoding="ascii")))
        self._index.load_index(str(folder / "index.hnsw"))

    def at(self, effort: Effort) -> Search:
        def search(queries: Embeddings) -> Found:
            if self._index.ef != effort.probes:
                self._index.set_ef(effort.probes)  # all calls share it, so use one effort at a time
            found: Found = self._index.knn_query(queries, K, num_threads=1)[0].astype(np.int64)
            return found

        return search

    @staticmethod
    def _library() -> Any:
        place = install(WORK / "peers/hnswlib", ("hnswlib==0.8.0", "numpy>=2"))
        packages = next(place.glob("lib/python3*/site-packages"))
        sys.path.append(str(packages))  # at the end, so that numpy and all others stay ours
        try:
            return importlib.import_module("hnswlib")
        finally:
            sys.path.remove(str(packages))


CANDIDATES: tuple[Candidate, ...] = (
    Partitioned("IVF, RaBitQ FastScan", "RaBitQfs", (100, 200, 300, 400)),
    Partitioned("IVF, RaBitQ", "RaBitQ", (100, 200, 300)),
    Partitioned("IVF, SQ8", "SQ8", (0, 20, 40)),
    FaissGraph(),
    Hnswlib(),
)
