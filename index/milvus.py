"""MilvusIndex: the same index on Milvus, an engine of its own beyond this process.

The engine is never believed. `ntotal` is our own account, kept with each write and compared with the engine's;
what is known to be incomplete, or was not looked at since the last connection, is not searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from index.errors import IndexClosed, RemoteEmptied
from index.idset import IdSet
from index.milvus_client import MilvusClient
from index.milvus_collection import ID_BLOCK, MAX_HITS, Checkpoint, MilvusCollection, QueryHits, hash_vectors, sort_hits
from index.protocol import SearchParams
from index.types import Embeddings, Ids, Scores
from index.validation import check_ids, check_queries, check_vectors

MAX_NAMED_IDS = 2_000
"""Searches among so many ids name them to the engine."""
WRITE_BYTES = 16 << 20
EXTRA_HITS = 8
"""Asked for beyond k, so that equal scores at the end can be put in order."""


class MilvusIndex:
    """Inner-product search in the collection `name` of `engine`. Made by `open`; only its follower may change it.

    Whatever cannot be asked raises EngineUnavailable: an answer is right or there is none. `whole` is False
    while the engine is known to lack rows; searches then raise EngineEmptied until `reconcile` has put them back.
    `ghosts` counts the rows that were removed since we never put them there.
    """

    kind = "milvus"

    def __init__(self, engine: MilvusClient, name: str, d: int, about: str = "") -> None:
        self.table = MilvusCollection(engine, name, d, about)
        self._engine = engine
        self._d = d
        self._ntotal = 0
        self._kept = Checkpoint(0, 0)
        self._unsure = False  # whether `ntotal` is off because nobody knows what became of a write
        self._closed = False
        self._epoch = -1  # of the connection over which the contents were last looked at
        self.whole = True
        self.ghosts = 0

    @property
    def d(self) -> int:
        """The width of a vector."""
        return self._d

    @property
    def ntotal(self) -> int:
        """How many ids are inside by our own account, which `open`, `intact` and `recount` compare; asks nobody."""
        self._check_open()
        return self._ntotal

    @property
    def fault(self) -> str | None:
        """Why searches cannot be answered now; None when they can, as far as is known."""
        if self._engine.away:
            return f"{self._engine.name} does not answer"
        if not self.whole:
            return f"{self._engine.name} lacks vectors, which are being put back"
        if self.epoch != self._epoch:
            return f"{self._engine.name} was away; what it has is being counted"
        return None

    @property
    def alone(self) -> bool:
        """Whether nobody but this process can reach the engine."""
        return self._engine.address.lite

    @property
    def away(self) -> bool:
        """Whether the engine does not answer at present, as far as is known."""
        return self._engine.away

    @property
    def epoch(self) -> int:
        """Moves with each new connection to the engine."""
        return self._engine.epoch

    def open(self) -> Checkpoint:
        """Make the collection unless it is there; what it keeps."""
        self._check_open()
        epoch = self.table.open()
        kept = self.table.kept()
        if kept is None:
            self._ntotal = 0
            self.keep(0)
            kept = Checkpoint(0, 0)
        self._kept = kept
        self.recount()
        self._epoch = epoch
        return kept

    def intact(self) -> bool:
        """Whether the engine has as many rows, and as much of the log, as we gave it. Only the follower asks.

        Searches over a new connection are answered from then on.
        """
        epoch, known = self.epoch, self._kept.seq
        try:
            kept = self.table.kept()
            if kept is None or kept.seq < known:
                return False
            before, sure = self._ntotal, not self._unsure
            if self.recount() != before and sure:
                return False
        except RemoteEmptied:
            return False
        self._epoch = epoch
        return True

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        """Store `vectors` [n, d] under `ids` [n]; of one id twice the last counts. Visible to the next search.

        What is there already is not sent again. Up to 8,192 vectors, or 16 MiB, are seen at once or not at all.
        """
        self._check_open()
        check_ids(ids)
        check_vectors(vectors, self._d)
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")
        last = dict(zip(ids.tolist(), range(len(ids)), strict=True))
        pick = np.fromiter(last.values(), np.int64, len(last))
        block = min(ID_BLOCK, max(1, WRITE_BYTES // (4 * self._d)))
        for start in range(0, len(pick), block):
            part = pick[start : start + block]
            has = self._there(ids[part])
            digests = hash_vectors(vectors[part])
            columns = zip(ids[part].tolist(), digests.tolist(), vectors[part], strict=True)
            rows = [row for row in columns if has.get(row[0]) != row[1]]
            if rows:
                with self._writing(sum(id not in has for id, _, _ in rows)):
                    self.table.put(*zip(*rows, strict=True))

    def remove(self, ids: Ids) -> None:
        """Forget `ids` [n]; unknown ones are ignored."""
        self._check_open()
        check_ids(ids)
        for start in range(0, len(ids), ID_BLOCK):
            has = self._there(ids[start : start + ID_BLOCK])
            if has:
                with self._writing(-len(has)):
                    self.table.delete(sorted(has))

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        """The `k` best for each of `queries` [n, d], at most LIMIT; see VectorIndex.

        With `exact` every vector is compared. Without, IVF_FLAT looks into `probes` lists of each segment, and
        into all of them where that leaves the answer short. Raises EngineUnavailable.
        """
        self._check_open()
        check_queries(queries, self._d)
        if k < 0:
            raise ValueError(f"k is {k}, expected 0 or more")
        params = params or SearchParams()
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        self._check_whole()
        room = self._ntotal if params.among is None else min(self._ntotal, len(params.among))
        if not (len(queries) and k and room):
            return scores, ids
        among = params.among
        if among is None:
            found = self._best(queries, k, params)
        elif len(among) <= MAX_NAMED_IDS or (wide := self._wide(queries, k, params, among)) is None:
            found = self._named(queries, k, among.ids())
        else:
            found = wide
        self._check_whole()  # it may have been found out, or connected anew, meanwhile
        for i, (row_scores, row_ids) in enumerate(found):
            scores[i, : len(row_ids)], ids[i, : len(row_ids)] = row_scores, row_ids
        return scores, ids

    def close(self) -> None:
        """Use the index no more; the engine stays open, and its rows stay there."""
        self._closed = True

    def drop(self) -> None:
        """Remove the collection from the engine."""
        self.table.drop()

    def keep(self, seq: int) -> None:
        """Note in the engine that the log is applied up to `seq`."""
        kept = Checkpoint(seq, self._ntotal)
        self.table.keep(kept)
        self._kept = kept

    def recount(self) -> int:
        """`ntotal`, asked now."""
        self._ntotal = self.table.count()
        self._unsure = False
        return self._ntotal

    def expel(self, ids: Ids) -> None:
        """Remove rows of whatever `ids` [n], which we never put there."""
        for start in range(0, len(ids), ID_BLOCK):
            block = ids[start : start + ID_BLOCK].tolist()
            with self._writing(-len(block)):
                self.table.delete(block)
        self.ghosts += len(ids)

    def _best(self, queries: Embeddings, k: int, params: SearchParams) -> QueryHits:
        """Among all: asked for a few more than k, so that equal scores at the end can be put in order."""
        asked, exact = k, params.exact
        while True:
            asked = min(MAX_HITS, asked + EXTRA_HITS)
            found = self.table.ask(queries, asked, params.probes, exact=exact)
            short = any(len(ids) < min(k, self._ntotal) for _, ids in found)
            if short and not exact and asked < MAX_HITS:
                exact = True  # the lists that were looked into hold too few
            elif asked < MAX_HITS and any(_tied(scores, asked, k) for scores, _ in found):
                asked *= 4
            else:
                return [(scores[:k], ids[:k]) for scores, ids in found]

    def _wide(self, queries: Embeddings, k: int, params: SearchParams, among: IdSet) -> QueryHits | None:
        """Among many: ask for more than k and drop the others; None where that does not give k hits."""
        asked = 2 * int(np.ceil(k * max(1, self._ntotal) / len(among))) + EXTRA_HITS
        while asked <= MAX_HITS:
            found = self.table.ask(queries, asked, params.probes, exact=params.exact)
            kept = [(scores[inside], ids[inside]) for scores, ids in found for inside in [among.contains(ids)]]
            if all(len(ids) >= k and not _tied(scores, len(ids), k) for scores, ids in kept):
                return [(scores[:k], ids[:k]) for scores, ids in kept]
            asked *= 4
        return None

    def _named(self, queries: Embeddings, k: int, ids: Ids) -> QueryHits:
        """Among these ids, a block at a time; every one of them is compared."""
        best: QueryHits = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        for start in range(0, len(ids), ID_BLOCK):
            block = ids[start : start + ID_BLOCK]
            more = self._block(queries, k, block)
            joined = [
                (np.concatenate([a, c]), np.concatenate([b, d])) for (a, b), (c, d) in zip(best, more, strict=True)
            ]
            best = [sort_hits(scores, hits, k) for scores, hits in joined]
        return best

    def _block(self, queries: Embeddings, k: int, ids: Ids) -> QueryHits:
        asked = min(len(ids), k + EXTRA_HITS)
        while True:
            found = self.table.ask(queries, asked, None, exact=True, among=ids)
            if asked == len(ids) or not any(_tied(scores, asked, k) for scores, _ in found):
                return found
            asked = min(len(ids), 4 * asked)

    def _there(self, ids: Ids) -> dict[int, int]:
        """The digests of those that are there; a table that is gone is made anew, and known to lack what it had."""
        try:
            if self._unsure:
                self.recount()
            return self.table.digests(ids)
        except RemoteEmptied:
            self.whole = False
            self.open()
            return {}

    @contextmanager
    def _writing(self, more: int) -> Iterator[None]:
        """Around a change of the rows, which are then so many more."""
        self._unsure = True
        yield
        self._ntotal += more
        self._unsure = False

    def _check_open(self) -> None:
        if self._closed:
            raise IndexClosed("the index is closed")

    def _check_whole(self) -> None:
        if not (self.whole and self.epoch == self._epoch):
            raise RemoteEmptied(self.fault)


def _tied(scores: Scores, asked: int, k: int) -> bool:
    """Whether rows beyond those asked for may have the score of the k-th."""
    return len(scores) == asked > 0 and len(scores) >= k and bool(scores[-1] == scores[k - 1])
