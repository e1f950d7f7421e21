"""MilvusIndex: the same index on Milvus, an engine of its own beyond this process.

A row is (id, digest, vector); the digest is 64 bits of the vector's BLAKE2b and says whether the engine has the
vector that we gave it. Two rows more, with ids -1 and -2, keep how far the log was applied: they are restored,
copied and lost together with the rows that they speak of, and dropped from every answer.

Searches are of consistency `Session`: they see every write of this process, the only one that writes. Milvus
lets such a search wait until its nodes have got to our last write; without one there is nothing to wait for. What is
asked to compare or to count is `Strong`: it waits for the newest of all, a time tick of Milvus's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.engine import Engine
from index.errors import EngineEmptied, IndexClosed
from index.idset import IdSet
from index.protocol import SearchParams
from index.types import Embeddings, Ids, Scores
from index.vectors import check_ids, check_queries, check_vectors

READ_SECONDS, WRITE_SECONDS, COUNT_SECONDS = 3.0, 10.0, 30.0
LIMIT = 16_384
"""The most hits of one search (Milvus's quotaAndLimits.limits.topK)."""
LISTS, PROBES = 1024, 64
"""Lists of a segment's IVF_FLAT, and how many are looked into when the caller does not say."""
FEW_IDS, ID_BLOCK = 2_000, 8_192
"""Searches among so many ids name them to the engine; and ids named at once."""
WRITE_BYTES = 16 << 20
HITS_AT_ONCE = 1 << 18
STATE = (-1, -2)
"""The ids of the rows whose digests are `Kept.seq` and `Kept.ntotal`."""

RawHits = list[tuple[Scores, Ids]]


@dataclass(frozen=True, slots=True)
class Kept:
    """What the engine itself says of its contents: the log is in it up to `seq`, and it then had `ntotal` rows."""

    seq: int
    ntotal: int


def collection_of(name: str, space: str) -> str:
    """The engine's collection for the index `name` in `space`: the same for ever, and valid in Milvus."""
    return "sightline_" + hashlib.sha256(f"{name}\0{space}".encode()).hexdigest()[:24]


def digests_of(vectors: Embeddings) -> Ids:
    """64 bits for each vector: [n]."""
    words = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in vectors)
    return np.frombuffer(words, dtype="<i8").astype(np.int64)


class MilvusIndex:
    """Inner-product search in the collection `name` of `engine`. Made by `open`; only its follower may change it.

    `about` is the collection's description there, for people who look into the engine.

    Whatever cannot be asked raises EngineUnavailable: an answer is right or there is none. `whole` is False
    while the engine is known to lack rows; searches then raise EngineEmptied until `reconcile` has put them back.
    `ghosts` counts the rows that were removed since we never put them there.
    """

    kind = "milvus"

    def __init__(self, engine: Engine, name: str, d: int, about: str = "") -> None:
        self._engine = engine
        self.name = name
        self._about = about
        self._d = d
        self._ntotal = 0
        self._kept = Kept(0, 0)
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

    def open(self) -> Kept:
        """Make the collection unless it is there; what it keeps."""
        self._check_open()
        there = self._call("has_collection")  # the first call: it connects
        epoch = self.epoch
        if not there:
            self._make()
        if not self._call("list_indexes"):
            self._lay_out()
        self._call("load_collection", seconds=WRITE_SECONDS)
        kept = self._read_kept()
        if kept is None:
            self._ntotal = 0
            self.keep(0)
            kept = Kept(0, 0)
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
            kept = self._read_kept()
            if kept is None or kept.seq < known:
                return False
            before, sure = self._ntotal, not self._unsure
            if self.recount() != before and sure:
                return False
        except EngineEmptied:
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
            columns = zip(ids[part].tolist(), digests_of(vectors[part]).tolist(), vectors[part], strict=True)
            rows = [
                {"id": id, "digest": digest, "vector": vector}
                for id, digest, vector in columns
                if has.get(id) != digest
            ]
            if rows:
                self._write("upsert", sum(row["id"] not in has for row in rows), data=rows)

    def remove(self, ids: Ids) -> None:
        """Forget `ids` [n]; unknown ones are ignored."""
        self._check_open()
        check_ids(ids)
        for start in range(0, len(ids), ID_BLOCK):
            has = self._there(ids[start : start + ID_BLOCK])
            if has:
                self._write("delete", -len(has), ids=sorted(has))

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
        elif len(among) <= FEW_IDS or (wide := self._wide(queries, k, params, among)) is None:
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
        self._call("drop_collection", seconds=WRITE_SECONDS)

    def keep(self, seq: int) -> None:
        """Note in the engine that the log is applied up to `seq`."""
        vector = np.zeros(self._d, np.float32)
        vector[0] = 1
        kept = Kept(seq, self._ntotal)
        columns = zip(STATE, (kept.seq, kept.ntotal), strict=True)
        rows = [{"id": id, "digest": number, "vector": vector} for id, number in columns]
        self._call("upsert", seconds=WRITE_SECONDS, data=rows)
        self._kept = kept

    def recount(self) -> int:
        """`ntotal`, asked now."""
        rows = self._query("", ["count(*)"], COUNT_SECONDS)
        self._ntotal = int(rows[0]["count(*)"]) - len(STATE)
        self._unsure = False
        return self._ntotal

    def expel(self, ids: Ids) -> None:
        """Remove rows of whatever `ids` [n], which we never put there."""
        for start in range(0, len(ids), ID_BLOCK):
            self._write("delete", -len(ids[start : start + ID_BLOCK]), ids=ids[start : start + ID_BLOCK].tolist())
        self.ghosts += len(ids)

    def digests(self, ids: Ids) -> dict[int, int]:
        """The digest of each of `ids` [n] that the engine has."""
        rows = self._query(_in(ids), ["id", "digest"], WRITE_SECONDS)
        return {int(row["id"]): int(row["digest"]) for row in rows}

    def between(self, low: int, high: int) -> Ids:
        """The ids that the engine has from `low` to below `high`, at most ID_BLOCK apart."""
        return self._ids(f"id >= {low} and id < {high}")

    def outside(self, high: int) -> Ids:
        """Up to ID_BLOCK of the ids that the engine has from `high` on, or that are no ids."""
        return self._ids(f"id >= {high} or id < {min(STATE)}")

    def _ids(self, test: str) -> Ids:
        rows = self._query(test, ["id"], WRITE_SECONDS, limit=ID_BLOCK)
        return np.array(sorted(int(row["id"]) for row in rows), np.int64)

    def _read_kept(self) -> Kept | None:
        numbers = self.digests(np.array(STATE, np.int64))
        return Kept(*(numbers[id] for id in STATE)) if len(numbers) == len(STATE) else None

    def _best(self, queries: Embeddings, k: int, params: SearchParams) -> RawHits:
        """Among all: asked for a few more than k, so that equal scores at the end can be put in order."""
        asked, exact = k, params.exact
        while True:
            asked = min(LIMIT, asked + 8)
            found = self._ask(queries, asked, params.probes, exact=exact)
            short = any(len(ids) < min(k, self._ntotal) for _, ids in found)
            if short and not exact and asked < LIMIT:
                exact = True  # the lists that were looked into hold too few
            elif asked < LIMIT and any(_tied(scores, asked, k) for scores, _ in found):
                asked *= 4
            else:
                return [(scores[:k], ids[:k]) for scores, ids in found]

    def _wide(self, queries: Embeddings, k: int, params: SearchParams, among: IdSet) -> RawHits | None:
        """Among many: ask for more than k and drop the others; None where that does not give k hits."""
        asked = 2 * int(np.ceil(k * max(1, self._ntotal) / len(among))) + 8
        while asked <= LIMIT:
            found = self._ask(queries, asked, params.probes, exact=params.exact)
            kept = [(scores[inside], ids[inside]) for scores, ids in found for inside in [among.contains(ids)]]
            if all(len(ids) >= k and not _tied(scores, len(ids), k) for scores, ids in kept):
                return [(scores[:k], ids[:k]) for scores, ids in kept]
            asked *= 4
        return None

    def _named(self, queries: Embeddings, k: int, ids: Ids) -> RawHits:
        """Among these ids, a block at a time; every one of them is compared."""
        best: RawHits = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        for start in range(0, len(ids), ID_BLOCK):
            block = ids[start : start + ID_BLOCK]
            more = self._ask(queries, len(block), None, exact=True, test=_in(block))
            joined = [
                (np.concatenate([a, c]), np.concatenate([b, d])) for (a, b), (c, d) in zip(best, more, strict=True)
            ]
            best = [_sorted(scores, hits, k) for scores, hits in joined]
        return best

    def _ask(self, queries: Embeddings, limit: int, probes: int | None, *, exact: bool, test: str = "") -> RawHits:
        """Up to `limit` hits for each query, best first; fewer where there are no more."""
        effort: dict[str, Any] = {}
        if self._engine.address.layout == "IVF_FLAT":
            effort = {"nprobe": LISTS if exact else min(LISTS, probes or PROBES)}
        found: RawHits = []
        at_once = max(1, HITS_AT_ONCE // (limit + 1))
        for start in range(0, len(queries), at_once):
            answer = self._call(
                "search",
                data=list(queries[start : start + at_once]),
                anns_field="vector",
                limit=min(LIMIT, limit + len(STATE)),
                filter=test,
                search_params={"metric_type": "IP", "params": effort},
            )
            found += [_hits(hits, limit) for hits in answer]
        return found

    def _make(self) -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=self._about)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("digest", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._d)
        self._call("create_collection", seconds=WRITE_SECONDS, schema=schema, consistency_level="Session")

    def _lay_out(self) -> None:
        from pymilvus import MilvusClient

        layout = self._engine.address.layout
        index = MilvusClient.prepare_index_params()
        lists = {"nlist": LISTS} if layout == "IVF_FLAT" else {}
        index.add_index("vector", index_type=layout, metric_type="IP", params=lists)
        # Not waited for: an empty collection has nothing to be built, and pymilvus would sleep half a second.
        self._call("create_index", seconds=WRITE_SECONDS, index_params=index, sync=False)

    def _there(self, ids: Ids) -> dict[int, int]:
        """`digests`; a collection that is gone is made anew, and known to lack what it had."""
        try:
            if self._unsure:
                self.recount()
            return self.digests(ids)
        except EngineEmptied:
            self.whole = False
            self.open()
            return {}

    def _write(self, method: str, more: int, **arguments: Any) -> None:
        """Change the collection, by so many rows more."""
        self._unsure = True
        self._call(method, seconds=WRITE_SECONDS, **arguments)
        self._ntotal += more
        self._unsure = False

    def _query(self, test: str, fields: list[str], seconds: float, **arguments: Any) -> Any:
        return self._call(
            "query", seconds=seconds, filter=test, output_fields=fields, consistency_level="Strong", **arguments
        )

    def _call(self, method: str, *, seconds: float | None = None, **arguments: Any) -> Any:
        return self._engine.call(method, seconds or READ_SECONDS, collection_name=self.name, **arguments)

    def _check_open(self) -> None:
        if self._closed:
            raise IndexClosed("the index is closed")

    def _check_whole(self) -> None:
        if not (self.whole and self.epoch == self._epoch):
            raise EngineEmptied(self.fault)


def _in(ids: Ids) -> str:
    return f"id in [{','.join(map(str, ids.tolist()))}]"


def _hits(hits: Any, limit: int) -> tuple[Scores, Ids]:
    """The engine's answer to one query, without what is not ours, in our order."""
    ids = np.fromiter((hit["id"] for hit in hits), np.int64, len(hits))
    scores = np.fromiter((hit["distance"] for hit in hits), np.float32, len(hits))
    return _sorted(scores[ids >= 0], ids[ids >= 0], limit)


def _sorted(scores: Scores, ids: Ids, limit: int) -> tuple[Scores, Ids]:
    order = np.lexsort((ids, -scores))[:limit]
    return scores[order], ids[order]


def _tied(scores: Scores, asked: int, k: int) -> bool:
    """Whether rows beyond those asked for may have the score of the k-th."""
    return len(scores) == asked > 0 and len(scores) >= k and bool(scores[-1] == scores[k - 1])
