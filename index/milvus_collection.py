"""Table: the rows of one index in Milvus, and what is asked of them. Who may change them, and when, is MilvusIndex's.

A row is (id, digest, vector); the digest is 64 bits of the vector's BLAKE2b and says whether the engine has the
vector that we gave it. Two rows more, with ids -1 and -2, keep how far the log was applied: they are restored,
copied and lost together with the rows that they speak of, and dropped from every answer.

Searches are of consistency `Session`: they see every write of this process, the only one that writes. Milvus
lets such a search wait until its nodes have got to our last write; without one there is nothing to wait for. What is
asked to compare or to count is `Strong`: it waits for the newest of all, a time tick of Milvus's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.milvus_client import MilvusClient
from index.types import Embeddings, Ids, Scores

READ_SECONDS, WRITE_SECONDS, COUNT_SECONDS = 3.0, 10.0, 30.0
MAX_HITS = 16_384
"""The most hits of one search (Milvus's quotaAndLimits.limits.topK)."""
NLIST, DEFAULT_NPROBE = 1024, 64
"""Lists of a segment's IVF_FLAT, and how many are looked into when the caller does not say."""
ID_BLOCK = 8_192
"""Ids named at once."""
HITS_AT_ONCE = 1 << 18
CHECKPOINT_IDS = (-1, -2)
"""The ids of the rows whose digests are `Kept.seq` and `Kept.ntotal`."""

QueryHits = list[tuple[Scores, Ids]]
"""Scores and ids of each query, best first, as many as were found."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the engine itself says of its contents: the log is in it up to `seq`, and it then had `ntotal` rows."""

    seq: int
    ntotal: int


def collection_name(name: str, space: str) -> str:
    """The engine's collection for the index `name` in `space`: the same for ever, and valid in Milvus."""
    return "sightline_" + hashlib.sha256(f"{name}\0{space}".encode()).hexdigest()[:24]


def hash_vectors(vectors: Embeddings) -> Ids:
    """64 bits for each vector: [n]."""
    words = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in vectors)
    return np.frombuffer(words, dtype="<i8").astype(np.int64)


class MilvusCollection:
    """The collection `name` of `engine`, for vectors of width `d`. Every method raises EngineUnavailable.

    `about` is its description there, for people who look into the engine.
    """

    def __init__(self, engine: MilvusClient, name: str, d: int, about: str = "") -> None:
        self.engine = engine
        self.name = name
        self._d = d
        self._about = about

    def open(self) -> int:
        """Make the collection unless it is there; the engine's epoch before anything else was asked."""
        there = self._call("has_collection")  # the first call: it connects
        epoch = self.engine.epoch
        if not there:
            self._make()
        if not self._call("list_indexes"):
            self._lay_out()
        self._call("load_collection", seconds=WRITE_SECONDS)
        return epoch

    def drop(self) -> None:
        """Remove the collection from the engine."""
        self._call("drop_collection", seconds=WRITE_SECONDS)

    def put(self, ids: Sequence[int], digests: Sequence[int], vectors: Sequence[Embeddings]) -> None:
        """Store these rows; those of known ids are replaced."""
        columns = zip(ids, digests, vectors, strict=True)
        rows = [{"id": id, "digest": digest, "vector": vector} for id, digest, vector in columns]
        self._call("upsert", seconds=WRITE_SECONDS, data=rows)

    def delete(self, ids: Sequence[int]) -> None:
        """Remove these rows."""
        self._call("delete", seconds=WRITE_SECONDS, ids=list(ids))

    def keep(self, kept: Checkpoint) -> None:
        """Write down how far the log is applied."""
        vector = np.zeros(self._d, np.float32)
        vector[0] = 1
        self.put(CHECKPOINT_IDS, (kept.seq, kept.ntotal), (vector, vector))

    def kept(self) -> Checkpoint | None:
        """What was written down last."""
        numbers = self.digests(np.array(CHECKPOINT_IDS, np.int64))
        return Checkpoint(*(numbers[id] for id in CHECKPOINT_IDS)) if len(numbers) == len(CHECKPOINT_IDS) else None

    def count(self) -> int:
        """How many rows there are; those of `Kept` must be among them."""
        rows = self._query("", ["count(*)"], COUNT_SECONDS)
        return int(rows[0]["count(*)"]) - len(CHECKPOINT_IDS)

    def digests(self, ids: Ids) -> dict[int, int]:
        """The digest of each of `ids` [n] that the engine has."""
        rows = self._query(_in(ids), ["id", "digest"], WRITE_SECONDS)
        return {int(row["id"]): int(row["digest"]) for row in rows}

    def between(self, low: int, high: int) -> Ids:
        """The ids that the engine has from `low` to below `high`, at most ID_BLOCK apart."""
        return self._ids(f"id >= {low} and id < {high}")

    def outside(self, high: int) -> Ids:
        """Up to ID_BLOCK of the ids that the engine has from `high` on, or that are no ids."""
        return self._ids(f"id >= {high} or id < {min(CHECKPOINT_IDS)}")

    def ask(
        self, queries: Embeddings, limit: int, probes: int | None, *, exact: bool, among: Ids | None = None
    ) -> QueryHits:
        """Up to `limit` hits for each query, of these ids alone if they are given; fewer where there are no more.

        `exact` compares every vector; else IVF_FLAT looks into `probes` lists of each segment.
        """
        effort: dict[str, Any] = {}
        if self.engine.address.layout == "IVF_FLAT":
            effort = {"nprobe": NLIST if exact else min(NLIST, probes or DEFAULT_NPROBE)}
        found: QueryHits = []
        at_once = max(1, HITS_AT_ONCE // (limit + 1))
        for start in range(0, len(queries), at_once):
            answer = self._call(
                "search",
                data=list(queries[start : start + at_once]),
                anns_field="vector",
                limit=min(MAX_HITS, limit + len(CHECKPOINT_IDS)),
                filter="" if among is None else _in(among),
                search_params={"metric_type": "IP", "params": effort},
            )
            found += [_hits(hits, limit) for hits in answer]
        return found

    def _ids(self, test: str) -> Ids:
        rows = self._query(test, ["id"], WRITE_SECONDS, limit=ID_BLOCK)
        return np.array(sorted(int(row["id"]) for row in rows), np.int64)

    def _make(self) -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=self._about)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("digest", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._d)
        self._call("create_collection", seconds=WRITE_SECONDS, schema=schema, consistency_level="Session")

    def _lay_out(self) -> None:
        from pymilvus import MilvusClient

        layout = self.engine.address.layout
        index = MilvusClient.prepare_index_params()
        lists = {"nlist": NLIST} if layout == "IVF_FLAT" else {}
        index.add_index("vector", index_type=layout, metric_type="IP", params=lists)
        # Not waited for: an empty collection has nothing to be built, and pymilvus would sleep half a second.
        self._call("create_index", seconds=WRITE_SECONDS, index_params=index, sync=False)

    def _query(self, test: str, fields: list[str], seconds: float, **arguments: Any) -> Any:
        return self._call(
            "query", seconds=seconds, filter=test, output_fields=fields, consistency_level="Strong", **arguments
        )

    def _call(self, method: str, *, seconds: float | None = None, **arguments: Any) -> Any:
        return self.engine.call(method, seconds or READ_SECONDS, collection_name=self.name, **arguments)


def _in(ids: Ids) -> str:
    return f"id in [{','.join(map(str, ids.tolist()))}]"


def _hits(hits: Any, limit: int) -> tuple[Scores, Ids]:
    """The engine's answer to one query, without what is not ours, in our order."""
    ids = np.fromiter((hit["id"] for hit in hits), np.int64, len(hits))
    scores = np.fromiter((hit["distance"] for hit in hits), np.float32, len(hits))
    return sort_hits(scores[ids >= 0], ids[ids >= 0], limit)


def sort_hits(scores: Scores, ids: Ids, limit: int) -> tuple[Scores, Ids]:
    """The best `limit` of these, equal scores by lower id."""
    order = np.lexsort((ids, -scores))[:limit]
    return scores[order], ids[order]
