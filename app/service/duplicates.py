"""The search for duplicates in a collection: a task that compares its pictures, and the groups that it found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from app.core.errors import SightlineError, map_os_errors
from app.core.types import Image, Job, Status
from app.decode.perceptual_hash import HASH_BYTES, PLAIN
from app.decode.picture import hash_picture
from app.decode.pool import DecodePool
from app.search.duplicates import (
    DEFAULT_THRESHOLDS,
    MAX_THRESHOLDS,
    NEIGHBOURS,
    DuplicateKind,
    Group,
    Hashes,
    Rows,
    find_candidates,
    group_pairs,
    join_hashes,
    judge_pairs,
    unpack_hashes,
)
from app.search.index_manager import IndexManager
from app.service.search_service import SearchService
from app.service.tasks import TaskContext
from app.storage.blobs import LocalFile
from app.storage.filters.sql import change_position
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import collections, duplicates, embeddings, images, tasks
from app.storage.tables.collections import Collection
from app.storage.tables.duplicates import PairRow

Vector = npt.NDArray[np.float32]

KIND = "duplicates"  # of the job
BLOCK = 64  # pictures that are compared between two looks at whether to stop: 0.3 s among 100,000
READ = 10_000  # hashes that one transaction reads
HASHED_AT_ONCE = 32
YIELD_SECONDS, MAX_YIELDS = 0.01, 50  # while somebody searches


@dataclass(frozen=True, slots=True)
class ScanState:
    """How far a collection is searched for duplicates: when a search last ended, and how many pictures it has compared
    and not compared. `job_id` is the job that searches it now."""

    finished_at: str | None
    compared: int
    waiting: int
    job_id: str | None


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Pictures that are alike, with their distances to the first, which is the best.

    `size` counts those that are left out, too.
    """

    images: Sequence[tuple[Image, float]]
    size: int


@dataclass(frozen=True, slots=True)
class DuplicatePage:
    """Some groups, newest first. `total` is how many groups there are, `extra` how many pictures beside the best."""

    groups: Sequence[DuplicateGroup]
    total: int
    extra: int
    next: int | None
    scan: ScanState


@dataclass(frozen=True, slots=True, eq=False)
class _Corpus:
    """The pictures of a collection in the order of the log."""

    keys: Rows
    seqs: Rows
    hashes: Hashes
    rows: Mapping[int, int]  # by key


class DuplicateService:
    """Finds duplicates in the collections of one data directory."""

    def __init__(self, library: Library, jobs: JobService, pool: DecodePool, search: SearchService) -> None:
        self._database = library.database
        self._blobs = library.blobs
        self._jobs = jobs
        self._pool = pool
        self._search = search
        self._grouped: tuple[Any, Any, list[Group]] | None = None  # what was asked for last, when, and the answer

    def start(self, collection: str) -> Job:
        """Queue a search of the collection. Raises NotFound, and Validation while one has not ended."""
        return self._jobs.add_task(collection, KIND, {})

    def list_groups(
        self, collection: str, kind: DuplicateKind, threshold: float, limit: int, before: int | None, most: int
    ) -> DuplicatePage:
        """Up to `limit` groups whose best picture has a key below `before`; up to `most` pictures of each.

        Raises NotFound.
        """

        def work(c: Connection) -> DuplicatePage:
            asked = collections.require(c, collection)
            state = read_state(c, asked)
            groups = self._read_groups(c, asked.label, kind, threshold) if state.compared else []
            found = [group for group in groups if before is None or group.best < before]
            page = found[:limit]
            keys = [key for one in page for key in (one.best, *(other for other, _ in one.others[: most - 1]))]
            rows = images.get_by_keys(c, keys)
            return DuplicatePage(
                [make_group(one, rows, most) for one in page],
                len(groups),
                sum(len(one.others) for one in groups),
                page[-1].best if len(found) > limit else None,
                state,
            )

        return self._database.read(work)

    def _read_groups(self, c: Connection, label: str, kind: DuplicateKind, threshold: float) -> list[Group]:
        """`read_groups`, or what it returned for the last page if nothing has changed since."""
        asked = (label, kind, threshold)
        mark = (change_position(c, "images"), duplicates.count_pairs(c, label), duplicates.get_scan(c, label))
        known = self._grouped
        if known is None or known[:2] != (asked, mark):
            known = self._grouped = (asked, mark, read_groups(c, label, kind, threshold))
        return known[2]

    def scan(self, context: TaskContext) -> dict[str, Any]:
        """Compare the pictures that no search has compared yet with all others; the handler of the task.

        It goes on where one before was stopped.
        """
        model = self._search.model
        label = self._database.read(lambda c: collections.require(c, context.collection)).label
        self._hash_old_pictures(context, label)
        space = model.encoder.space.fingerprint
        begun = context.write(lambda c: duplicates.begin_scan(c, label, space))
        corpus = self._read_corpus(label)
        start = int(np.searchsorted(corpus.seqs, begun.seq, side="right"))
        found = 0
        for first in range(start, len(corpus.keys), BLOCK):
            context.check()
            self._yield_to_searches()
            last = min(first + BLOCK, len(corpus.keys))
            pairs = self._compare(model.indexes, context.collection, corpus, first, last)
            seq = int(corpus.seqs[last - 1])
            record = partial(duplicates.record_pairs, label=label, space=space, seq=seq, pairs=pairs)
            if not context.write(record):
                break  # the collection was deleted, or embedded again
            found += len(pairs)
            context.report(last - start, len(corpus.keys) - start)
        context.write(lambda c: duplicates.finish_scan(c, label, space))
        groups = {
            kind: len(self._database.read(partial(read_groups, label=label, kind=kind, threshold=threshold)))
            for kind, threshold in DEFAULT_THRESHOLDS.items()
        }
        return {"pictures": len(corpus.keys), "compared": len(corpus.keys) - start, "pairs": found, "groups": groups}

    def _yield_to_searches(self) -> None:
        for _ in range(MAX_YIELDS):
            if self._search.model.searcher.running == 0:
                return
            time.sleep(YIELD_SECONDS)

    def _hash_old_pictures(self, context: TaskContext, label: str) -> None:
        """Give a hash to each picture that an older version embedded, by its thumbnail."""
        total = self._database.read(lambda c: duplicates.count_unhashed(c, label))
        done = 0
        while rows := self._database.read(lambda c: duplicates.list_unhashed(c, label, HASHED_AT_ONCE)):
            context.check()
            hashing = [(image, self._begin_hash(image)) for image in rows]
            hashes = [(image, read_hash(future)) for image, future in hashing]

            def save(c: Connection, hashes: list[tuple[Image, bytes]] = hashes) -> None:
                for image, hashed in hashes:
                    duplicates.save_hash(c, image, hashed)

            context.write(save)
            done += len(rows)
            context.report(done, max(total, done))

    def _begin_hash(self, image: Image) -> Future[str]:
        thumbnail = self._blobs.thumbnail_path(image.sha256, image.format)
        try:
            with map_os_errors():
                file = LocalFile(thumbnail) if thumbnail.exists() else self._blobs.fetch(image.sha256)
        except SightlineError as error:
            failed: Future[str] = Future()
            failed.set_exception(error)
            return failed
        hashing = self._pool.submit(hash_picture, file.path, self._pool.picture_limits)
        hashing.add_done_callback(lambda _: file.close())
        return hashing

    def _read_corpus(self, label: str) -> _Corpus:
        parts = list(self._read_hashes(label))
        keys, seqs = (np.array([row[n] for part, _ in parts for row in part], np.int64) for n in (0, 1))
        hashes = join_hashes([hashes for _, hashes in parts])
        return _Corpus(keys, seqs, hashes, {key: row for row, key in enumerate(keys.tolist())})

    def _read_hashes(self, label: str) -> Iterator[tuple[list[tuple[int, int]], Hashes]]:
        """Keys and log numbers of the pictures, and their hashes, some at a time."""
        after = 0
        while rows := self._database.read(partial(duplicates.list_hashes, label=label, after=after, limit=READ)):
            yield [(key, seq) for key, seq, _ in rows], unpack_hashes([hashed for _, _, hashed in rows])
            after = rows[-1][1]

    def _compare(self, indexes: IndexManager, collection: str, corpus: _Corpus, first: int, last: int) -> list[PairRow]:
        """The pairs that the pictures of a block have with others."""
        vectors = self._read_vectors(corpus.keys[first:last].tolist())
        own = [row for row in range(first, last) if int(corpus.keys[row]) in vectors]
        if not own:
            return []
        queries = np.stack([vectors[int(corpus.keys[row])] for row in own])
        with indexes.use(collection, "images") as index:
            scores, found = index.search(queries, NEIGHBOURS + 1)
        neighbours = np.array([[corpus.rows.get(key, -1) for key in keys] for keys in found.tolist()], np.int64)
        rows = np.array(own, np.int64)
        candidates = find_candidates(corpus.hashes, first, last, rows, scores, neighbours)
        return self._judge(corpus, *candidates, vectors)

    def _judge(self, corpus: _Corpus, rows: Rows, others: Rows, vectors: dict[int, Vector]) -> list[PairRow]:
        bits, near = judge_pairs(corpus.hashes, rows, others)
        kept = np.flatnonzero((bits >= 0) | near)
        keys = set(corpus.keys[np.concatenate((rows[kept], others[kept]))].tolist())
        vectors |= self._read_vectors([key for key in keys if key not in vectors])
        pairs: list[PairRow] = []
        for n in kept.tolist():
            (a, seq_a), (b, seq_b) = sorted(
                (int(corpus.keys[row]), int(corpus.seqs[row])) for row in (rows[n], others[n])
            )
            distance = None
            if near[n] and a in vectors and b in vectors:
                distance = max(0.0, 1.0 - float(vectors[a] @ vectors[b]))
            if distance is not None and distance > MAX_THRESHOLDS["near"]:
                distance = None
            if bits[n] >= 0 or distance is not None:
                pairs.append((a, b, seq_a, seq_b, int(bits[n]) if bits[n] >= 0 else None, distance))
        return pairs

    def _read_vectors(self, keys: Sequence[int]) -> dict[int, Vector]:
        stored = self._database.read(lambda c: embeddings.get_vectors(c, "images", keys))
        return {key: np.frombuffer(vector, "<f4") for key, vector in stored.items()}


def read_state(c: Connection, collection: Collection) -> ScanState:
    """Of a search among other vectors than the collection has now, nothing is left."""
    scan = duplicates.get_scan(c, collection.label)
    job_id = tasks.find_unfinished(c, collection.name, KIND)
    ready = images.count_by_status(c, collection.name)[Status.READY.value]
    if scan is None or collection.space not in (scan.space, None):
        return ScanState(None, 0, ready, job_id)
    waiting = duplicates.count_after(c, collection.label, scan.seq)
    return ScanState(scan.finished_at, ready - waiting, waiting, job_id)


def read_groups(c: Connection, label: str, kind: DuplicateKind, threshold: float) -> list[Group]:
    """The groups of a collection, those with the newest best picture first."""
    pairs = duplicates.list_pairs(c, label, kind, threshold)
    keys = {key for a, b, _ in pairs for key in (a, b)}
    groups = group_pairs(pairs, duplicates.sort_by_quality(c, keys))
    return sorted(groups, key=lambda group: group.best, reverse=True)


def make_group(group: Group, rows: Mapping[int, Image], most: int) -> DuplicateGroup:
    shown = [(group.best, 0.0), *group.others][:most]
    return DuplicateGroup([(rows[key], distance) for key, distance in shown], 1 + len(group.others))


def read_hash(hashing: Future[str]) -> bytes:
    """The hash, or that of a plain picture where the file cannot be read: no search shall try it again and again.

    A child that was taken over may say anything. Raises SightlineError where the machine is at fault.
    """
    try:
        hashed = bytes.fromhex(str(hashing.result()))
    except ValueError:
        return PLAIN
    except SightlineError as error:
        if error.retryable:
            raise
        return PLAIN
    return hashed if len(hashed) == HASH_BYTES else PLAIN
