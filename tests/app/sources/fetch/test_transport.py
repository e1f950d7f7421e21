"""Names are resolved once, every answer is checked, and only a checked address is dialled."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpcore
import pytest

from app.core.errors import UrlNotAllowed
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.transport import Deadline, GuardedBackend, Resolve, resolve
from tests.support.web_servers import Recorder


@pytest.fixture
def lookups() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def connect(lookups: ThreadPoolExecutor, resolve: Resolve, network: Recorder, seconds: float = 5.0) -> None:
    backend = GuardedBackend(AddressPolicy(), Deadline(seconds), lookups, resolve, network)
    backend.connect_tcp("name.example", 80)


def test_the_address_that_was_checked_is_the_one_that_is_dialled(lookups: ThreadPoolExecutor) -> None:
    network = Recorder()
    with pytest.raises(httpcore.ConnectError):
        connect(lookups, lambda host, port: ["93.184.216.34", "1.1.1.1"], network)
    assert network.dialled == [("93.184.216.34", 80), ("1.1.1.1", 80)]  # the next one, as the first refused


@pytest.mark.parametrize("answer", [["10.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::1", "1.1.1.1"], ["not an address"], []])
def test_one_bad_address_among_the_answers_refuses_them_all(answer: list[str], lookups: ThreadPoolExecutor) -> None:
    network = Recorder()
    with pytest.raises(UrlNotAllowed):
        connect(lookups, lambda host, port: answer, network)
    assert network.dialled == []


def test_a_name_that_changes_its_mind_never_leads_inside(lookups: ThreadPoolExecutor) -> None:
    network = Recorder()
    answers = itertools.cycle([["1.1.1.1"], ["127.0.0.1"], ["1.1.1.1", "169.254.169.254"]])
    for _ in range(100):
        with pytest.raises((UrlNotAllowed, httpcore.ConnectError)):
            connect(lookups, lambda host, port: next(answers), network)
    assert set(network.dialled) == {("1.1.1.1", 80)}


def test_a_slow_name_server_is_not_waited_for(lookups: ThreadPoolExecutor) -> None:
    def slow(host: str, port: int) -> list[str]:
        time.sleep(0.6)
        return ["1.1.1.1"]

    network = Recorder()
    with pytest.raises(httpcore.TimeoutException):
        connect(lookups, slow, network, seconds=0.1)
    assert network.dialled == []


def test_a_name_that_is_not_there_is_a_failed_connection(lookups: ThreadPoolExecutor) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    with pytest.raises(httpcore.ConnectError):
        connect(lookups, unknown, Recorder())


def test_who_answers_is_checked_once_more(lookups: ThreadPoolExecutor) -> None:
    class Elsewhere(httpcore.NetworkStream):
        def get_extra_info(self, info: str) -> object:
            return ("127.0.0.1", 80)

        def close(self) -> None:
            closed.append(True)

    class Diverted(Recorder):
        def connect_tcp(self, *args: object, **kwargs: object) -> httpcore.NetworkStream:
            return Elsewhere()

    closed: list[bool] = []
    with pytest.raises(UrlNotAllowed):
        connect(lookups, lambda host, port: ["1.1.1.1"], Diverted())
    assert closed == [True]


def test_sockets_of_this_machine_are_never_opened(lookups: ThreadPoolExecutor) -> None:
    backend = GuardedBackend(AddressPolicy(), Deadline(1), lookups)
    with pytest.raises(UrlNotAllowed):
        backend.connect_unix_socket("/run/x.sock")


def test_the_machines_resolver_gives_each_address_once() -> None:
    assert resolve("127.0.0.1", 80) == ["127.0.0.1"]
