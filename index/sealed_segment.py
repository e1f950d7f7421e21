"""Base: most vectors of a large index, sealed: written once (see `sealing`), then only read.

    vectors.half    float16 [n, d], raw: row after row, in the order of the log
    blocks.npy      uint8 [blocks, 32], the SHA-256 of every BLOCK_ROWS rows of it
    ids.npy         int64 [n]: whose vector a row is         order.npy   int32 [n]: the rows by rising id
    codes.faiss     64 bytes a vector: lists by nearest centroid of RaBitQ codes, in FAISS's own format
    base.json       how it is searched: lists, probes, rerank

A search looks into the nearest lists, lets the codes nominate rows and compares these with the whole vectors,
which stay in a mapped file: what many processes read lies in memory once. FAISS is given nothing but bytes
whose hash was checked. Of the vectors only the size is checked at the opening, so that this takes no longer
the more there are; their blocks are checked when they are first read, or by `verify`. Such a block is
never believed before. It is not protected against who shortens the file while it is open.

RaBitQ: Gao and Long, SIGMOD 2024, https://arxiv.org/abs/2405.12497
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from index.errors import SegmentDamaged
from index.float16 import ROWS_AT_ONCE, Float16Vectors, to_float32
from index.idset import Bitmap, IdSet
from index.npy_io import read_array
from index.rabitq import RaBitQCodes
from index.topk import make_padding, select_top_k
from index.types import Embeddings, Ids, Scores, SnapshotManifest
from index.validation import check_ids

SEGMENT_FORMAT = 1
"""Version of the files of a base. Any other is refused, and a new base is built from the log."""
BLOCK_ROWS = 64
VECTORS, BLOCKS, IDS, ORDER, CODES, PARAMS = (
    "vectors.half",
    "blocks.npy",
    "ids.npy",
    "order.npy",
    "codes.faiss",
    "base.json",
)
MAX_ROWS = 2**31 - 1
BRUTE_FORCE_ROWS = 20_000
"""So many rows are compared with their whole vectors, all of them: quicker than probing for some of many."""
BLOCKS_AT_ONCE = 64
"""Blocks read at once where all are checked: 4 MiB at d = 512."""
SCAN_SPEEDUP = 8
"""So many rows one after the other are read in the time of one candidate."""
MAX_SCORES = 16 << 20
"""Bound on the scores held at once, 64 MiB."""
MIN_REFINE_FACTOR = 2
"""At least so many candidates are compared again for each that is asked for."""

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class SegmentParams:
    """How a base is searched: `probes` of its `lists`, then `rerank` candidates.

    `recall` is what that found of the 10 nearest when the base was built (see `sealing.calibrate`).
    """

    lists: int
    probes: int
    rerank: int
    recall: float

    def to_json(self) -> bytes:
        """UTF-8 JSON with the format's version."""
        return json.dumps({"format": SEGMENT_FORMAT, **asdict(self)}, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> SegmentParams:
        """The facts in `text`. Raises ValueError unless they are of this format."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.pop("format", None) != SEGMENT_FORMAT:
            raise ValueError(f"not of format {SEGMENT_FORMAT}")
        facts = cls(**fields)
        if min(facts.lists, facts.probes, facts.rerank) < 1:
            raise ValueError(f"{facts}")
        return facts


@dataclass(frozen=True, slots=True)
class AllowedRows:
    """Which rows a search may find: one bit a row, lowest first, and how many are set."""

    bits: Bitmap
    count: int

    def rows(self) -> Rows:
        """The rows, rising."""
        return np.flatnonzero(np.unpackbits(self.bits, bitorder="little"))


class SealedSegment:
    """A sealed base, open. Any thread may call any method."""

    kind = "base"
    later = frozenset({VECTORS})
    """Which files `snapshot.load` leaves to be checked here."""

    def __init__(
        self,
        manifest: SnapshotManifest,
        facts: SegmentParams,
        ids: Ids,
        order: npt.NDArray[np.int32],
        codes: RaBitQCodes,
        vectors: _Vectors,
    ) -> None:
        self.manifest = manifest
        self.facts = facts
        self.n = len(ids)
        self.d = vectors.d
        self._ids = ids
        self._order = order
        self._codes = codes
        self._vectors = vectors
        self._largest = int(ids[order[-1]])
        self._last: tuple[IdSet, Bitmap] | None = None
        self.few = BRUTE_FORCE_ROWS  # 0: the codes nominate always

    @classmethod
    def restore(cls, manifest: SnapshotManifest, files: Mapping[str, BinaryIO]) -> Self:
        """The base in `files`, checked but for the vectors. Raises ValueError where they do not fit `manifest`."""
        if set(files) != {VECTORS, BLOCKS, IDS, ORDER, CODES, PARAMS}:
            raise ValueError(f"files {sorted(files)}")
        n, d = manifest.ntotal, manifest.d
        facts = SegmentParams.from_json(files[PARAMS].read())
        ids: Ids = read_array(files[IDS], np.int64, (n,))
        order = read_array(files[ORDER], np.int32, (n,))
        check_ids(ids)
        rising = ids[order]
        if not n or (np.diff(rising) <= 0).any():
            raise ValueError("no ids, or an id twice")
        hashes = read_array(files[BLOCKS], np.uint8, (-(-n // BLOCK_ROWS), 32))
        codes = RaBitQCodes.from_bytes(files[CODES].read())
        if (codes.d, codes.n, codes.lists) != (d, n, facts.lists):
            raise ValueError(f"{codes.n} codes of width {codes.d}, expected {n} of {d}")
        return cls(manifest, facts, ids, order, codes, _Vectors(files[VECTORS], n, d, hashes))

    @property
    def nbytes(self) -> int:
        """Bytes of memory, the mapped vectors left out."""
        codes = next(file.size for file in self.manifest.files if file.name == CODES)
        return codes + self._ids.nbytes + self._order.nbytes + self._vectors.nbytes

    @property
    def damage(self) -> str | None:
        """What was found broken; from then on every search raises BaseDamaged."""
        return self._vectors.damage

    @property
    def verified(self) -> bool:
        """Whether every vector was checked."""
        return self._vectors.whole

    def verify(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Read and check every vector, unless `stopped()`. Raises BaseDamaged."""
        self._vectors.verify(stopped)

    def rows(self, ids: Ids) -> Rows:
        """The rows of those of `ids` that are inside, in any order."""
        places = np.searchsorted(self._ids, ids, sorter=self._order)
        rows = self._order[np.minimum(places, self.n - 1)].astype(np.intp)
        known: Rows = rows[self._ids[rows] == ids]
        return known

    def known(self, ids: Ids) -> Ids:
        """Those of `ids` that are inside."""
        return self._ids[self.rows(ids)]

    def among(self, wanted: IdSet) -> Bitmap:
        """A bit for each row: whether its id is in `wanted`. The last answer is kept, for who asks again."""
        last = self._last
        if last is not None and last[0] is wanted:
            return last[1]
        size = 8 * len(wanted.bitmap)
        if size > 4 * self.n:
            inside = wanted.contains(self._ids)
        else:
            bits = np.unpackbits(wanted.bitmap, bitorder="little").view(np.bool_)
            if self._largest < size:
                inside = bits[self._ids]
            else:
                inside = self._ids < size
                inside[inside] = bits[self._ids[inside]]
        packed = np.packbits(inside, bitorder="little")
        self._last = wanted, packed
        return packed

    def search(
        self, queries: Embeddings, k: int, probes: int, rerank: int, allowed: AllowedRows | None = None
    ) -> tuple[Scores, Ids]:
        """The `k` best for each of `queries` [n, d] of the rows in `allowed`, padded, as far as `probes` lists show.

        There are k of them wherever `allowed` holds k. Raises BaseDamaged.
        """
        count = self.n if allowed is None else allowed.count
        depth = max(rerank, MIN_REFINE_FACTOR * k)
        if not count or (self.few and count <= max(self.few, SCAN_SPEEDUP * depth)):
            return self.exact(queries, k, allowed)
        scores, ids = make_padding(len(queries), k)
        # The fewer rows are allowed, the farther from the query lie the best of them.
        spread = min(self.facts.lists, int(probes * (self.n / count) ** 0.5))
        nominated = self._codes.nominate(queries, min(depth, count), spread, None if allowed is None else allowed.bits)
        for i, query in enumerate(queries):
            rows = nominated[i]
            rows = rows[rows >= 0]
            if len(rows) < min(k, count):  # too few in these lists
                scores[i : i + 1], ids[i : i + 1] = self.exact(queries[i : i + 1], k, allowed)
                continue
            found = select_top_k(self._vectors.scores(rows, query), self._ids[rows], k)
            scores[i, : len(found[0])], ids[i, : len(found[1])] = found
        return scores, ids

    def exact(self, queries: Embeddings, k: int, allowed: AllowedRows | None = None) -> tuple[Scores, Ids]:
        """The `k` best for each of `queries` [n, d] of the rows in `allowed`: all of them are compared."""
        scores, ids = make_padding(len(queries), k)
        rows = None if allowed is None or allowed.count == self.n else allowed.rows()
        count = self.n if rows is None else len(rows)
        found = min(k, count)
        if not found:
            return scores, ids
        named = self._ids if rows is None else self._ids[rows]
        batch = max(1, MAX_SCORES // count)
        for start in range(0, len(queries), batch):
            compared = self._vectors.compare(rows, queries[start : start + batch])
            for i, row in enumerate(compared, start):
                scores[i, :found], ids[i, :found] = select_top_k(row, named, found)
        return scores, ids

    def halves(self, rows: Rows) -> Float16Vectors:
        """The vectors of `rows` as they are kept."""
        return self._vectors.take(rows)


class _Vectors:
    """The mapped file of the vectors, which believes no block before its hash was compared."""

    def __init__(self, file: BinaryIO, n: int, d: int, hashes: npt.NDArray[np.uint8]) -> None:
        self.d = d
        self.damage: str | None = None
        size = os.fstat(file.fileno()).st_size
        if size != n * d * 2:
            raise ValueError(f"{VECTORS} has {size} bytes, expected {n * d * 2}")
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        mapped.madvise(mmap.MADV_RANDOM)  # reading ahead would bring in what nobody asked for
        self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._all: Float16Vectors = np.frombuffer(mapped, np.float16).reshape(n, d)
        self._hashes = hashes
        self._sound = np.zeros(len(hashes), np.bool_)
        self.whole = False

    @property
    def nbytes(self) -> int:
        """Bytes of memory: hashes and what was checked, not what is mapped."""
        return self._hashes.nbytes + self._sound.nbytes

    def take(self, rows: Rows) -> Float16Vectors:
        """Copies of `rows`."""
        self._ensure(rows)
        return self._all[rows]

    def scores(self, rows: Rows, query: Embeddings) -> Scores:
        """The inner products of `rows` with one query [d]."""
        products: Scores = self.compare(rows, query[None, :])[0]
        return products

    def compare(self, rows: Rows | None, queries: Embeddings) -> Scores:
        """The inner products [q, rows] of `rows` (None: of all) with `queries` [q, d].

        Each is computed in the same way as everywhere else, so that equal vectors get equal scores.
        """
        count = len(self._all) if rows is None else len(rows)
        scores = np.empty((len(queries), count), np.float32)
        for start in range(0, count, ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE, count)
            if rows is None:
                self._ensure(np.arange(start, end))
                block = to_float32(self._all[start:end])
            else:
                block = to_float32(self.take(rows[start:end]))
            for i, query in enumerate(queries):
                np.vecdot(block, query, out=scores[i, start:end])
        return scores

    def verify(self, stopped: Callable[[], bool]) -> None:
        """Check every block that was not read yet."""
        for first in range(0, len(self._sound), BLOCKS_AT_ONCE):
            if stopped():
                return
            if not self._sound[first : first + BLOCKS_AT_ONCE].all():
                self._check(first, min(first + BLOCKS_AT_ONCE, len(self._sound)))
        self.whole = True

    def _ensure(self, rows: Rows) -> None:
        if self.damage is not None:
            raise SegmentDamaged(self.damage)
        if self.whole:
            return
        blocks = np.unique(rows // BLOCK_ROWS)
        for block in blocks[~self._sound[blocks]].tolist():
            self._check(block, block + 1)

    def _check(self, first: int, end: int) -> None:
        """Compare the blocks from `first` to before `end` with their hashes."""
        # Read, not mapped: a fault brings in one page, a read all of it.
        size = BLOCK_ROWS * self.d * 2
        data = os.pread(self._file, (end - first) * size, first * size)
        for block in range(first, end):
            part = data[(block - first) * size : (block - first + 1) * size]
            if hashlib.sha256(part).digest() != self._hashes[block].tobytes():
                self.damage = f"{VECTORS}: block {block} differs from its hash"
                raise SegmentDamaged(self.damage)
            self._sound[block] = True
