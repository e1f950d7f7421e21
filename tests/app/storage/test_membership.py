"""Members and leaders on a real PostgreSQL; what other processes do is done by processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from app.core.errors import Overloaded
from app.storage.membership import SINGLE_SERVER, ClusterMembership, Duty
from tests.support.postgresql import PostgresqlServer
from tests.support.servers import wait_until

WAIT = 20.0
OTHER = """
import sys, time
from app.storage.membership import ClusterMembership, Duty
ClusterMembership(sys.argv[1], "server", list(Duty)).start()
time.sleep(600)
"""


@pytest.fixture
def address(postgresql: PostgresqlServer) -> Iterator[str]:
    with postgresql.empty_database() as address:
        yield address


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def join(opened: ExitStack, address: str, kind: str = "server", *duties: Duty) -> ClusterMembership:
    member = ClusterMembership(address, kind, duties)
    opened.callback(member.close)
    member.start()
    wait_until(lambda: bool(member.list_members()) if member._session else False, WAIT)
    return member


def test_one_machine_does_all_of_the_work() -> None:
    step = SINGLE_SERVER.only_leader(Duty.GARBAGE, lambda: None)
    assert (SINGLE_SERVER.leads(Duty.GARBAGE), SINGLE_SERVER.try_lead("x"), step()) == (True, True, None)
    SINGLE_SERVER.start()
    SINGLE_SERVER.release("x")
    SINGLE_SERVER.close()
    assert (SINGLE_SERVER.list_members(), SINGLE_SERVER.count_alive("server"), SINGLE_SERVER.fault) == ([], 0, None)


def test_a_duty_has_one_leader_and_passes_on_when_it_leaves(opened: ExitStack, address: str) -> None:
    first = join(opened, address, "server", Duty.GARBAGE, Duty.TASKS)
    wait_until(lambda: first.leads(Duty.GARBAGE), WAIT)
    second = join(opened, address, "server", Duty.GARBAGE)
    worker = join(opened, address, "worker")
    done: list[str] = []
    steps = [
        one.only_leader(Duty.GARBAGE, lambda: done.append("done"), lambda: done.append("not mine"))
        for one in (first, second)
    ]
    assert [step() for step in steps] == [1.0, 1.0]  # an idle leader looks for what other servers have left it
    assert done == ["done", "not mine"]
    assert not second.leads(Duty.TASKS)
    members = worker.list_members()
    assert [(one.kind, one.duties) for one in members if one.duties] == [("server", (Duty.GARBAGE, Duty.TASKS))]
    assert sorted(one.kind for one in members) == ["server", "server", "worker"]
    wait_until(lambda: second.servers == 2, WAIT)
    first.close()
    wait_until(lambda: second.leads(Duty.GARBAGE), WAIT)
    assert not first.leads(Duty.GARBAGE)
    assert worker.count_alive("server") == 1


def test_the_work_of_a_name_is_taken_and_given_back(opened: ExitStack, address: str) -> None:
    one, two = join(opened, address), join(opened, address)
    wait_until(lambda: one.try_lead("milvus images"), WAIT)
    assert not two.try_lead("milvus images")
    one.release("milvus images")
    wait_until(lambda: two.try_lead("milvus images"), WAIT)
    assert not one.leads("milvus images")


def test_a_killed_leader_is_followed_at_once(opened: ExitStack, address: str) -> None:
    other = subprocess.Popen([sys.executable, "-c", OTHER, address])
    opened.callback(other.wait)
    opened.callback(other.kill)
    watcher = join(opened, address, "worker")
    wait_until(lambda: any(one.pid == other.pid and one.duties for one in watcher.list_members()), 60)
    member = join(opened, address, "server", Duty.WEBHOOKS)
    time.sleep(1.5)
    assert not member.leads(Duty.WEBHOOKS)
    other.kill()
    wait_until(lambda: member.leads(Duty.WEBHOOKS), WAIT)


def test_a_member_joins_again_when_the_database_is_back(
    opened: ExitStack, address: str, postgresql: PostgresqlServer
) -> None:
    member = join(opened, address, "server", Duty.JOBS)
    wait_until(lambda: member.leads(Duty.JOBS), WAIT)
    postgresql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'sightline %'"
    )
    wait_until(lambda: member.fault is not None or member.leads(Duty.JOBS), WAIT)
    wait_until(lambda: member.leads(Duty.JOBS) and member.fault is None, WAIT)


def test_a_database_that_is_away_is_told() -> None:
    member = ClusterMembership("postgresql://nobody:secret@127.0.0.1:1/none", "server", [Duty.JOBS])
    with pytest.raises(Overloaded):
        member.list_members()
    member.start()
    wait_until(lambda: member.fault is not None, WAIT)
    assert "secret" not in str(member.fault)
    assert not member.leads(Duty.JOBS)
    member.close()
