"""Milvus: what an address may be, and what becomes of every fault of a network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index import milvus_client as module
from index.errors import IndexClosed, RemoteEmptied, RemoteUnavailable
from index.milvus import MilvusIndex
from index.milvus_client import MilvusAddress, MilvusClient
from tests.index.deadline import wait_longer_until
from tests.index.proxy import Proxy


@pytest.mark.parametrize(
    ("text", "uri", "database", "layout"),
    [
        ("milvus://db.example", "http://db.example:19530", "", "IVF_FLAT"),
        ("milvus://db.example:9/shop", "http://db.example:9", "shop", "IVF_FLAT"),
        ("milvus://[::1]:9", "http://[::1]:9", "", "IVF_FLAT"),
        ("milvus+tls://db.example/?index=FLAT", "https://db.example:19530", "", "FLAT"),
        ("milvus:/data/file.db", "/data/file.db", "", "FLAT"),
        ("milvus:/data/file.db?index=IVF_FLAT", "/data/file.db", "", "IVF_FLAT"),
        ("milvus:file.db", str(Path("file.db").absolute()), "", "FLAT"),
    ],
)
def test_an_address_says_where_and_how(text: str, uri: str, database: str, layout: str) -> None:
    address = MilvusAddress.parse(text)
    assert (address.uri, address.database, address.index_type) == (uri, database, layout)
    assert address.is_lite == uri.endswith(".db")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("faiss", "neither local nor milvus://"),
        ("http://db.example", "neither local nor milvus://"),
        ("milvus:file.sqlite", "ends with .db"),
        ("milvus://", "not of the form"),
        ("milvus://db.example/a/b", "not of the form"),
        ("milvus://db.example:port", "address: Port"),
        ("milvus://db.example:99999", "address: Port"),
        ("milvus://me:secret@db.example", "SIGHTLINE_INDEX_TOKEN"),
        ("milvus://db.example?index=HNSW", "FLAT, IVF_FLAT"),
        ("milvus://db.example?timeout=3", "FLAT, IVF_FLAT"),
    ],
)
def test_an_address_of_another_form_is_refused_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as raised:
        MilvusAddress.parse(text)
    assert "secret" not in str(raised.value)


def test_a_token_is_never_shown() -> None:
    address = MilvusAddress.parse("milvus://db.example", "root:secret")
    assert address.token == "root:secret"
    assert "secret" not in repr(address)
    assert "secret" not in MilvusClient(address).name


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pymilvus is not installed: pip install 'sightline-search\[milvus\]'"):
        MilvusClient(MilvusAddress.parse("milvus://db.example"))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.4)


@pytest.fixture
def proxied_client(proxy: Proxy, short: None) -> Iterator[MilvusClient]:
    client = MilvusClient(MilvusAddress(f"http://127.0.0.1:{proxy.port}", index_type="FLAT"))
    yield client
    client.close()


def ask(client: MilvusClient, seconds: float = 0.4) -> object:
    return client.call("list_collections", seconds)


def test_a_collection_that_is_not_there_is_said_to_be_gone_and_is_no_outage(proxied_client: MilvusClient) -> None:
    for _ in range(5):
        with pytest.raises(RemoteEmptied):
            proxied_client.call("search", 5, collection_name="nothing", data=[[1.0]], limit=1)
    assert not proxied_client.is_away


def test_a_refusal_is_an_answer_and_no_outage(
    proxied_client: MilvusClient, milvus: Callable[[int], MilvusIndex]
) -> None:
    name = milvus(4).collection.name
    for _ in range(5):
        with pytest.raises(RemoteUnavailable, match="refuses"):
            proxied_client.call("query", 5, collection_name=name, filter="id in {")
    assert not proxied_client.is_away


def test_a_slow_milvus_is_waited_for(proxied_client: MilvusClient, proxy: Proxy) -> None:
    ask(proxied_client, 5)
    proxy.mode, proxy.delay = "delay", 0.05
    ask(proxied_client, 5)
    assert not proxied_client.is_away
    assert proxy.connections == 1


@pytest.mark.parametrize("mode", ["silence", "reset"])
def test_one_that_does_not_answer_is_given_up_at_the_deadline_then_at_once(
    proxied_client: MilvusClient, proxy: Proxy, mode: str
) -> None:
    ask(proxied_client, 5)
    proxy.mode = mode
    began = time.monotonic()
    while not proxied_client.is_away:
        with pytest.raises(RemoteUnavailable, match="does not answer"):
            ask(proxied_client)
    assert time.monotonic() - began < 20  # hung for ever is what is meant, not slow
    with pytest.raises(RemoteUnavailable, match="next try"):
        ask(proxied_client)
    epoch = proxied_client.epoch
    proxy.mode = "pass"
    wait_longer_until(lambda: answers(proxied_client))
    assert not proxied_client.is_away
    assert proxied_client.epoch > epoch


@pytest.mark.parametrize("mode", ["silence", "reset"])
def test_one_that_is_away_from_the_start_is_found_when_it_comes(
    proxied_client: MilvusClient, proxy: Proxy, mode: str
) -> None:
    proxy.mode = mode
    for _ in range(2):
        with pytest.raises(RemoteUnavailable):
            ask(proxied_client)
    assert (proxied_client.is_away, proxied_client.epoch) == (True, 0)
    proxy.mode = "pass"
    wait_longer_until(lambda: answers(proxied_client))
    assert proxied_client.epoch == 1


def test_many_callers_at_once_do_not_wait_one_after_the_other(proxied_client: MilvusClient, proxy: Proxy) -> None:
    proxy.mode = "silence"
    threads = [threading.Thread(target=answers, args=(proxied_client,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_a_closed_milvus_is_not_opened_again(proxied_client: MilvusClient) -> None:
    ask(proxied_client, 5)
    proxied_client.close()
    proxied_client.close()
    with pytest.raises(IndexClosed):
        ask(proxied_client)


def answers(client: MilvusClient) -> bool:
    try:
        ask(client)
    except RemoteUnavailable:
        return False
    return True
