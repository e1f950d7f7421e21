"""After whatever happened to Milvus a follower makes it equal to the log, and no answer is wrong meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from index import milvus, milvus_collection, reconcile
from index.errors import RemoteUnavailable
from index.factory import IndexConfig, open_index
from index.follower import Follower
from index.follower_loop import FollowerLoop
from index.milvus import MilvusIndex
from index.milvus_client import MilvusAddress, MilvusClient
from index.types import Embeddings, LogEntry, Op
from tests.index.deadline import wait_longer_until
from tests.index.memory_log import Log
from tests.index.oracle import nearest, unit
from tests.index.proxy import Proxy

D = 8
BLOCK = 16


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, checks at every look and deadlines of an instant."""
    monkeypatch.setattr(reconcile, "BLOCK_ENTRIES", BLOCK)
    monkeypatch.setattr(reconcile, "ID_BLOCK", BLOCK)
    monkeypatch.setattr(milvus, "ID_BLOCK", BLOCK)
    monkeypatch.setattr(milvus_collection, "ID_BLOCK", BLOCK)
    monkeypatch.setattr(reconcile, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(milvus_collection, "READ_SECONDS", 2.0)
    monkeypatch.setattr(milvus_collection, "WRITE_SECONDS", 2.0)
    monkeypatch.setattr(milvus_collection, "COUNT_SECONDS", 2.0)
    monkeypatch.setattr("index.milvus_client.CONNECT_SECONDS", 2.0)


class OneEach(Log):
    """A log as the store keeps it: one entry for an id at most."""

    def append(self, *entries: LogEntry) -> int:
        last = self.last_seq()
        fresh = {entry.id for entry in entries}
        self.entries = [entry for entry in self.entries if entry.id not in fresh]
        self.entries.extend(entries)
        self.version += 1
        return max(last, self.last_seq())

    def put(self, id: int, vector: Embeddings) -> None:
        self.append(LogEntry(self.next(), Op.ADD, id, vector))

    def delete(self, id: int) -> None:
        self.append(LogEntry(self.next(), Op.REMOVE, id))

    def next(self) -> int:
        self.last = getattr(self, "last", 0) + 1
        return self.last

    def stored_vectors(self) -> dict[int, Embeddings]:
        return {entry.id: entry.vector for entry in self.entries if entry.vector is not None}


@pytest.fixture
def log() -> OneEach:
    log = OneEach()
    for id, vector in enumerate(unit(60, D)):
        log.put(id, vector)
    for id in range(0, 60, 9):
        log.delete(id)
    return log


class Served:
    """An index that follows `log` in Milvus, as a server has it open."""

    def __init__(self, client: MilvusClient, name: str, log: OneEach) -> None:
        config = IndexConfig(name, "space", D, Path("none"), milvus=client, owner="test")
        self.log = log
        self.opened = open_index(config, last_seq=log.last_seq())
        assert isinstance(self.opened.index, MilvusIndex)
        self.index: MilvusIndex = self.opened.index
        self.follower = Follower(self.opened, log, name)
        self.loop = FollowerLoop(log.data_version, lambda: [name])
        self.loop.poll_idle = 0.01
        self.loop.attach(name, self.follower)
        self.loop.start()

    def close(self, *, save: bool = True) -> None:
        self.loop.close()
        self.follower.close(save=save)

    def is_right(self) -> bool:
        """Whether all of the log is applied and found; an answer that is not right fails."""
        if not self.follower.wait_until_applied(self.log.last_seq(), 0):
            return False
        stored = self.log.stored_vectors()
        try:
            found = self.index.search(unit(1, D, 77), len(stored) + 5)[1]
        except RemoteUnavailable:
            return False
        return bool(found.tolist() == nearest(stored, unit(1, D, 77), len(stored) + 5)[1].tolist())

    def is_settled(self) -> bool:
        """Right, and nothing left to compare."""
        return self.is_right() and self.passes() is None

    def passes(self) -> object:
        assert self.opened.maintain is not None
        return self.opened.maintain.__self__._pass  # type: ignore[attr-defined]


@pytest.fixture
def serve(lite: MilvusClient, request: pytest.FixtureRequest) -> Iterator[Callable[..., Served]]:
    """Serves the log from a Milvus, unless another is given one that others can reach; stopped after the test."""
    running: list[Served] = []
    lite.call("list_collections", 60)
    usual = MilvusClient(MilvusAddress(lite._client._config.uri, index_type="FLAT"))

    def start(log: OneEach, client: MilvusClient | None = None) -> Served:
        running.append(served := Served(client or usual, request.node.name, log))
        return served

    yield start
    for served in running:
        served.close()
    if running and running[-1].index.client is usual:
        running[-1].index.drop()
    usual.close()


def stop(served: Served) -> None:
    served.close()
    served.index.close()


def test_a_start_takes_up_where_milvus_is(serve: Callable[..., Served], log: OneEach) -> None:
    first = serve(log)
    wait_longer_until(first.is_settled)
    stop(first)
    log.put(100, unit(1, D, 5)[0])
    again = serve(log)
    assert again.opened.applied_seq == log.last_seq() - 1
    assert again.opened.refused is None
    wait_longer_until(again.is_settled)
    assert again.index.orphans == 0


@pytest.mark.parametrize("running", [True, False])
def test_lost_wrong_and_foreign_rows_are_mended(
    serve: Callable[..., Served], log: OneEach, lite: MilvusClient, running: bool
) -> None:
    served = serve(log)
    wait_longer_until(served.is_settled)
    if not running:
        stop(served)
    name = served.index.collection.name
    lite.call("delete", 5, collection_name=name, ids=[1, 2, 40])
    wrong = unit(3, D, 9)
    foreign = [9, 61, 10**6, 2**40, -77]  # deleted by us, next to ours, far from them, no id at all
    rows = [{"id": id, "digest": 5, "vector": wrong[0]} for id in [3, *foreign]]
    lite.call("upsert", 5, collection_name=name, data=rows)
    if not running:
        served = serve(log)
    wait_longer_until(served.is_settled)
    assert served.index.recount() == len(log.stored_vectors())
    assert served.index.orphans + (9 in foreign) == len(foreign)
    held = served.index.collection.read_digests(np.array(sorted(log.stored_vectors()), np.int64))
    wanted = milvus_collection.hash_vectors(np.stack([log.stored_vectors()[id] for id in sorted(log.stored_vectors())]))
    assert [held[id] for id in sorted(held)] == wanted.tolist()


def test_a_vector_changed_behind_our_back_is_found_at_the_next_start(
    serve: Callable[..., Served], log: OneEach, lite: MilvusClient
) -> None:
    served = serve(log)
    wait_longer_until(served.is_settled)
    stop(served)
    row = {"id": 5, "digest": 1, "vector": unit(1, D, 9)[0]}  # the counts agree
    lite.call("upsert", 5, collection_name=served.index.collection.name, data=[row])
    wait_longer_until(serve(log).is_settled)


def test_a_dropped_collection_is_filled_again_while_serving(
    serve: Callable[..., Served], log: OneEach, lite: MilvusClient
) -> None:
    served = serve(log)
    wait_longer_until(served.is_settled)
    lite.call("drop_collection", 5, collection_name=served.index.collection.name)
    log.put(200, unit(1, D, 6)[0])
    wait_longer_until(served.is_settled)
    assert served.index.recount() == len(log.stored_vectors())


def test_a_log_older_than_milvus_is_what_counts(serve: Callable[..., Served], log: OneEach) -> None:
    """The database was restored from a backup: what was added since is gone from Milvus too."""
    served = serve(log)
    wait_longer_until(served.is_settled)
    stop(served)
    log.entries = log.entries[:30]
    again = serve(log)
    assert again.opened.refused is not None
    assert "but the log ends at" in again.opened.refused
    wait_longer_until(again.is_settled)
    assert again.index.recount() == len(log.stored_vectors())


def test_a_milvus_restored_from_an_old_copy_catches_up(
    serve: Callable[..., Served], log: OneEach, tmp_path: Path
) -> None:
    file, copy = tmp_path / "engine.db", tmp_path / "copy.db"

    def open_client() -> MilvusClient:
        return MilvusClient(MilvusAddress(str(file), index_type="FLAT"))

    client = open_client()
    served = serve(log, client)
    wait_longer_until(served.is_settled)
    stop(served)
    client.close()
    shutil.copytree(file, copy)
    client = open_client()
    served = serve(log, client)
    for id in range(5, 25):
        log.put(id, unit(1, D, id)[0])
    log.delete(50)
    wait_longer_until(served.is_settled)
    stop(served)
    client.close()
    shutil.rmtree(file)
    copy.rename(file)
    client = open_client()
    served = serve(log, client)
    wait_longer_until(served.is_settled)
    assert served.index.recount() == len(log.stored_vectors())
    stop(served)
    client.close()


@pytest.mark.parametrize("mode", ["silence", "reset"])
def test_what_is_committed_while_milvus_is_away_is_found_when_it_is_back(
    serve: Callable[..., Served], log: OneEach, proxy: Proxy, mode: str
) -> None:
    client = MilvusClient(MilvusAddress(f"http://127.0.0.1:{proxy.port}", index_type="FLAT"))
    served = serve(log, client)
    wait_longer_until(served.is_settled)
    proxy.mode = mode
    for id in range(100, 140):
        log.put(id, unit(1, D, id)[0])
    log.delete(100)
    wait_longer_until(lambda: served.follower.error is not None and client.is_away)
    assert isinstance(served.follower.error, RemoteUnavailable)
    assert served.loop.is_alive()
    with pytest.raises(RemoteUnavailable):
        served.index.search(unit(1, D), 1)
    proxy.mode = "pass"
    wait_longer_until(served.is_settled)
    assert served.follower.error is None
    stop(served)
    served.index.drop()
    client.close()


def test_connections_cut_again_and_again_in_the_middle_of_a_load_lose_and_double_nothing(
    serve: Callable[..., Served], log: OneEach, proxy: Proxy
) -> None:
    client = MilvusClient(MilvusAddress(f"http://127.0.0.1:{proxy.port}", index_type="FLAT"))
    served = serve(log, client)
    for id in range(100, 400):
        log.put(id, unit(1, D, id)[0])
        if id % 40 == 0:
            proxy.mode = "reset"
            proxy.mode = "pass"
    wait_longer_until(served.is_settled)
    assert served.index.recount() == len(log.stored_vectors())
    assert served.index.orphans == 0
    stop(served)
    served.index.drop()
    client.close()
