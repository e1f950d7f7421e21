"""SealedSegment: most vectors of a large index, written once (see `segment_builder`), then only read.

    vectors.half    float16 [n, d], raw: row after row, in the order of the log
    blocks.npy      uint8 [blocks, 32], the SHA-256 of every BLOCK_ROWS rows of it
    ids.npy         int64 [n]: whose vector a row is         order.npy   int32 [n]: the rows by rising id
    codes.faiss     lists by nearest centroid of product codes, in FAISS's own format; of format 1 of RaBitQ codes
    gap.npy         float32 [2, d]: the means of the vectors and of texts, see `Gap`; not of format 1
    base.json       how to search it: nlist, and for each effort nprobe and refine_k, as lists, probes and rerank

A search takes candidates from the codes of the nearest lists and compares these with the whole vectors, which stay in a
mapped file, as ids and order do: many processes that read it hold it in memory once. FAISS gets only bytes whose hash
was checked. Opening checks the size of the vectors alone, so that it takes no longer the more there are; the first read
of a block checks the block, or `verify` does. A program that shortens the file while it is open is not guarded against:
the process dies.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from index.errors import SegmentDamaged
from index.float16 import ROWS_AT_ONCE, Float16Vectors, to_float32
from index.idset import Bitmap, IdSet
from index.npy_io import map_array, read_array
from index.product_codes import Candidates, Gap, ProductCodes
from index.protocol import Effort
from index.rabitq import RaBitQCodes
from index.topk import make_padding, select_top_k
from index.types import Embeddings, Ids, Scores, SnapshotManifest
from index.validation import check_ids

SEGMENT_FORMAT = 2
"""Version of the files of a segment. Format 1 is still searched; any other is refused, and a new segment is built from
the log."""
BLOCK_ROWS = 64
VECTORS, BLOCKS, IDS, ORDER, CODES, GAP, PARAMS = (
    "vectors.half",
    "blocks.npy",
    "ids.npy",
    "order.npy",
    "codes.faiss",
    "gap.npy",
    "base.json",
)
EFFORTS: tuple[Effort, ...] = ("normal", "fast")
MAX_ROWS = 2**31 - 1
BRUTE_FORCE_ROWS = 20_000
"""Up to so many allowed rows a search compares them all: quicker than probing for some of many."""
BLOCKS_AT_ONCE = 64
"""Blocks that `verify` reads at once: 4 MiB at d = 512."""
SCAN_SPEEDUP = 8
"""Rows that are read one after the other in the time of one candidate."""
MAX_SCORES = 16 << 20
"""Bound on the scores held at once, 64 MiB."""
MIN_REFINE_FACTOR = 2
"""At least so many candidates are compared again for each wanted hit."""

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Depth:
    """How far a search looks: into `nprobe` lists, then it compares `refine_k` candidates.

    `recall` is the share of the 10 nearest that this found when the segment was built (see `calibrate`).
    """

    nprobe: int
    refine_k: int
    recall: float


@dataclass(frozen=True, slots=True)
class SegmentParams:
    """How to search a segment of `nlist` lists, by effort. `share` is that of its `Gap`."""

    nlist: int
    normal: Depth
    fast: Depth
    share: float = 0.0
    format: int = SEGMENT_FORMAT

    def get_depth(self, effort: Effort) -> Depth:
        return self.fast if effort == "fast" else self.normal

    def to_json(self) -> bytes:
        """UTF-8 JSON with the format's version and the format's names."""
        depths: dict[str, Any] = {effort: _write_depth(self.get_depth(effort)) for effort in EFFORTS}
        fields = {"format": self.format, "lists": self.nlist, "share": self.share, **depths}
        return json.dumps(fields, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> SegmentParams:
        """The parameters in `text`. Raises ValueError, KeyError or TypeError unless they can be searched by."""
        fields: dict[str, Any] = json.loads(text)
        if not isinstance(fields, dict) or fields.get("format") not in (1, SEGMENT_FORMAT):
            raise ValueError(f"not of format {SEGMENT_FORMAT}")
        is_old = fields["format"] == 1  # it had one effort
        normal, fast = (_read_depth(fields if is_old else fields[effort]) for effort in EFFORTS)
        params = cls(fields["lists"], normal, fast, fields.get("share", 0.0), fields["format"])
        if min(params.nlist, normal.nprobe, normal.refine_k, fast.nprobe, fast.refine_k) < 1:
            raise ValueError(f"{params}")
        return params


def _write_depth(depth: Depth) -> dict[str, float]:
    return {"probes": depth.nprobe, "rerank": depth.refine_k, "recall": depth.recall}


def _read_depth(fields: Mapping[str, Any]) -> Depth:
    return Depth(fields["probes"], fields["rerank"], fields["recall"])


class Codes(Protocol):
    """What finds the candidates of a segment."""

    n: int
    d: int
    nlist: int

    def find_candidates(
        self, queries: Embeddings, depth: int, nprobe: int, allowed: Bitmap | None = None
    ) -> Candidates: ...


@dataclass(frozen=True, slots=True)
class AllowedRows:
    """Which rows a search may find: one bit a row, lowest first, and how many are set."""

    bits: Bitmap
    count: int

    def rows(self) -> Rows:
        """The row numbers, rising."""
        return np.flatnonzero(np.unpackbits(self.bits, bitorder="little"))


class SealedSegment:
    """An open segment. Any thread may call any method."""

    kind = "base"
    lazily_checked: ClassVar[frozenset[str]] = frozenset({VECTORS})

    def __init__(
        self,
        manifest: SnapshotManifest,
        params: SegmentParams,
        ids: Ids,
        order: npt.NDArray[np.int32],
        codes: Codes,
        vectors: _Vectors,
    ) -> None:
        self.manifest = manifest
        self.params = params
        self.n = len(ids)
        self.d = vectors.d
        self._ids = ids
        self._order = order
        self._codes = codes
        self._vectors = vectors
        self._largest = int(ids[order[-1]])
        self._last_mapped: tuple[IdSet, Bitmap] | None = None
        self.brute_force_rows = BRUTE_FORCE_ROWS  # 0: the codes always give the candidates

    @classmethod
    def restore(cls, manifest: SnapshotManifest, files: Mapping[str, BinaryIO]) -> Self:
        """The segment in `files`, checked but for the vectors. Raises ValueError where they do not fit `manifest`."""
        n, d = manifest.ntotal, manifest.d
        params = SegmentParams.from_json(files[PARAMS].read())
        if set(files) != {VECTORS, BLOCKS, IDS, ORDER, CODES, PARAMS, *([GAP] * (params.format > 1))}:
            raise ValueError(f"files {sorted(files)}")
        ids: Ids = map_array(files[IDS], np.int64, (n,))
        order = map_array(files[ORDER], np.int32, (n,))
        check_ids(ids)
        rising = ids[order]
        if not n or (np.diff(rising) <= 0).any():
            raise ValueError("no ids, or an id twice")
        hashes = read_array(files[BLOCKS], np.uint8, (-(-n // BLOCK_ROWS), 32))
        if params.format == 1:
            codes: Codes = RaBitQCodes.from_bytes(files[CODES].read())
        else:
            stored, asked = read_array(files[GAP], np.float32, (2, d))
            codes = ProductCodes.from_bytes(files[CODES].read(), Gap(stored, asked, params.share))
        if (codes.d, codes.n, codes.nlist) != (d, n, params.nlist):
            raise ValueError(f"{codes.n} codes of width {codes.d}, expected {n} of {d}")
        return cls(manifest, params, ids, order, codes, _Vectors(files[VECTORS], n, d, hashes))

    @property
    def nbytes(self) -> int:
        """Bytes of memory, without the mapped vectors and ids."""
        codes = next(file.size for file in self.manifest.files if file.name == CODES)
        return codes + self._vectors.nbytes

    @property
    def damage(self) -> str | None:
        """What a check found broken; from then on every search raises SegmentDamaged."""
        return self._vectors.damage

    @property
    def verified(self) -> bool:
        """Whether every vector was checked."""
        return self._vectors.verified

    def verify(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Read and check every vector, unless `stopped()`. Raises SegmentDamaged."""
        self._vectors.verify(stopped)

    def find_rows(self, ids: Ids) -> Rows:
        """The rows of those of `ids` that are inside, in any order."""
        places = np.searchsorted(self._ids, ids, sorter=self._order)
        rows = self._order[np.minimum(places, self.n - 1)].astype(np.intp)
        known: Rows = rows[self._ids[rows] == ids]
        return known

    def find_known(self, ids: Ids) -> Ids:
        """Those of `ids` that are inside."""
        return self._ids[self.find_rows(ids)]

    def map_to_rows(self, wanted: IdSet) -> Bitmap:
        """A bit for each row: whether its id is in `wanted`. The last answer is kept for the next call."""
        last = self._last_mapped
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
        self._last_mapped = wanted, packed
        return packed

    def search(
        self, queries: Embeddings, k: int, nprobe: int, refine_k: int, allowed: AllowedRows | None = None
    ) -> tuple[Scores, Ids]:
        """The `k` best for each of `queries` [n, d] of the rows in `allowed`, padded, as far as `nprobe` lists show.

        There are k of them wherever `allowed` holds k. Raises SegmentDamaged.
        """
        count = self.n if allowed is None else allowed.count
        refine_k = max(refine_k, MIN_REFINE_FACTOR * k)
        if not count or (self.brute_force_rows and count <= max(self.brute_force_rows, SCAN_SPEEDUP * refine_k)):
            return self.search_exact(queries, k, allowed)
        scores, ids = make_padding(len(queries), k)
        # The fewer rows are allowed, the farther from the query lie the best of them.
        nprobe = min(self.params.nlist, int(nprobe * (self.n / count) ** 0.5))
        bits = None if allowed is None else allowed.bits
        candidates = self._codes.find_candidates(queries, min(refine_k, count), nprobe, bits)
        # FAISS leaves out rows whose codes score least; who looks into all lists wants them, too.
        least = min(refine_k if nprobe == self.params.nlist else k, count)
        for i, query in enumerate(queries):
            rows = candidates[i]
            rows = rows[rows >= 0]
            if len(rows) < least:  # too few in these lists
                scores[i : i + 1], ids[i : i + 1] = self.search_exact(queries[i : i + 1], k, allowed)
                continue
            found = select_top_k(self._vectors.compare(rows, query[None])[0], self._ids[rows], k)
            scores[i, : len(found[0])], ids[i, : len(found[1])] = found
        return scores, ids

    def search_exact(self, queries: Embeddings, k: int, allowed: AllowedRows | None = None) -> tuple[Scores, Ids]:
        """The `k` best for each of `queries` [n, d] of the rows in `allowed`: all of them are compared."""
        scores, ids = make_padding(len(queries), k)
        rows = None if allowed is None or allowed.count == self.n else allowed.rows()
        count = self.n if rows is None else len(rows)
        found = min(k, count)
        if not found:
            return scores, ids
        ids_of_rows = self._ids if rows is None else self._ids[rows]
        batch = max(1, MAX_SCORES // count)
        for start in range(0, len(queries), batch):
            compared = self._vectors.compare(rows, queries[start : start + batch])
            for i, row in enumerate(compared, start):
                scores[i, :found], ids[i, :found] = select_top_k(row, ids_of_rows, found)
        return scores, ids


class _Vectors:
    """The mapped file of the vectors. It uses no block before it has compared its hash."""

    def __init__(self, file: BinaryIO, n: int, d: int, hashes: npt.NDArray[np.uint8]) -> None:
        self.d = d
        self.damage: str | None = None
        size = os.fstat(file.fileno()).st_size
        if size != n * d * 2:
            raise ValueError(f"{VECTORS} has {size} bytes, expected {n * d * 2}")
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        mapped.madvise(mmap.MADV_RANDOM)  # reading ahead would bring in what no search needs
        self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._all: Float16Vectors = np.frombuffer(mapped, np.float16).reshape(n, d)
        self._hashes = hashes
        self._checked = np.zeros(len(hashes), np.bool_)
        self.verified = False

    @property
    def nbytes(self) -> int:
        """Bytes of memory: the hashes and which blocks were checked, not what is mapped."""
        return self._hashes.nbytes + self._checked.nbytes

    def take(self, rows: Rows) -> Float16Vectors:
        """Copies of `rows` in half precision, checked."""
        self._ensure(rows)
        return self._all[rows]

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
        """Check every block that was not checked yet, unless `stopped()`."""
        for first in range(0, len(self._checked), BLOCKS_AT_ONCE):
            if stopped():
                return
            if not self._checked[first : first + BLOCKS_AT_ONCE].all():
                self._check(first, min(first + BLOCKS_AT_ONCE, len(self._checked)))
        self.verified = True

    def _ensure(self, rows: Rows) -> None:
        if self.damage is not None:
            raise SegmentDamaged(self.damage)
        if self.verified:
            return
        blocks = np.unique(rows // BLOCK_ROWS)
        for block in blocks[~self._checked[blocks]].tolist():
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
            self._checked[block] = True
