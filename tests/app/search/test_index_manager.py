from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.errors import NotFound, Overloaded, StartupError
from app.search.index_handle import OVERHEAD
from app.search.index_manager import FEEDING, MAX_WAITERS, MIN_SNAPSHOT_ENTRIES, IndexManager, open_milvus_client
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.membership import ClusterMembership
from app.storage.tables import collection_deletion, collections, embeddings, texts
from index.milvus_client import MilvusAddress, MilvusClient
from tests.index.deadline import shorten_timeouts, wait_longer_until
from tests.index.proxy import Proxy
from tests.support.makers import SPACE, restore_log, save_log
from tests.support.postgresql import PostgresqlServer, find_binaries
from tests.support.servers import wait_until

WAIT = 20.0
PLENTY = 1 << 30
EAST, NORTH = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)

Make = Callable[..., IndexManager]


def put(database: Database, id: str, vector: tuple[float, ...], name: str = "default") -> tuple[int, int]:
    """A text with its vector; returns its key and its number in the log."""

    def work(c: Any) -> tuple[int, int]:
        embeddings.save_space(c, SPACE)
        collection = collections.get(c, name)
        assert collection is not None
        collections.assign_space(c, collection.label, SPACE.fingerprint)
        row = texts.put(c, name, id, id, {})
        packed = np.array(vector, "<f4").tobytes()
        return row.key, embeddings.add(c, collection.label, SPACE.fingerprint, "texts", row.key, packed)

    return database.write(work)


def fill(database: Database, count: int = MIN_SNAPSHOT_ENTRIES) -> None:
    """So many texts that a snapshot is worth it."""

    def work(c: Any) -> None:
        embeddings.save_space(c, SPACE)
        packed = np.array(NORTH, "<f4").tobytes()
        for key in range(10_000, 10_000 + count):
            embeddings.add(c, "default", SPACE.fingerprint, "texts", key, packed)

    database.write(work)


def create_collection(database: Database, name: str) -> str:
    """A new collection; returns its label."""
    return database.write(lambda c: collections.create(c, name, "")).label


def search_keys(indexes: IndexManager, name: str = "default", vector: tuple[float, ...] = EAST) -> list[int]:
    """The keys of the texts in the index, nearest first."""
    with indexes.use(name, "texts") as index:
        return [int(key) for key in index.search(np.array([vector], np.float32), 50)[1][0] if key >= 0]


def count_open(indexes: IndexManager) -> int:
    return indexes.memory()["open"]


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Iterator[Make]:
    """Makes the indexes of one directory; all are closed in the end."""
    everything: list[IndexManager] = []

    def make(memory: int = PLENTY, milvus: MilvusClient | None = None) -> IndexManager:
        everything.append(IndexManager(database, SPACE, tmp_path / "snapshots", milvus, memory=memory))
        return everything[-1]

    yield make
    for indexes in everything:
        indexes.close()


def test_an_index_is_opened_when_it_is_asked_for_and_holds_what_the_log_holds(database: Database, make: Make) -> None:
    east, _ = put(database, "east", EAST)
    indexes = make()
    assert count_open(indexes) == 0
    assert search_keys(indexes) == [east]
    assert count_open(indexes) == 1


def test_what_is_applied_is_found_whether_the_index_is_open_or_not(database: Database, make: Make) -> None:
    indexes = make()
    keys = set()
    for n in range(20):
        key, seq = put(database, str(n), NORTH if n % 2 else EAST)
        keys.add(key)
        assert indexes.wait_until_applied("default", "texts", seq, WAIT)
        if n >= 10:  # the first ten while it is closed
            assert set(search_keys(indexes)) == keys
    assert not indexes.wait_until_applied("default", "texts", seq + 1, 0.01)


def test_collections_have_indexes_of_their_own(database: Database, make: Make) -> None:
    for name in ("a", "b"):
        create_collection(database, name)
    one, _ = put(database, "t", EAST, "a")
    other, _ = put(database, "t", NORTH, "b")
    indexes = make()
    assert (search_keys(indexes, "a"), search_keys(indexes, "b"), search_keys(indexes)) == ([one], [other], [])
    later, seq = put(database, "u", EAST, "b")
    assert indexes.wait_until_applied("b", "texts", seq, WAIT)
    assert (search_keys(indexes, "a"), search_keys(indexes, "b")) == ([one], [later, other])


def test_what_is_not_there_is_not_found(make: Make) -> None:
    indexes = make()
    with pytest.raises(NotFound), indexes.use("other", "images"):
        pass
    with pytest.raises(NotFound):
        indexes.wait_until_applied("other", "images", 1, 0)
    with pytest.raises(NotFound):
        indexes.stats("other")


def test_statistics_say_size_and_lag_of_open_ones_and_of_closed_ones(database: Database, make: Make) -> None:
    _, seq = put(database, "east", EAST)
    indexes = make()
    nothing = {"kind": "closed", "ntotal": 0, "applied_seq": 0, "lag": 0}
    closed = {"kind": "closed", "ntotal": 1, "applied_seq": seq, "lag": 0}
    assert indexes.stats("default") == {"images": nothing, "texts": closed}
    search_keys(indexes)
    small: dict[str, Any] = {"base": 0, "tail": 1, "tombstones": 0, "building": False, "effort": 0, "efforts": {}}
    small |= dict.fromkeys(("built_seq", "built_at", "build_error", "probes", "rerank"))
    assert indexes.stats("default") == {"images": nothing, "texts": {**closed, "kind": "exact", **small}}
    assert indexes.memory()["bytes"] > OVERHEAD


def test_closing_saves_ends_every_thread_and_says_that_nothing_follows(
    database: Database, make: Make, tmp_path: Path
) -> None:
    east, _ = put(database, "east", EAST)
    fill(database)
    before = threading.active_count()
    indexes = make()
    search_keys(indexes)
    assert indexes.faults() == []
    indexes.close()
    assert threading.active_count() == before
    assert indexes.faults() == ["the indexes have stopped following"]
    with pytest.raises(Overloaded, match="stopping"):
        search_keys(indexes)
    assert (tmp_path / "snapshots" / "default" / "texts" / "CURRENT").is_file()
    assert search_keys(make())[0] == east


def test_a_damaged_snapshot_is_rebuilt_from_the_log(
    database: Database, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    east, _ = put(database, "east", EAST)
    fill(database)
    first = make()
    search_keys(first)
    first.close()
    (tmp_path / "snapshots" / "default" / "texts" / "CURRENT").write_bytes(b"{}")
    assert search_keys(make())[0] == east
    assert "snapshot of default/texts not used" in caplog.text


def test_the_settings_name_a_milvus_and_a_wrong_name_is_one_line() -> None:
    assert open_milvus_client("local", "") is None
    with pytest.raises(StartupError, match=r"--index \(SIGHTLINE_INDEX\): 'faiss' is neither local") as raised:
        open_milvus_client("faiss", "")
    assert "\n" not in raised.value.detail


def test_indexes_in_a_milvus_hold_what_the_log_holds_and_are_found_there_again(
    database: Database, tmp_path: Path, lite: MilvusClient
) -> None:
    east, seq = put(database, "east", EAST)
    for _ in range(2):
        indexes = IndexManager(database, SPACE, tmp_path / "snapshots", lite)
        indexes.open("default")
        assert search_keys(indexes)[0] == east
        assert indexes.stats("default")["texts"] == {
            "kind": "milvus", "ntotal": 1, "applied_seq": seq, "lag": 0, "ghosts": 0
        }  # fmt: skip
        indexes.close()
    assert not (tmp_path / "snapshots").exists()


def test_a_collection_moves_to_a_milvus_and_back_by_its_log_alone(
    database: Database, tmp_path: Path, lite: MilvusClient
) -> None:
    east, _ = put(database, "east", EAST)
    north = 0
    for n, client in enumerate((None, lite, None, lite)):
        indexes = IndexManager(database, SPACE, tmp_path / "snapshots", client)
        indexes.open("default")
        assert search_keys(indexes)[0] == east
        north, seq = put(database, f"north{n}", NORTH)
        assert indexes.wait_until_applied("default", "texts", seq, WAIT)
        with indexes.use("default", "texts") as index:
            assert index.ntotal == n + 2
            assert north in index.search(np.array([NORTH], np.float32), 10)[1][0]
        indexes.close()


def test_while_milvus_is_away_every_search_says_so_and_nothing_counts_as_applied(
    database: Database, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_timeouts(monkeypatch)
    client = MilvusClient(MilvusAddress(f"http://127.0.0.1:{proxy.port}", index_type="FLAT"))
    indexes = IndexManager(database, SPACE, tmp_path / "snapshots", client)
    proxy.mode = "silence"
    with pytest.raises(Overloaded, match="does not answer"):
        indexes.open("default")
    proxy.mode = "pass"
    wait_longer_until(lambda: can_be_opened(indexes))
    east, seq = put(database, "east", EAST)
    wait_longer_until(lambda: indexes.wait_until_applied("default", "texts", seq, WAIT))  # at once False after a fault
    proxy.mode = "reset"
    _, seq = put(database, "north", NORTH)
    wait_longer_until(lambda: len(indexes.remote_faults()) == 2)
    assert indexes.remote_faults()[0].startswith("the index of images: Milvus at 127.0.0.1")
    assert indexes.faults() == []
    with pytest.raises(Overloaded):
        search_keys(indexes)
    assert not indexes.wait_until_applied("default", "texts", seq, 1000.0)  # which is not waited for
    proxy.mode = "pass"
    wait_longer_until(lambda: not indexes.remote_faults() and indexes.wait_until_applied("default", "texts", seq, WAIT))
    assert search_keys(indexes)[0] == east
    indexes.close()
    client.close()


def can_be_opened(indexes: IndexManager) -> bool:
    try:
        indexes.open("default")
    except Overloaded:
        return False
    return True


def test_past_the_memory_bound_the_least_recently_used_are_closed(database: Database, make: Make) -> None:
    names = [f"c{n}" for n in range(6)]
    for name in names:
        create_collection(database, name)
    keys = {name: put(database, name, EAST, name)[0] for name in names}
    indexes = make(memory=4 * OVERHEAD)  # room for three with what they hold
    for name in names:
        assert search_keys(indexes, name) == [keys[name]]
    wait_until(lambda: count_open(indexes) <= 3, WAIT)
    kinds = {name: indexes.stats(name)["texts"]["kind"] for name in names}
    assert [name for name in names if kinds[name] == "exact"] == names[6 - count_open(indexes) :]
    assert search_keys(indexes, "c0") == [keys["c0"]]
    wait_until(lambda: count_open(indexes) <= 3, WAIT)


def test_a_large_one_is_saved_when_it_is_closed_for_memory_and_a_small_one_is_not(
    database: Database, make: Make, tmp_path: Path
) -> None:
    fill(database)
    label = create_collection(database, "small")
    put(database, "east", EAST, "small")
    indexes = make(memory=0)
    for _ in range(2):
        with indexes.use("default", "texts") as index:
            assert index.ntotal == MIN_SNAPSHOT_ENTRIES
        assert len(search_keys(indexes, "small")) == 1
    wait_until((tmp_path / "snapshots" / "default" / "texts" / "CURRENT").is_file, WAIT)
    assert not (tmp_path / "snapshots" / label).exists()


def test_an_index_in_use_is_not_closed_for_memory(database: Database, make: Make) -> None:
    for name in ("a", "b"):
        create_collection(database, name)
        put(database, name, EAST, name)
    indexes = make(memory=0)
    with indexes.use("a", "texts") as index:
        search_keys(indexes, "b")
        time.sleep(0.05)  # the keeper has been woken by the opening of b
        assert index.ntotal == 1
    search_keys(indexes, "b")
    wait_until(lambda: count_open(indexes) == 1, WAIT)


def test_searches_in_threads_are_right_while_indexes_are_opened_filled_and_closed(
    database: Database, make: Make
) -> None:
    names = [f"c{n}" for n in range(12)]
    for name in names:
        create_collection(database, name)
    kept: dict[str, set[int]] = {name: set() for name in names}
    indexes = make(memory=4 * OVERHEAD)
    deadline = time.monotonic() + 1.5
    done = [0] * 4

    def work(seed: int) -> None:
        chance = np.random.default_rng(seed)
        rounds = 0
        while time.monotonic() < deadline or min(done) < 10:
            name = names[chance.integers(len(names))]
            before = set(kept[name])
            if seed == 0:  # one writes
                key, seq = put(database, str(rounds), EAST, name)
                assert indexes.wait_until_applied(name, "texts", seq, WAIT)
                before.add(key)
                kept[name] = before
            with indexes.use(name, "texts") as index:
                keys = index.search(np.array([EAST], np.float32), index.ntotal)[1][0]
                assert before <= set(keys.tolist())
            rounds += 1
            done[seed] = rounds

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert indexes.faults() == []


def test_a_slow_opening_holds_up_no_one_else(database: Database, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    create_collection(database, "slow")
    key, _ = put(database, "east", EAST, "slow")
    indexes = make()
    search_keys(indexes)
    going_on, begun = threading.Event(), threading.Event()
    open_handle = indexes._open_handle

    def slowly(key: Any) -> Any:
        begun.set()
        assert going_on.wait(WAIT)
        return open_handle(key)

    monkeypatch.setattr(indexes, "_open_handle", slowly)
    with ThreadPoolExecutor(MAX_WAITERS + 2) as pool:
        first = pool.submit(search_keys, indexes, "slow")
        assert begun.wait(WAIT)
        others = [pool.submit(search_keys, indexes, "slow") for _ in range(MAX_WAITERS)]
        wait_until(lambda: sum(indexes._busy.values()) == MAX_WAITERS, WAIT)
        with pytest.raises(Overloaded, match="is being opened"):
            search_keys(indexes, "slow")
        assert search_keys(indexes) == []
        assert not indexes.wait_until_applied("slow", "texts", 1, 0.01)
        going_on.set()
        assert [one.result(WAIT) for one in (first, *others)] == [[key]] * (MAX_WAITERS + 1)


def test_a_dropped_collection_is_closed_without_a_trace_and_opened_no_more(
    database: Database, make: Make, tmp_path: Path
) -> None:
    label = create_collection(database, "a")
    put(database, "east", EAST, "a")
    indexes = make()
    with ThreadPoolExecutor(1) as pool:
        with indexes.use("a", "texts") as index:
            database.write(lambda c: collection_deletion.begin(c, "a"))
            forgetting = pool.submit(indexes.drop, label)
            with pytest.raises(NotFound):
                search_keys(indexes, "a")
            assert index.ntotal == 1  # whoever has it may go on
            assert not forgetting.done()
        forgetting.result(WAIT)
    assert count_open(indexes) == 0
    assert not (tmp_path / "snapshots" / label).exists()
    with pytest.raises(NotFound):
        indexes._acquire((label, "texts"))
    again = create_collection(database, "a")
    assert again != label
    assert search_keys(indexes, "a") == []


def test_of_two_servers_one_feeds_a_milvus_and_the_other_takes_over(
    postgresql: PostgresqlServer, tmp_path: Path, lite: MilvusClient
) -> None:
    with ExitStack() as opened:
        address = opened.enter_context(postgresql.database())
        database = opened.enter_context(closing(open_database(address)))
        servers = []
        for name in ("one", "two"):
            member = opened.enter_context(closing(ClusterMembership(address, "server")))
            member.start()
            indexes = IndexManager(database, SPACE, tmp_path / name, lite, membership=member)
            opened.callback(indexes.close)
            indexes.open("default")
            servers.append((member, indexes))
        (first, one), (second, two) = servers
        duty = f"{FEEDING} default/texts {SPACE.fingerprint}"
        wait_until(lambda: first.leads(duty) or second.leads(duty), WAIT)
        if second.leads(duty):
            (first, one), (second, two) = servers[::-1]
        east, seq = put(database, "east", EAST)
        for indexes in (one, two):
            assert indexes.wait_until_applied("default", "texts", seq, WAIT)
            assert search_keys(indexes)[0] == east
        assert first.leads(duty)
        assert not second.leads(duty)
        one.close()
        first.close()
        north, seq = put(database, "north", NORTH)
        assert two.wait_until_applied("default", "texts", seq, WAIT)
        assert search_keys(two, vector=NORTH)[0] == north
        assert second.leads(duty)


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("where", ["memory", "milvus"])
def test_an_index_is_right_again_after_the_database_has_lost_its_end(
    where: str, is_open: bool, database: Database, make: Make, request: pytest.FixtureRequest
) -> None:
    """What was restored is found, and what has the numbers of what was lost; what was lost is not."""
    client = request.getfixturevalue("lite") if where == "milvus" else None
    fill(database)
    kept, _ = put(database, "kept", EAST)
    saved = save_log(database)
    indexes = make(milvus=client)
    indexes.drop_remote("default")  # of the tests before
    indexes.open("default")
    lost, seq = put(database, "lost", EAST)
    database.write(lambda c: embeddings.remove(c, "texts", kept) and None)
    assert indexes.wait_until_applied("default", "texts", seq + 1, WAIT)
    assert search_keys(indexes)[0] == lost
    if not is_open:
        indexes.close()
    packed = np.array(EAST, "<f4").tobytes()
    new = lost + 1

    def add(c: Any) -> None:
        for key in (20_000, 20_001, new):
            numbers.append(embeddings.add(c, "default", SPACE.fingerprint, "texts", key, packed))

    numbers: list[int] = []
    restore_log(database, saved, add)
    assert numbers[0] == seq
    if not is_open:
        indexes = make(milvus=client)
    wait_until(lambda: search_keys(indexes)[:4] == [kept, new, 20_000, 20_001], WAIT)
    assert lost not in search_keys(indexes)
    assert indexes.background_faults() == []
    indexes.close()
    assert search_keys(make(milvus=client))[:4] == [kept, new, 20_000, 20_001]  # what it saved is of the new log


@pytest.mark.slow
def test_indexes_are_right_again_after_a_postgresql_was_restored(tmp_path: Path) -> None:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with closing(PostgresqlServer()) as server, ExitStack() as stack:
        server.execute("CREATE DATABASE restored")
        database = stack.enter_context(closing(open_database(server.address("restored"))))
        indexes = stack.enter_context(closing(IndexManager(database, SPACE, tmp_path)))
        kept, _ = put(database, "kept", EAST)
        assert search_keys(indexes) == [kept]
        backup = server.folder / "backup"

        def copy_while_stopped(source: Path, target: Path) -> None:
            server.kill()
            shutil.rmtree(target, ignore_errors=True)
            subprocess.run(["cp", "-a", source, target], check=True)
            server.start()

        def change(id: str) -> tuple[int, int]:
            """As soon as the server is found again."""
            found: list[tuple[int, int]] = []

            def try_once() -> bool:
                with suppress(Overloaded):
                    found.append(put(database, id, EAST))
                return bool(found)

            wait_until(try_once, WAIT)
            return found[0]

        copy_while_stopped(server.data, backup)
        lost, seq = change("lost")
        database.write(lambda c: embeddings.remove(c, "texts", kept) and None)
        assert indexes.wait_until_applied("default", "texts", seq + 1, WAIT)
        assert search_keys(indexes) == [lost]
        before = database.read(lambda c: c.open_row_cache())  # type: ignore[attr-defined]
        copy_while_stopped(backup, server.data)
        new, again = change("new")
        assert again == seq  # the numbers are given again
        change("newer")  # as many transactions as were lost
        wait_until(lambda: kept in search_keys(indexes), WAIT)
        assert search_keys(indexes)[:2] == [kept, new]
        assert database.read(lambda c: c.open_row_cache()) is not before  # type: ignore[attr-defined]
