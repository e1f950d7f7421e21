"""The collection: names, digests, and what it keeps beside the vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from index.milvus import MilvusIndex
from index.milvus_collection import Checkpoint, collection_name, hash_vectors
from tests.index.oracle import numbers, unit

D = 16
Open = Callable[[int], MilvusIndex]


def test_a_collection_has_a_name_of_its_own_that_never_changes() -> None:
    assert collection_name("a/images", "s") == "sightline_a5f56aa4754e4b8aec5409d7"
    names = {collection_name(name, space) for name in ("a/images", "a/texts", "b/images") for space in ("s", "t")}
    assert len(names) == 6


def test_a_digest_tells_vectors_apart_to_the_last_bit() -> None:
    one = unit(1, D)
    other = one.copy()
    other[0, 3] = np.nextafter(other[0, 3], np.float32(1))
    digests = hash_vectors(np.concatenate([one, other, one]))
    assert digests[0] == digests[2] != digests[1]


def test_the_checkpoint_is_neither_counted_nor_found(milvus: Open) -> None:
    collection = milvus(D).collection
    assert (collection.read_checkpoint(), collection.count()) == (Checkpoint(0, 0), 0)
    collection.write_checkpoint(Checkpoint(2**62, 7))
    assert (collection.read_checkpoint(), collection.count()) == (Checkpoint(2**62, 7), 0)
    first = np.eye(1, D, dtype=np.float32)  # nearest to the rows of the checkpoint
    assert [ids.tolist() for _, ids in collection.search(first, 3, None, exact=True)] == [[]]
    collection.upsert([(5, *hash_vectors(first).tolist(), first[0])])
    assert [ids.tolist() for _, ids in collection.search(first, 1, None, exact=True)] == [[5]]


def test_rows_are_read_by_digests_and_by_ranges(milvus: Open) -> None:
    collection = milvus(D).collection
    vectors = unit(4, D)
    collection.upsert(zip([3, 8, 9, 2**63 - 1], hash_vectors(vectors).tolist(), vectors, strict=True))
    assert collection.read_digests(numbers(3, 4, 9)) == {3: hash_vectors(vectors)[0], 9: hash_vectors(vectors)[2]}
    assert collection.list_ids(3, 9).tolist() == [3, 8]
    assert collection.list_ids_outside(9).tolist() == [9, 2**63 - 1]
    collection.delete([3, 4])
    assert collection.list_ids(0, 9).tolist() == [8]


def test_hits_may_be_of_given_ids_alone(milvus: Open) -> None:
    collection = milvus(D).collection
    vectors = unit(6, D)
    collection.upsert(zip(range(6), hash_vectors(vectors).tolist(), vectors, strict=True))
    ((scores, ids),) = collection.search(vectors[:1], 2, None, exact=False, allowed_ids=numbers(0, 4, 99))
    assert ids.tolist() == [0, 4]
    assert scores.dtype == np.float32
