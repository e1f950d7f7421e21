"""Compare a sealed segment of the first format (RaBitQ, one bit a direction) with one of today's, in turns."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from app.encoder.protocol import Embeddings
from bench.experiments.scenes import FOLDER
from bench.experiments.timing import measure_in_turns, processor_ms
from bench.experiments.vectors import (
    BLOCK,
    D,
    K,
    find_exact,
    load_asked,
    load_exact,
    load_queries,
    load_vectors,
    recall,
)
from bench.results import Figures
from index import snapshot
from index.rabitq import RaBitQCodes
from index.sealed_segment import Depth, SealedSegment, SegmentParams
from index.segment_builder import build_segment
from index.types import Ids

ASKED, TIMED, TRIED = 1_000, 1_200, 400
TARGET = 0.993
DEPTHS = (400, 600, 800, 1200)


def measure(count: int) -> Figures:
    """Recall of texts that chose nothing, p50, rate, bytes and build of both; the last rows are new over old."""
    if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":
        raise SystemExit("set OMP_WAIT_POLICY=PASSIVE, as the service does for builds")
    figures: Figures = {}
    new, figures["new: build from vectors in memory, s"] = open_new(count)
    old, figures["old: lists and codes, s"] = make_old(new, load_vectors(count))
    asked, truth = load_queries(), load_exact(count, load_queries()[:ASKED])
    segments = {"old": old, "new": new}

    def search(segment: SealedSegment, queries: Embeddings) -> Ids:
        depth = segment.params.normal
        return segment.search(queries, K, depth.nprobe, depth.refine_k)[1]

    for name, segment in segments.items():
        depth = segment.params.normal
        figures |= {f"{name}: lists searched": depth.nprobe, f"{name}: compared again": depth.refine_k}
        figures[f"{name}: recall@10"] = recall(np.concatenate([search(segment, q[None]) for q in asked[:ASKED]]), truth)
        figures[f"{name}: processor ms"] = processor_ms(lambda q, s=segment: search(s, q), asked[ASKED : ASKED + TRIED])  # type: ignore[misc]
    searches = {name: lambda q, s=segment: search(s, q) for name, segment in segments.items()}
    paces = measure_in_turns(searches, asked[ASKED : ASKED + TIMED])
    for name, pace in paces.items():
        figures |= {f"{name}: p50, ms": pace.p50, f"{name}: two threads, a second": pace.rate}
    figures["p50, new over old"] = paces["new"].p50 / paces["old"].p50
    figures["rate, new over old"] = paces["new"].rate / paces["old"].rate
    return figures


def open_new(count: int) -> tuple[SealedSegment, float]:
    folder = FOLDER / f"base-{count}"
    said = Path(f"{folder}.seconds")
    if not said.exists():
        began = time.perf_counter()
        build_segment(
            folder, read_blocks(load_vectors(count)), name="n", space="s", d=D, applied_seq=0, asked=load_asked()
        )
        said.write_text(str(time.perf_counter() - began), encoding="ascii")
    segment, _ = snapshot.load(folder, SealedSegment, name="n", space="s", d=D)
    segment.verify()
    return segment, float(said.read_text(encoding="ascii"))


def read_blocks(rows: Embeddings) -> Iterator[tuple[Ids, Embeddings]]:
    for start in range(0, len(rows), BLOCK):
        part = np.ascontiguousarray(rows[start : start + BLOCK])
        yield np.arange(start, start + len(part), dtype=np.int64), part


def make_old(new: SealedSegment, rows: Embeddings) -> tuple[SealedSegment, float]:
    """Codes as the first format had them, with as many lists, for the same mapped vectors."""
    began = time.perf_counter()
    faiss.omp_set_num_threads(2)
    words: Any = faiss
    nlist = new.params.nlist
    rotation = words.RandomRotationMatrix(D, D)
    rotation.init(1)
    ivf = words.IndexIVFRaBitQFastScan(words.IndexFlatIP(D), D, nlist, words.METRIC_INNER_PRODUCT)
    ivf.cp.niter, ivf.cp.seed = 8, 1
    ivf.cp.min_points_per_centroid, ivf.cp.max_points_per_centroid = 1, 64 * nlist
    index = words.IndexPreTransform(rotation, ivf)
    sample = np.sort(np.random.default_rng(1).permutation(len(rows))[: 64 * nlist])
    index.train(np.ascontiguousarray(rows[sample]))
    for _, part in read_blocks(rows):
        index.add(part)
    seconds = time.perf_counter() - began
    codes = RaBitQCodes(index)
    depth = find_cheapest(codes, rows)
    params = SegmentParams(nlist, depth, depth, format=1)
    return SealedSegment(new.manifest, params, new._ids, new._order, codes, new._vectors), seconds


def find_cheapest(codes: RaBitQCodes, rows: Embeddings) -> Depth:
    """What finds TARGET by the same texts that today's segments are calibrated with, at the cost that was measured."""
    asked = load_asked()[0][:TRIED]
    truth = find_exact(rows, asked, K)
    found: list[tuple[float, Depth]] = []
    for nprobe in np.unique(np.geomspace(codes.nlist / 12, codes.nlist / 2, 24).astype(int)).tolist():
        candidates = codes.find_candidates(asked, DEPTHS[-1], nprobe)
        for depth in DEPTHS:
            share = float((candidates[:, :depth, None] == truth[:, None, :]).any(1).mean())
            if share >= TARGET:
                cost = nprobe * (7 + 0.006 * len(rows) / codes.nlist) + 0.4 * depth
                found.append((cost, Depth(nprobe, depth, share)))
    return min(found, key=lambda one: one[0])[1] if found else Depth(codes.nlist, DEPTHS[-1], 0.0)
