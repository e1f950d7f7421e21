"""A call that strangers may make costs the server little, whatever they send with it."""

from __future__ import annotations

import http.client
import sys
import time

import pytest

from app.api.permissions import ROUTE_SCOPES
from app.core.types import KeyScope
from tests.app.api.guarded import Guarded
from tests.reliability.proofs.roles import fill_path
from tests.reliability.watched import port_of

OPEN_ROUTES = [line for line, scope in ROUTE_SCOPES.items() if scope is KeyScope.OPEN]
TRIES = 3  # of what costs too much: the machine may be busy with something else
CALLS = 10
ROUNDS = 6  # the least counts: other processes of the machine only add
# A call that is refused for want of a key takes 0.4 ms of a processor of a busy machine. What may be called costs 1.3
# to 3 times as much; parsing 1 MiB of JSON would cost a hundred times.
MOST = 5.0
JSON = {"Content-Type": "application/json"}
# What comes with a call, at most as large as an open call takes it.
LISTS = b'{"key":[' + b",".join([b"[]"] * 330) + b"]}"
NAMES = b"{" + b",".join(b'"n%06d":0' % n for n in range(84)) + b"}"
WORDS = b'{"key":"sl_' + b"x" * 180 + b'"}'
MANY = "&".join(f"n{n}={n}" for n in range(300))
COOKIES = {"Cookie": "; ".join(f"n{n}=sl_{n}" for n in range(300))}


def measure_cost(guarded: Guarded, method: str, path: str, body: bytes = b"", **headers: str) -> float:
    """Seconds of the processor, of all threads of the server, that one call takes. Each comes from a new address."""
    pid = guarded.server.process.pid
    clock = (~pid << 3) | 2  # of another process: clock_getcpuclockid(3)
    connection = http.client.HTTPConnection("127.0.0.1", port_of(guarded.server), timeout=60)
    rounds = []
    for _ in range(ROUNDS):
        began = time.clock_gettime(clock)
        for _ in range(CALLS):
            connection.request(method, path, body or None, {"X-Forwarded-For": guarded.address(), **headers})
            answer = connection.getresponse()
            answer.read()
            assert answer.status < 500
        rounds.append((time.clock_gettime(clock) - began) / CALLS)
    connection.close()
    return min(rounds)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what another process has used")
@pytest.mark.parametrize("line", OPEN_ROUTES)
def test_what_strangers_may_call_costs_as_little_as_a_refusal(line: str, guarded: Guarded) -> None:
    method, path = line.split(" ")
    path = fill_path(guarded, path, "default").partition("?")[0]
    token = {"Cookie": f"sightline_{port_of(guarded.server)}={'A' * 43}"}
    sent: dict[str, tuple[str, bytes, dict[str, str]]] = {
        "nothing": (path, b"", {}),
        "many parameters": (f"{path}?{MANY}", b"", {}),
        "many cookies": (path, b"", COOKIES),
        "a wrong session": (path, b"", token),
        "lists": (path, LISTS, JSON),
        "names": (path, NAMES, JSON),
        "a wrong key": (path, WORDS, JSON),
    }
    costs = dict.fromkeys(sent, float("inf"))
    for _ in range(TRIES):
        refusal = measure_cost(guarded, "GET", "/v1/stats")
        for name in [name for name, cost in costs.items() if cost > MOST]:
            to, body, headers = sent[name]
            costs[name] = measure_cost(guarded, method, to, body, **headers) / refusal
    assert max(costs.values()) <= MOST, {name: round(cost, 1) for name, cost in costs.items()}


def test_there_are_calls_that_strangers_may_make() -> None:
    assert "POST /v1/session" in OPEN_ROUTES
