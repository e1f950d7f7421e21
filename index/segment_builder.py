"""Builds a sealed segment from a stream of vectors, in memory that hardly grows with them.

It reads the stream once: the vectors go to the disk in half precision, and every later step reads them there. Then
k-means divides a sample into lists, every vector is encoded into its list, and calibration tries searches on the
finished codes until they reach the recall that is wanted.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.float16 import Float16Vectors, to_float32
from index.npy_io import write_array
from index.protocol import Sink
from index.rabitq import SEED, RaBitQCodes
from index.sealed_segment import (
    BLOCK_ROWS,
    BLOCKS,
    CODES,
    IDS,
    MAX_ROWS,
    ORDER,
    PARAMS,
    VECTORS,
    SealedSegment,
    SegmentParams,
)
from index.snapshot import draft_snapshot
from index.types import Embeddings, Ids, SnapshotManifest
from index.validation import check_batch

log = logging.getLogger(__name__)

VectorBlock = tuple[Ids, Embeddings]

NLIST_FACTOR = 1.0
"""Lists for each root of a vector's count, to the nearest power of two: 1024 of 1,000,000. A list costs 7 µs before its
first code is looked at and 6 ns a code (d = 512): few and long ones find more in the same time (ADR 0020)."""
MAX_NLIST = 16_384
TRAINING_VECTORS_PER_LIST, KMEANS_ROUNDS = 64, 8
"""Vectors for each list that k-means sees, and its rounds."""
FILL_ROWS = 16_384
TARGET_RECALL = 0.993
"""Of the 10 nearest, the share that calibrated searches must find: somewhat more than 0.99."""
TRIAL_QUERIES = 128
NEAREST = 10
REFINE_K_CHOICES = (100, 200, 300, 400, 600, 800, 1200, 1600)
"""The values of refine_k that calibration tries."""
LIST_COST, CODE_COST, DEPTH_COST = 7.0, 0.006, 1.4
"""Microseconds that a list, a code in it and one more candidate cost (d = 512): they tell which pair is cheapest."""
FIRST_NPROBE = 4
TRIAL_NOISE = 1.5
"""How far trial queries are turned away from the vectors, as texts are from pictures: noise so many times as long. With
it texts found 0.991 of their nearest pictures where these queries found 0.995; with 1.0 only 0.98 (ADR 0020)."""


def build_segment(
    folder: Path, blocks: Iterable[VectorBlock], *, name: str, space: str, d: int, applied_seq: int
) -> SnapshotManifest:
    """Build a segment of `blocks` of (ids [n], vectors [n, d]) as the snapshot in `folder`.

    No id may come twice. Raises InvalidId, InvalidVector, ValueError (no vectors, an id twice) and OSError; the
    previous segment is then still there and whole.
    """
    began = time.monotonic()
    with draft_snapshot(folder) as draft:
        stream = _Stream(d)
        draft.write(VECTORS, lambda sink: stream.write(sink, blocks))
        ids = np.concatenate(stream.ids) if stream.ids else np.empty(0, np.int64)
        if not 0 < len(ids) <= MAX_ROWS:
            raise ValueError(f"{len(ids)} vectors, expected 1 to {MAX_ROWS}")
        order = np.argsort(ids, kind="stable").astype(np.int32)
        if (np.diff(ids[order]) <= 0).any():
            raise ValueError("an id twice")
        hashes = np.frombuffer(b"".join(stream.hashes), np.uint8).reshape(-1, 32)
        vectors = np.memmap(draft.directory / VECTORS, np.float16, "r", shape=(len(ids), d))
        codes = _encode(vectors)
        params = calibrate(codes, vectors)
        draft.write(CODES, lambda sink: sink.write(codes.to_bytes()))
        for file, array in ((IDS, ids), (ORDER, order), (BLOCKS, hashes)):
            draft.write(file, lambda sink, a=array: write_array(sink, a.dtype, a.shape, [a]))  # type: ignore[misc]
        draft.write(PARAMS, lambda sink: sink.write(params.to_json()))
        manifest = draft.seal(
            name=name, space=space, kind=SealedSegment.kind, d=d, ntotal=len(ids), applied_seq=applied_seq
        )
    log.info("sealed segment of %s: %d vectors in %.1f s, %s", name, len(ids), time.monotonic() - began, params)
    return manifest


class _Stream:
    """Writes vectors to the file, and collects their ids and the hashes of their blocks."""

    def __init__(self, d: int) -> None:
        self._d = d
        self.ids: list[Ids] = []
        self.hashes: list[bytes] = []

    def write(self, sink: Sink, blocks: Iterable[VectorBlock]) -> None:
        rest = np.empty((0, self._d), np.float16)
        for ids, vectors in blocks:
            check_batch(ids, vectors, self._d)
            self.ids.append(ids.copy())
            rest = np.concatenate([rest, vectors.astype(np.float16)])
            whole = len(rest) // BLOCK_ROWS * BLOCK_ROWS
            for start in range(0, whole, BLOCK_ROWS):
                self._write_block(sink, rest[start : start + BLOCK_ROWS])
            rest = rest[whole:]
        if len(rest):
            self._write_block(sink, rest)

    def _write_block(self, sink: Sink, rows: Float16Vectors) -> None:
        data = rows.view(np.uint8).reshape(-1).data
        self.hashes.append(hashlib.sha256(data).digest())
        sink.write(data)


def _encode(vectors: Float16Vectors) -> RaBitQCodes:
    """The codes of `vectors` [n, d]."""
    n = len(vectors)
    nlist = _choose_nlist(n)
    rows = np.sort(_sample_rows(n, TRAINING_VECTORS_PER_LIST * nlist))
    codes = RaBitQCodes.train(to_float32(vectors[rows]), nlist, KMEANS_ROUNDS)
    for start in range(0, n, FILL_ROWS):
        codes.add(to_float32(vectors[start : start + FILL_ROWS]))
    return codes


def _choose_nlist(n: int) -> int:
    wanted = 1 << round(math.log2(NLIST_FACTOR * math.sqrt(n)))
    return max(1, min(wanted, MAX_NLIST, n // TRAINING_VECTORS_PER_LIST))


def _sample_rows(n: int, count: int, seed: int = SEED) -> npt.NDArray[np.intp]:
    """`count` of n rows, or all of them, in random order; the same seed gives the same ones."""
    return np.random.default_rng(seed).permutation(n)[:count]


class _Trial(NamedTuple):
    queries: Embeddings
    nearest: npt.NDArray[np.int64]


def calibrate(codes: RaBitQCodes, vectors: Float16Vectors) -> SegmentParams:
    """The nprobe and refine_k that together cost least of those that find TARGET_RECALL of the NEAREST.

    Both kinds of trial queries must reach the target: stored vectors, which is what a picture as a query is, and
    vectors with noise, since the vector of a text lies farther off.
    """
    n, nlist = len(vectors), codes.nlist
    trials = list(_make_trials(vectors))
    depths = [depth for depth in REFINE_K_CHOICES if depth < n] or [n]
    cost_of_list = LIST_COST + CODE_COST * n / nlist
    best = SegmentParams(nlist, nlist, depths[-1], 0.0)  # where nothing suffices, everything that there is
    least = math.inf
    for nprobe in _nprobe_choices(min(FIRST_NPROBE, nlist), nlist):
        if nprobe * cost_of_list >= least:
            break
        recalls = np.min([_measure_recalls(codes, trial, nprobe, depths) for trial in trials], axis=0)
        if least == math.inf:
            best = SegmentParams(nlist, nprobe, depths[-1], round(float(recalls[-1]), 4))
        for refine_k, recall in zip(depths, recalls.tolist(), strict=True):
            cost = nprobe * cost_of_list + refine_k * DEPTH_COST
            if recall >= TARGET_RECALL and cost < least:
                least, best = cost, SegmentParams(nlist, nprobe, refine_k, round(recall, 4))
    return best


def _nprobe_choices(first: int, last: int) -> Iterator[int]:
    """4, 6, 8, 12, 16, 24 ... up to `last`."""
    step = first
    while step < last:
        yield step
        step = step * 3 // 2 if step & (step - 1) == 0 and step > 1 else step * 4 // 3 + (step == 1)
    yield last


def _make_trials(vectors: Float16Vectors) -> Iterator[_Trial]:
    n, d = vectors.shape
    given = to_float32(vectors[np.sort(_sample_rows(n, TRIAL_QUERIES, SEED + 1))])
    noise = np.random.default_rng(SEED).standard_normal(given.shape).astype(np.float32)
    turned = given + noise * np.float32(TRIAL_NOISE / math.sqrt(d))
    for queries in (given, turned / np.linalg.norm(turned, axis=1, keepdims=True)):
        yield _Trial(queries, _find_nearest(vectors, queries))


def _find_nearest(vectors: Float16Vectors, queries: Embeddings) -> npt.NDArray[np.int64]:
    """The rows [q, NEAREST] of the nearest, by comparing everything."""
    k = min(NEAREST, len(vectors))
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), FILL_ROWS):
        block = queries @ to_float32(vectors[start : start + FILL_ROWS]).T
        scores = np.concatenate([scores, block], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)], axis=1)
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores, rows = np.take_along_axis(scores, top, 1), np.take_along_axis(rows, top, 1)
    return rows


def _measure_recalls(codes: RaBitQCodes, trial: _Trial, nprobe: int, depths: list[int]) -> npt.NDArray[np.float64]:
    """Which share of the nearest is among the candidates, for each of `depths`."""
    candidates = codes.find_candidates(trial.queries, min(REFINE_K_CHOICES[-1], codes.n), nprobe)
    inside = (candidates[:, :, None] == trial.nearest[:, None, :]).any(axis=2)
    return np.array([inside[:, :depth].sum() / trial.nearest.size for depth in depths])
