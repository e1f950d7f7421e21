"""Where comparing with everything stops being as fast: the exact index beside a base, at several counts."""

from __future__ import annotations

import shutil

import faiss
import numpy as np

from bench.experiments.pace import anonymous, together
from bench.experiments.scenes import FOLDER
from bench.experiments.vectors import D, K, best, queries, recall, vectors
from bench.results import Figures
from index import snapshot
from index.flat import FlatIndex
from index.sealed_segment import SealedSegment
from index.segment_builder import build_segment
from index.segmented import SegmentedIndex

COUNTS = (10_000, 30_000, 50_000, 100_000)
ASKED, TIMED = 300, 600
ROWS = 10_000


def figures() -> Figures:
    """p50 and queries a second of both in turns, memory of both, recall of the base."""
    said: Figures = {}
    asked = queries()
    for count in COUNTS:
        rows = np.ascontiguousarray(vectors(count))
        ids = np.arange(count)
        before = anonymous()
        exact = FlatIndex(D)
        for start in range(0, count, ROWS):
            exact.add(ids[start : start + ROWS], rows[start : start + ROWS])
        said[f"{count:,}: exact, MB"] = (anonymous() - before) / 1e6
        folder = FOLDER / f"bound-{count}"
        shutil.rmtree(folder, ignore_errors=True)
        build_segment(folder, [(ids, rows)], name="bound", space="bound", d=D, applied_seq=0)
        before = anonymous()
        base, _ = snapshot.load(folder, SealedSegment, name="bound", space="bound", d=D)
        live = SegmentedIndex(D, base)
        live.search(asked[:ASKED], K)
        said[f"{count:,}: base, MB"] = (anonymous() - before) / 1e6
        found = live.search(asked[:ASKED], K)[1]
        said[f"{count:,}: base, recall@10"] = recall(found, best(rows, asked[:ASKED], K))
        faiss.omp_set_num_threads(1)
        both = {"exact": lambda q, i=exact: i.search(q, K), "base": lambda q, i=live: i.search(q, K)}
        for name, pace in together(both, asked[ASKED : ASKED + TIMED]).items():
            said[f"{count:,}: {name}, p50, ms"] = pace.p50
            said[f"{count:,}: {name}, two threads, a second"] = pace.rate
        live.close()
        exact.close()
        shutil.rmtree(folder)
    return said
