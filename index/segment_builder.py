"""Builds a sealed segment from a stream of vectors, in memory that hardly grows with them.

It reads the stream once: the vectors go to the disk in half precision, and every later step reads them there. Then
k-means divides a sample into lists, every vector is encoded into its list, and calibration tries searches on the
finished codes until they reach the recall that is wanted. It tries queries of each kind that there is, stored vectors
and texts say, chooses by one half of them, and measures by the other what recall a search has.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.float16 import Float16Vectors, to_float32
from index.npy_io import write_array
from index.product_codes import SEED, Gap, ProductCodes, load_faiss
from index.protocol import Sink
from index.sealed_segment import (
    BLOCK_ROWS,
    BLOCKS,
    CODES,
    GAP,
    IDS,
    MAX_ROWS,
    ORDER,
    PARAMS,
    VECTORS,
    Depth,
    SealedSegment,
    SegmentParams,
)
from index.snapshot import draft_snapshot
from index.types import Embeddings, Ids, SnapshotManifest
from index.validation import check_batch

log = logging.getLogger(__name__)

VectorBlock = tuple[Ids, Embeddings]

NLIST_FACTOR = 1.0
"""Lists for each root of a vector's count, to the nearest power of two: 1024 of 1,000,000. Few and long ones find more
in the same time, and are built sooner (ADR 20, ADR 81)."""
MAX_NLIST = 16_384
TRAINING_VECTORS_PER_LIST, KMEANS_ROUNDS = 64, 8
"""Vectors for each list that k-means sees, and its rounds."""
FILL_ROWS = 16_384
NORMAL_RECALL, FAST_RECALL = 0.996, 0.96
"""Of the 10 nearest, the share that a search is calibrated to find: somewhat more than 0.99 and 0.95."""
TRIAL_QUERIES, MIN_ASKED = 192, 64
"""Queries of a kind in each half, at most, and the fewest of a kind that are tried."""
NEAREST = 10
REFINE_K_CHOICES = (20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1600)
"""The values of refine_k that calibration tries."""
NPROBE_STEP = 0.04
"""By so large a share calibration raises nprobe first; by twice, three times as much after that."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of the gap between queries and stored vectors calibration tries to bridge."""
LIST_COST, CODE_COST, DEPTH_COST = 2.4, 0.005, 0.4
"""Microseconds that a list, a code in it and one more candidate cost (d = 512): they tell which pair is cheapest."""
TRIAL_NOISE = 1.5
"""How far trial queries are turned away from the vectors where no texts are known: noise so many times as long. With
it texts found 0.991 of their nearest pictures where these queries found 0.995; with 1.0 only 0.98 (ADR 20)."""


def build_segment(
    folder: Path,
    blocks: Iterable[VectorBlock],
    *,
    name: str,
    space: str,
    d: int,
    applied_seq: int,
    mark: str = "",
    asked: Sequence[Embeddings] = (),
) -> SnapshotManifest:
    """Build a segment of `blocks` of (ids [n], vectors [n, d]) as the snapshot in `folder`.

    `asked` has the vectors [n, d] of queries as people send them, one array for each kind (texts, say); stored vectors
    are tried anyway. No id may come twice. Raises InvalidId, InvalidVector, ValueError (no vectors, an id twice) and
    OSError; the previous segment is then still there and whole.
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
        params = calibrate(codes, vectors, [some for some in asked if some.shape[1] == d and len(some) >= MIN_ASKED])
        means = np.stack([codes.gap.stored, codes.gap.asked]) if codes.gap else np.zeros((2, d), np.float32)
        draft.write(CODES, lambda sink: sink.write(codes.to_bytes()))
        for file, array in ((IDS, ids), (ORDER, order), (BLOCKS, hashes), (GAP, means)):
            draft.write(file, lambda sink, a=array: write_array(sink, a.dtype, a.shape, [a]))  # type: ignore[misc]
        draft.write(PARAMS, lambda sink: sink.write(params.to_json()))
        manifest = draft.seal(
            name=name, space=space, kind=SealedSegment.kind, d=d, ntotal=len(ids), applied_seq=applied_seq, mark=mark
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


def _encode(vectors: Float16Vectors) -> ProductCodes:
    """The codes of `vectors` [n, d]."""
    n = len(vectors)
    nlist = _choose_nlist(n)
    rows = np.sort(_sample_rows(n, TRAINING_VECTORS_PER_LIST * nlist))
    codes = ProductCodes.train(to_float32(vectors[rows]), nlist, KMEANS_ROUNDS)
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
    """Queries of one kind [q, d], and the rows [q, NEAREST] of their nearest."""

    queries: Embeddings
    nearest: npt.NDArray[np.int64]


def calibrate(codes: ProductCodes, vectors: Float16Vectors, asked: Sequence[Embeddings] = ()) -> SegmentParams:
    """How to search `codes`: what costs least of what finds the wanted share of the NEAREST; also sets their gap.

    Every kind of queries must reach the target: stored vectors, which is what a picture as a query is, and those of
    `asked`. Without any, stored vectors with noise take their place, since the vector of a text lies farther off.
    """
    tried, measured = _make_trials(vectors, asked)
    if asked:
        sample = to_float32(vectors[np.sort(_sample_rows(len(vectors), FILL_ROWS))])
        texts = np.concatenate([_halve(some)[0] for some in asked])  # those that are not measured
        codes.gap = _choose_gap(codes, vectors, tried, Gap(sample.mean(axis=0), texts.mean(axis=0), 0.0))
    normal, fast = (_choose_depth(codes, vectors, tried, measured, target) for target in (NORMAL_RECALL, FAST_RECALL))
    return SegmentParams(codes.nlist, normal, fast, codes.gap.share if codes.gap else 0.0)


def _choose_gap(codes: ProductCodes, vectors: Float16Vectors, trials: Sequence[_Trial], gap: Gap) -> Gap:
    """The gap with the share that leaves the fewest lists to search."""
    gaps = [replace(gap, share=share) for share in SHARES]
    counts: list[int] = []
    for one in gaps:
        codes.gap = one
        counts.append(_count_lists(codes, vectors, trials, NORMAL_RECALL))
    return gaps[int(np.argmin(counts))]


def _count_lists(codes: ProductCodes, vectors: Float16Vectors, trials: Sequence[_Trial], target: float) -> int:
    """How many lists hold the share `target` of the nearest, for every kind of queries."""
    most = 1
    for trial in trials:
        rows = trial.nearest.reshape(-1)
        lists = codes.find_lists(to_float32(vectors[rows])).reshape(trial.nearest.shape)
        places = np.argsort(codes.rank_lists(trial.queries), axis=1)
        needed = np.sort(np.take_along_axis(places, lists, 1).reshape(-1)) + 1
        most = max(most, int(needed[min(math.ceil(target * len(needed)), len(needed)) - 1]))
    return most


def _choose_depth(
    codes: ProductCodes, vectors: Float16Vectors, tried: Sequence[_Trial], measured: Sequence[_Trial], target: float
) -> Depth:
    """What costs least of what finds the share `target` of the nearest of `tried`; its recall is that of `measured`."""
    n, nlist = len(vectors), codes.nlist
    depths = [depth for depth in REFINE_K_CHOICES if depth < n] or [n]
    list_cost = LIST_COST + CODE_COST * codes.d / 512 * n / nlist
    best, least = (nlist, depths[-1]), math.inf  # where nothing suffices, everything that there is
    for nprobe in _nprobe_choices(_count_lists(codes, vectors, tried, target), nlist):
        if nprobe * list_cost >= least:
            break
        recalls = np.min([_measure_recalls(codes, trial, nprobe, depths) for trial in tried], axis=0)
        for refine_k, recall in zip(depths, recalls.tolist(), strict=True):
            cost = nprobe * list_cost + refine_k * DEPTH_COST * codes.d / 512
            if recall >= target and cost < least:
                best, least = (nprobe, refine_k), cost
    nprobe, refine_k = best
    recall = min(float(_measure_recalls(codes, trial, nprobe, [refine_k])[0]) for trial in measured)
    return Depth(nprobe, refine_k, round(recall, 4))


def _nprobe_choices(first: int, last: int) -> Iterator[int]:
    """From `first` up to `last`, closer together near `first`."""
    nprobe, steps = min(first, last), 0
    while nprobe < last:
        yield nprobe
        steps += 1
        nprobe = max(nprobe + 1, round(nprobe * (1 + steps * NPROBE_STEP)))
    yield last


def _make_trials(vectors: Float16Vectors, asked: Sequence[Embeddings]) -> tuple[list[_Trial], list[_Trial]]:
    """Trials of each kind of queries: those that choose, and those that measure what was chosen."""
    n, d = vectors.shape
    given = to_float32(vectors[np.sort(_sample_rows(n, 2 * TRIAL_QUERIES, SEED + 1))])
    if not asked:
        noise = np.random.default_rng(SEED).standard_normal(given.shape).astype(np.float32)
        turned = given + noise * np.float32(TRIAL_NOISE / math.sqrt(d))
        asked = [turned / np.linalg.norm(turned, axis=1, keepdims=True)]
    halves = [_halve(some) for some in (given, *asked)]
    queries = [half[:TRIAL_QUERIES] for side in (0, 1) for half in (pair[side] for pair in halves)]
    nearest = _find_nearest(vectors, np.concatenate(queries))
    ends = np.cumsum([len(some) for some in queries])[:-1]
    trials = [_Trial(*pair) for pair in zip(queries, np.split(nearest, ends), strict=True)]
    return trials[: len(halves)], trials[len(halves) :]


def _halve(queries: Embeddings) -> tuple[Embeddings, Embeddings]:
    """Two halves without order, of one alone twice the same."""
    mixed = queries[_sample_rows(len(queries), len(queries), SEED + 2)]
    middle = len(mixed) // 2
    return (mixed[:middle], mixed[middle:]) if middle else (mixed, mixed)


def _find_nearest(vectors: Float16Vectors, queries: Embeddings) -> npt.NDArray[np.int64]:
    """The rows [q, NEAREST] of the nearest, by comparing everything."""
    faiss = load_faiss()
    k = min(NEAREST, len(vectors))
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), FILL_ROWS):
        block = to_float32(vectors[start : start + FILL_ROWS])
        found, places = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, rows = np.concatenate([scores, found], axis=1), np.concatenate([rows, places + start], axis=1)
        top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, top, 1), np.take_along_axis(rows, top, 1)
    return rows


def _measure_recalls(codes: ProductCodes, trial: _Trial, nprobe: int, depths: list[int]) -> npt.NDArray[np.float64]:
    """Which share of the nearest is among the candidates, for each of `depths`."""
    candidates = codes.find_candidates(trial.queries, depths[-1], nprobe)
    inside = (candidates[:, :, None] == trial.nearest[:, None, :]).any(axis=2)
    return np.array([inside[:, :depth].sum() / trial.nearest.size for depth in depths])
