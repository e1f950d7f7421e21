"""MilvusIndex: the vectors of an index in Milvus, a server beyond this process.

We never trust the server. `ntotal` is our own count, updated with each write and compared with the server's. No search
asks contents that are known to be incomplete, or that we have not checked since the last connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from index.errors import IndexClosed, RemoteEmptied
from index.idset import IdSet
from index.milvus_client import MilvusClient
from index.milvus_collection import ID_BLOCK, MAX_HITS, Checkpoint, MilvusCollection, QueryHits, hash_vectors
from index.protocol import SearchParams
from index.topk import make_padding, select_top_k
from index.types import Embeddings, Ids, Scores
from index.validation import check_batch, check_ids, check_search, keep_last

MAX_NAMED_IDS = 2_000
"""A search of at most so many ids names them in the call."""
WRITE_BYTES = 16 << 20
EXTRA_HITS = 8
"""Asked for beyond k, so that equal scores at the end can be sorted by id."""


class MilvusIndex:
    """Inner-product search in the collection `name`, which `open` makes; only its follower may change it.

    A call that Milvus does not answer raises RemoteUnavailable: an answer is right or there is none. `is_complete` is
    False while Milvus is known to lack rows; searches then raise RemoteEmptied until the reconciler has put them back.
    `orphans` counts the rows that the reconciler removed since we never put them there.
    """

    kind = "milvus"
    nbytes = 0

    def __init__(self, client: MilvusClient, name: str, d: int, about: str = "") -> None:
        self.collection = MilvusCollection(client, name, d, about)
        self.client = client
        self.d = d
        self._ntotal = 0
        self._checkpoint = Checkpoint(0, 0)
        self._unsure = False  # whether `ntotal` may be wrong because the outcome of a write is unknown
        self._closed = False
        self._epoch = -1  # of the connection over which the contents were last checked
        self.is_complete = True
        self.orphans = 0

    @property
    def ntotal(self) -> int:
        """How many ids are inside by our own count, which `open`, `check_contents` and `recount` compare; no call."""
        self._check_open()
        return self._ntotal

    @property
    def fault(self) -> str | None:
        """Why searches cannot be answered now; None when they can, as far as is known."""
        if self.client.is_away:
            return f"{self.client.name} does not answer"
        if not self.is_complete:
            return f"{self.client.name} lacks vectors, which are being put back"
        if self.client.epoch != self._epoch:
            return f"{self.client.name} was away; what it has is being counted"
        return None

    def open(self) -> Checkpoint:
        """Make the collection unless it exists; its checkpoint."""
        self._check_open()
        epoch = self.collection.open()
        checkpoint = self.collection.read_checkpoint()
        if checkpoint is None:
            self._ntotal = 0
            self.write_checkpoint(0)
            checkpoint = Checkpoint(0, 0)
        self._checkpoint = checkpoint
        self.recount()
        self._epoch = epoch
        return checkpoint

    def watch(self) -> int:
        """Take over what another process has put there; the last log entry that it holds.

        Raises RemoteEmptied where the collection is gone.
        """
        epoch = self.client.epoch
        checkpoint = self.collection.read_checkpoint()
        if checkpoint is None:
            raise RemoteEmptied(f"{self.client.name} has nothing of this index yet")
        self._checkpoint = checkpoint
        self.recount()
        self._epoch, self.is_complete = epoch, True
        return checkpoint.seq

    def check_contents(self) -> bool:
        """Whether Milvus has as many rows, and as much of the log, as we put there. Only the follower calls it.

        Searches over a new connection are answered from then on.
        """
        epoch, known = self.client.epoch, self._checkpoint.seq
        try:
            checkpoint = self.collection.read_checkpoint()
            if checkpoint is None or checkpoint.seq < known:
                return False
            before, sure = self._ntotal, not self._unsure
            if self.recount() != before and sure:
                return False
        except RemoteEmptied:
            return False
        self._epoch = epoch
        return True

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        """See `VectorIndex.add`. The next search sees them.

        Vectors that Milvus has already are not sent again. Up to 8,192 vectors, or 16 MiB, become visible together.
        """
        self._check_open()
        check_batch(ids, vectors, self.d)
        last = keep_last(ids)
        block = min(ID_BLOCK, max(1, WRITE_BYTES // (4 * self.d)))
        for start in range(0, len(last), block):
            part = last[start : start + block]
            has = self._read_digests(ids[part])
            digests = hash_vectors(vectors[part])
            columns = zip(ids[part].tolist(), digests.tolist(), vectors[part], strict=True)
            rows = [row for row in columns if has.get(row[0]) != row[1]]
            if rows:
                with self._writing(sum(id not in has for id, _, _ in rows)):
                    self.collection.upsert(rows)

    def remove(self, ids: Ids) -> None:
        self._check_open()
        check_ids(ids)
        for start in range(0, len(ids), ID_BLOCK):
            has = self._read_digests(ids[start : start + ID_BLOCK])
            if has:
                with self._writing(-len(has)):
                    self.collection.delete(sorted(has))

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        """The `k` best for each of `queries` [n, d], at most LIMIT; see VectorIndex.

        With `exact` Milvus compares every vector. Without, IVF_FLAT looks into `nprobe` lists of each segment, and into
        all of them where that leaves the answer short. Raises RemoteUnavailable.
        """
        self._check_open()
        check_search(queries, k, self.d)
        params = params or SearchParams()
        scores, ids = make_padding(len(queries), k)
        self._check_complete()
        allowed = params.allowed_ids
        room = self._ntotal if allowed is None else min(self._ntotal, len(allowed))
        if not (len(queries) and k and room):
            return scores, ids
        if allowed is None:
            found = self._search_all(queries, k, params)
        elif len(allowed) <= MAX_NAMED_IDS or (wide := self._search_wide(queries, k, params, allowed)) is None:
            found = self._search_named(queries, k, allowed.ids())
        else:
            found = wide
        self._check_complete()  # meanwhile rows may have turned out to be missing, or the client has reconnected
        for i, (row_scores, row_ids) in enumerate(found):
            scores[i, : len(row_ids)], ids[i, : len(row_ids)] = row_scores, row_ids
        return scores, ids

    def close(self) -> None:
        """Use the index no more; the client stays open, and the rows stay in Milvus."""
        self._closed = True

    def drop(self) -> None:
        """Remove the collection from Milvus."""
        self.collection.drop()

    def write_checkpoint(self, seq: int) -> None:
        """Write into Milvus that the log is applied up to `seq`."""
        checkpoint = Checkpoint(seq, self._ntotal)
        self.collection.write_checkpoint(checkpoint)
        self._checkpoint = checkpoint

    def forget_applied(self) -> None:
        self.write_checkpoint(0)

    def recount(self) -> int:
        """Ask Milvus for `ntotal`."""
        self._ntotal = self.collection.count()
        self._unsure = False
        return self._ntotal

    def remove_orphans(self, ids: Ids) -> None:
        """Remove rows, of any `ids` [n], that we never put there."""
        for start in range(0, len(ids), ID_BLOCK):
            block = ids[start : start + ID_BLOCK].tolist()
            with self._writing(-len(block)):
                self.collection.delete(block)
        self.orphans += len(ids)

    def _search_all(self, queries: Embeddings, k: int, params: SearchParams) -> QueryHits:
        """Search all: ask for a few more than k, so that equal scores at the end can be sorted by id."""
        asked, exact = k, params.exact
        while True:
            asked = min(MAX_HITS, asked + EXTRA_HITS)
            found = self.collection.search(queries, asked, params.nprobe, exact=exact)
            short = any(len(ids) < min(k, self._ntotal) for _, ids in found)
            if short and not exact and asked < MAX_HITS:
                exact = True  # the lists that were searched hold too few
            elif asked < MAX_HITS and any(_is_tied(scores, asked, k) for scores, _ in found):
                asked *= 4
            else:
                return [(scores[:k], ids[:k]) for scores, ids in found]

    def _search_wide(self, queries: Embeddings, k: int, params: SearchParams, allowed: IdSet) -> QueryHits | None:
        """Search many allowed ids: ask for more than k and drop the others; None where that does not give k hits."""
        asked = 2 * int(np.ceil(k * max(1, self._ntotal) / len(allowed))) + EXTRA_HITS
        while asked <= MAX_HITS:
            found = self.collection.search(queries, asked, params.nprobe, exact=params.exact)
            kept = [(scores[inside], ids[inside]) for scores, ids in found for inside in [allowed.contains(ids)]]
            if all(len(ids) >= k and not _is_tied(scores, len(ids), k) for scores, ids in kept):
                return [(scores[:k], ids[:k]) for scores, ids in kept]
            asked *= 4
        return None

    def _search_named(self, queries: Embeddings, k: int, ids: Ids) -> QueryHits:
        """Search these ids, a block at a time, and compare every one of them."""
        best: QueryHits = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        for start in range(0, len(ids), ID_BLOCK):
            more = self._search_block(queries, k, ids[start : start + ID_BLOCK])
            best = [
                select_top_k(np.concatenate([a, c]), np.concatenate([b, d]), k)
                for (a, b), (c, d) in zip(best, more, strict=True)
            ]
        return best

    def _search_block(self, queries: Embeddings, k: int, ids: Ids) -> QueryHits:
        asked = min(len(ids), k + EXTRA_HITS)
        while True:
            found = self.collection.search(queries, asked, None, exact=True, allowed_ids=ids)
            if asked == len(ids) or not any(_is_tied(scores, asked, k) for scores, _ in found):
                return found
            asked = min(len(ids), 4 * asked)

    def _read_digests(self, ids: Ids) -> dict[int, int]:
        """The digests of those that Milvus has. Makes a collection anew that is gone, and notes what it lacks."""
        try:
            if self._unsure:
                self.recount()
            return self.collection.read_digests(ids)
        except RemoteEmptied:
            self.is_complete = False
            self.open()
            return {}

    @contextmanager
    def _writing(self, more: int) -> Iterator[None]:
        """Wrap a change that adds so many rows."""
        self._unsure = True
        yield
        self._ntotal += more
        self._unsure = False

    def _check_open(self) -> None:
        if self._closed:
            raise IndexClosed("the index is closed")

    def _check_complete(self) -> None:
        if not (self.is_complete and self.client.epoch == self._epoch):
            raise RemoteEmptied(self.fault)


def _is_tied(scores: Scores, asked: int, k: int) -> bool:
    """Whether rows beyond those that came may have the score of the k-th."""
    return len(scores) == asked > 0 and len(scores) >= k and bool(scores[-1] == scores[k - 1])
