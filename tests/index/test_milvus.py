"""MilvusIndex beyond the contract: filters of every size, layouts, and a Milvus that goes and comes back changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from index import milvus as module
from index import milvus_collection
from index.errors import RemoteEmptied, RemoteUnavailable
from index.idset import IdSet
from index.milvus import MilvusIndex
from index.milvus_client import MilvusAddress, MilvusClient
from index.milvus_collection import Checkpoint
from index.protocol import SearchParams
from index.types import Embeddings
from tests.index.deadline import wait_longer_until
from tests.index.oracle import nearest, numbers, unit
from tests.index.proxy import Proxy

D = 16
Open = Callable[[int], MilvusIndex]


def fill(index: MilvusIndex, n: int) -> dict[int, Embeddings]:
    vectors = unit(n, D)
    index.add(np.arange(n, dtype=np.int64), vectors)
    return dict(enumerate(vectors))


def check_search(index: MilvusIndex, stored: dict[int, Embeddings], k: int, params: SearchParams | None = None) -> None:
    queries = unit(3, D, seed=1)
    scores, ids = index.search(queries, k, params)
    expected = nearest(stored, queries, k)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_allclose(scores, expected[0], rtol=0, atol=1e-6)


def test_an_index_opened_again_holds_what_it_held_and_how_far(milvus: Open, lite: MilvusClient) -> None:
    index = milvus(D)
    stored = fill(index, 20)
    index.write_checkpoint(77)
    index.close()
    again = MilvusIndex(lite, index.collection.name, D)
    assert again.open() == Checkpoint(77, 20)
    assert again.ntotal == 20
    check_search(again, stored, 25)


def test_two_indexes_of_one_milvus_do_not_see_each_other(milvus: Open) -> None:
    images, texts = milvus(D), milvus(D)
    fill(images, 5)
    assert (images.ntotal, texts.ntotal) == (5, 0)
    assert texts.search(unit(1, D), 3)[1].tolist() == [[-1] * 3]


@pytest.mark.parametrize("share", [2, 7, 60])
def test_k_are_found_among_any_number_of_ids_however_they_are_asked_for(
    milvus: Open, monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    """Small bounds, so that one collection goes every way: named ids, more than k asked for, named in blocks."""
    monkeypatch.setattr(module, "MAX_NAMED_IDS", 10)
    monkeypatch.setattr(module, "ID_BLOCK", 40)
    monkeypatch.setattr(module, "MAX_HITS", 200)
    monkeypatch.setattr(milvus_collection, "MAX_HITS", 200)
    index = milvus(D)
    stored = fill(index, 600)
    wanted = np.arange(0, 900, share, dtype=np.int64)
    inside = {id: vector for id, vector in stored.items() if id % share == 0}
    for k in (1, 12, 50):
        check_search(index, inside, k, SearchParams(allowed_ids=IdSet.of(wanted)))


def test_among_ids_that_all_lie_far_from_the_query_k_are_found(milvus: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMED_IDS", 10)
    monkeypatch.setattr(module, "MAX_HITS", 100)
    monkeypatch.setattr(milvus_collection, "MAX_HITS", 100)
    index = milvus(D)
    stored = fill(index, 400)
    query = unit(1, D, seed=1)
    far = nearest(stored, query, 400)[1][0, 200:]
    _, ids = index.search(query, 20, SearchParams(allowed_ids=IdSet.of(far)))
    np.testing.assert_array_equal(ids, nearest({id: stored[id] for id in far.tolist()}, query, 20)[1])


def test_many_queries_at_once_are_asked_for_in_parts(milvus: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_collection, "HITS_AT_ONCE", 50)
    index = milvus(D)
    check_search(index, fill(index, 60), 30)


def test_a_partitioned_collection_gives_k_hits_and_exact_ones_if_asked(milvus: Open, lite: MilvusClient) -> None:
    client = MilvusClient(MilvusAddress(lite._client._config.uri, index_type="IVF_FLAT"))
    index = MilvusIndex(client, "test_partitioned", D)
    try:
        index.open()
        stored = fill(index, 300)
        check_search(index, stored, 20, SearchParams(exact=True))
        check_search(index, stored, 300, SearchParams(nprobe=1))
        check_search(index, {id: stored[id] for id in range(9)}, 12, SearchParams(allowed_ids=IdSet.of(np.arange(9))))
    finally:
        index.drop()
        client.close()


def test_a_batch_larger_than_one_message_goes_in_parts(milvus: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_BYTES", 4 * D * 7)
    monkeypatch.setattr(module, "ID_BLOCK", 7)
    index = milvus(D)
    stored = fill(index, 40)
    index.remove(np.arange(0, 40, 2, dtype=np.int64))
    check_search(index, {id: vector for id, vector in stored.items() if id % 2}, 30)


@pytest.fixture
def proxied_index(proxy: Proxy, milvus: Open, monkeypatch: pytest.MonkeyPatch) -> Iterator[MilvusIndex]:
    """An index whose engine is behind the proxy, with 30 vectors in it."""
    for name, seconds in (("READ_SECONDS", 1.0), ("WRITE_SECONDS", 1.0), ("COUNT_SECONDS", 2.0)):
        monkeypatch.setattr(milvus_collection, name, seconds)
    monkeypatch.setattr("index.milvus_client.CONNECT_SECONDS", 1.0)
    fill(near := milvus(D), 30)
    near.write_checkpoint(30)
    client = MilvusClient(MilvusAddress(f"http://127.0.0.1:{proxy.port}", index_type="FLAT"))
    index = MilvusIndex(client, near.collection.name, D)
    wait_longer_until(lambda: succeeds(index.open))
    yield index
    client.close()


def succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except RemoteUnavailable:
        return False
    return True


@pytest.mark.parametrize("mode", ["silence", "reset"])
def test_a_milvus_that_is_away_gives_an_error_and_never_another_answer(
    proxied_index: MilvusIndex, proxy: Proxy, mode: str
) -> None:
    proxy.mode = mode
    calls: list[Callable[[], object]] = [
        lambda: proxied_index.search(unit(1, D), 3),
        lambda: proxied_index.search(unit(1, D), 3, SearchParams(allowed_ids=IdSet.of(numbers(1, 2)))),
        lambda: proxied_index.add(numbers(99), unit(1, D)),
        lambda: proxied_index.remove(numbers(1)),
    ]
    for call in calls:
        with pytest.raises(RemoteUnavailable):
            call()
    assert proxied_index.ntotal == 30


def test_over_a_new_connection_nothing_is_answered_before_the_contents_were_counted(
    proxied_index: MilvusIndex, proxy: Proxy
) -> None:
    epoch = proxied_index.client.epoch
    proxy.mode = "silence"
    for _ in range(2):
        assert not succeeds(lambda: proxied_index.search(unit(1, D), 3))
    proxy.mode = "pass"
    wait_longer_until(lambda: succeeds(proxied_index.recount))
    assert proxied_index.client.epoch > epoch
    with pytest.raises(RemoteEmptied, match="is being counted"):
        proxied_index.search(unit(1, D), 3)
    assert proxied_index.check_contents()
    check_search(proxied_index, dict(enumerate(unit(30, D))), 5)


def test_rows_lost_or_added_behind_our_back_are_noticed(milvus: Open, lite: MilvusClient) -> None:
    index = milvus(D)
    fill(index, 10)
    index.write_checkpoint(10)
    assert index.check_contents()
    lite.call("delete", 5, collection_name=index.collection.name, ids=[3])
    assert not index.check_contents()
    index.recount()
    assert index.check_contents()
    lite.call("delete", 5, collection_name=index.collection.name, ids=[-1])
    assert not index.check_contents()


def test_a_collection_dropped_behind_our_back_is_made_anew_and_known_to_be_empty(
    milvus: Open, lite: MilvusClient
) -> None:
    index = milvus(D)
    fill(index, 10)
    lite.call("drop_collection", 5, collection_name=index.collection.name)
    with pytest.raises(RemoteEmptied):
        index.search(unit(1, D), 1)
    index.add(numbers(77), unit(1, D))
    assert index.ntotal == 1
    with pytest.raises(RemoteEmptied, match="being put back"):
        index.search(unit(1, D), 1)


def test_what_is_there_already_is_not_sent_again(milvus: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    index = milvus(D)
    fill(index, 10)
    sent: list[int] = []
    call = MilvusClient.call

    def count_upserts(self: MilvusClient, method: str, seconds: float, **arguments: Any) -> object:
        if method == "upsert":
            sent.append(len(arguments["data"]))
        return call(self, method, seconds, **arguments)

    monkeypatch.setattr(MilvusClient, "call", count_upserts)
    fill(index, 10)
    assert sent == []
    fill(index, 13)
    assert sent == [3]
    assert index.ntotal == index.recount() == 13


def test_after_a_write_whose_answer_was_lost_the_row_is_there_once_and_counted_once(
    proxied_index: MilvusIndex, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = MilvusClient.call

    def lose_upserts(self: MilvusClient, method: str, seconds: float, **arguments: Any) -> object:
        if method == "upsert":
            proxy.mode = "unheard"
        return call(self, method, seconds, **arguments)

    monkeypatch.setattr(MilvusClient, "call", lose_upserts)
    with pytest.raises(RemoteUnavailable):
        proxied_index.add(numbers(99), unit(1, D, 3))
    monkeypatch.setattr(MilvusClient, "call", call)
    assert proxied_index.ntotal == 30
    proxy.mode = "pass"
    wait_longer_until(lambda: succeeds(lambda: proxied_index.add(numbers(99), unit(1, D, 3))))
    assert proxied_index.ntotal == 31
    wait_longer_until(lambda: succeeds(proxied_index.check_contents))
    check_search(proxied_index, dict(enumerate(unit(30, D))) | {99: unit(1, D, 3)[0]}, 40)
