"""MilvusCollection: the rows of one index in Milvus. MilvusIndex decides who may change them, and when.

A row is (id, digest, vector); the digest is 64 bits of the vector's BLAKE2b and says whether Milvus has the vector that
we put there. Two more rows, with ids -1 and -2, hold the checkpoint: how far the log was applied. They are restored,
copied and lost together with the rows that they describe, and every answer leaves them out.

Searches have consistency `Session`: they see every write of this process, the only one that writes. Milvus lets such a
search wait until its nodes have reached our last write; without one there is nothing to wait for. Comparing and
counting are `Strong`: they wait for the newest write of all, a time tick of Milvus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.milvus_client import MilvusClient
from index.topk import select_top_k
from index.types import Embeddings, Ids, Scores

READ_SECONDS, WRITE_SECONDS, COUNT_SECONDS = 3.0, 10.0, 30.0
MAX_HITS = 16_384
"""The most hits of one search (Milvus's quotaAndLimits.limits.topK)."""
NLIST, DEFAULT_NPROBE = 1024, 64
"""Lists of a segment's IVF_FLAT, and how many a search looks into when the caller does not say."""
ID_BLOCK = 8_192
"""Ids in one call."""
HITS_AT_ONCE = 1 << 18
CHECKPOINT_IDS = (-1, -2)
"""The ids of the rows whose digests are `Checkpoint.seq` and `Checkpoint.ntotal`."""

Row = tuple[int, int, Embeddings]
"""Id, digest and vector [d]."""
QueryHits = list[tuple[Scores, Ids]]
"""Scores and ids for each query, best first, as many as Milvus found."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What Milvus itself says of its contents: it holds the log up to `seq`, and had `ntotal` rows then."""

    seq: int
    ntotal: int


def collection_name(name: str, space: str) -> str:
    """The name in Milvus of the index `name` in `space`: always the same, and valid there."""
    return "sightline_" + hashlib.sha256(f"{name}\0{space}".encode()).hexdigest()[:24]


def hash_vectors(vectors: Embeddings) -> Ids:
    """64 bits for each vector: [n]."""
    words = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in vectors)
    return np.frombuffer(words, dtype="<i8").astype(np.int64)


class MilvusCollection:
    """The collection `name`, for vectors of width `d`. Every method raises RemoteUnavailable.

    `about` is its description there, for people who look into Milvus.
    """

    def __init__(self, client: MilvusClient, name: str, d: int, about: str = "") -> None:
        self._client = client
        self.name = name
        self._d = d
        self._about = about

    def open(self) -> int:
        """Make the collection unless it exists; the client's epoch before any other call."""
        exists = self._call("has_collection")  # the first call: it connects
        epoch = self._client.epoch
        if not exists:
            self._create()
        if not self._call("list_indexes"):
            self._create_index()
        self._call("load_collection", seconds=WRITE_SECONDS)
        return epoch

    def drop(self) -> None:
        """Remove the collection from Milvus."""
        self._call("drop_collection", seconds=WRITE_SECONDS)

    def upsert(self, rows: Iterable[Row]) -> None:
        """Store these rows; those of known ids replace the old ones."""
        data = [{"id": id, "digest": digest, "vector": vector} for id, digest, vector in rows]
        self._call("upsert", seconds=WRITE_SECONDS, data=data)

    def delete(self, ids: Sequence[int]) -> None:
        self._call("delete", seconds=WRITE_SECONDS, ids=list(ids))

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        vector = np.zeros(self._d, np.float32)
        vector[0] = 1
        self.upsert((id, n, vector) for id, n in zip(CHECKPOINT_IDS, (checkpoint.seq, checkpoint.ntotal), strict=True))

    def read_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that was written last."""
        numbers = self.read_digests(np.array(CHECKPOINT_IDS, np.int64))
        return Checkpoint(*(numbers[id] for id in CHECKPOINT_IDS)) if len(numbers) == len(CHECKPOINT_IDS) else None

    def count(self) -> int:
        """How many rows there are beside those of the checkpoint, which must exist."""
        rows = self._query("", ["count(*)"], COUNT_SECONDS)
        return int(rows[0]["count(*)"]) - len(CHECKPOINT_IDS)

    def read_digests(self, ids: Ids) -> dict[int, int]:
        """The digest of each of `ids` [n] that Milvus has."""
        rows = self._query(_id_filter(ids), ["id", "digest"], WRITE_SECONDS)
        return {int(row["id"]): int(row["digest"]) for row in rows}

    def list_ids(self, low: int, high: int) -> Ids:
        """The ids that Milvus has from `low` to below `high`, at most ID_BLOCK apart."""
        return self._query_ids(f"id >= {low} and id < {high}")

    def list_ids_outside(self, high: int) -> Ids:
        """Up to ID_BLOCK of the ids that Milvus has from `high` on, or that are no ids of ours."""
        return self._query_ids(f"id >= {high} or id < {min(CHECKPOINT_IDS)}")

    def search(
        self, queries: Embeddings, limit: int, nprobe: int | None, *, exact: bool, allowed_ids: Ids | None = None
    ) -> QueryHits:
        """Up to `limit` hits for each query, of these ids alone if they are given; fewer where there are no more.

        `exact` compares every vector; else IVF_FLAT looks into `nprobe` lists of each segment.
        """
        params: dict[str, Any] = {}
        if self._client.address.index_type == "IVF_FLAT":
            params = {"nprobe": NLIST if exact else min(NLIST, nprobe or DEFAULT_NPROBE)}
        found: QueryHits = []
        at_once = max(1, HITS_AT_ONCE // (limit + 1))
        for start in range(0, len(queries), at_once):
            answer = self._call(
                "search",
                data=list(queries[start : start + at_once]),
                anns_field="vector",
                limit=min(MAX_HITS, limit + len(CHECKPOINT_IDS)),
                filter="" if allowed_ids is None else _id_filter(allowed_ids),
                search_params={"metric_type": "IP", "params": params},
            )
            found += [_parse_hits(hits, limit) for hits in answer]
        return found

    def _query_ids(self, test: str) -> Ids:
        rows = self._query(test, ["id"], WRITE_SECONDS, limit=ID_BLOCK)
        return np.array(sorted(int(row["id"]) for row in rows), np.int64)

    def _create(self) -> None:
        import pymilvus

        schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=self._about)
        schema.add_field("id", pymilvus.DataType.INT64, is_primary=True)
        schema.add_field("digest", pymilvus.DataType.INT64)
        schema.add_field("vector", pymilvus.DataType.FLOAT_VECTOR, dim=self._d)
        self._call("create_collection", seconds=WRITE_SECONDS, schema=schema, consistency_level="Session")

    def _create_index(self) -> None:
        import pymilvus

        index_type = self._client.address.index_type
        index = pymilvus.MilvusClient.prepare_index_params()
        params = {"nlist": NLIST} if index_type == "IVF_FLAT" else {}
        index.add_index("vector", index_type=index_type, metric_type="IP", params=params)
        # Does not wait: an empty collection has nothing to build, and pymilvus would sleep half a second.
        self._call("create_index", seconds=WRITE_SECONDS, index_params=index, sync=False)

    def _query(self, test: str, fields: list[str], seconds: float, **arguments: Any) -> Any:
        return self._call(
            "query", seconds=seconds, filter=test, output_fields=fields, consistency_level="Strong", **arguments
        )

    def _call(self, method: str, *, seconds: float | None = None, **arguments: Any) -> Any:
        return self._client.call(method, seconds or READ_SECONDS, collection_name=self.name, **arguments)


def _id_filter(ids: Ids) -> str:
    return f"id in [{','.join(map(str, ids.tolist()))}]"


def _parse_hits(hits: Any, limit: int) -> tuple[Scores, Ids]:
    """Milvus's answer to one query, without the checkpoint, in our order."""
    ids = np.fromiter((hit["id"] for hit in hits), np.int64, len(hits))
    scores = np.fromiter((hit["distance"] for hit in hits), np.float32, len(hits))
    return select_top_k(scores[ids >= 0], ids[ids >= 0], limit)
