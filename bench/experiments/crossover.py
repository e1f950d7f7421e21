"""Compare the flat index with a sealed segment at several counts: up to which count is the flat one as fast?"""

from __future__ import annotations

import shutil

import faiss
import numpy as np

from bench.experiments.scenes import FOLDER
from bench.experiments.timing import anonymous_bytes, measure_in_turns
from bench.experiments.vectors import D, K, find_exact, load_queries, load_vectors, recall
from bench.results import Figures
from index import snapshot
from index.flat import FlatIndex
from index.sealed_segment import SealedSegment
from index.segment_builder import build_segment
from index.segmented import SegmentedIndex

COUNTS = (10_000, 30_000, 50_000, 100_000)
ASKED, TIMED = 300, 600
ROWS = 10_000


def measure() -> Figures:
    """p50 and queries a second of both in turns, memory of both, recall of the sealed segment."""
    said: Figures = {}
    asked = load_queries()
    for count in COUNTS:
        rows = np.ascontiguousarray(load_vectors(count))
        ids = np.arange(count)
        before = anonymous_bytes()
        exact = FlatIndex(D)
        for start in range(0, count, ROWS):
            exact.add(ids[start : start + ROWS], rows[start : start + ROWS])
        said[f"{count:,}: exact, MB"] = (anonymous_bytes() - before) / 1e6
        folder = FOLDER / f"bound-{count}"
        shutil.rmtree(folder, ignore_errors=True)
        build_segment(folder, [(ids, rows)], name="bound", space="bound", d=D, applied_seq=0)
        before = anonymous_bytes()
        base, _ = snapshot.load(folder, SealedSegment, name="bound", space="bound", d=D)
        live = SegmentedIndex(D, base)
        live.search(asked[:ASKED], K)
        said[f"{count:,}: base, MB"] = (anonymous_bytes() - before) / 1e6
        found = live.search(asked[:ASKED], K)[1]
        said[f"{count:,}: base, recall@10"] = recall(found, find_exact(rows, asked[:ASKED], K))
        faiss.omp_set_num_threads(1)
        both = {"exact": lambda q, i=exact: i.search(q, K), "base": lambda q, i=live: i.search(q, K)}
        for name, pace in measure_in_turns(both, asked[ASKED : ASKED + TIMED]).items():
            said[f"{count:,}: {name}, p50, ms"] = pace.p50
            said[f"{count:,}: {name}, two threads, a second"] = pace.rate
        live.close()
        exact.close()
        shutil.rmtree(folder)
    return said
