"""What one caller sends cannot take memory, disk or processor from the others.

While a holder of a key searches ten times a second, another process sends: for a minute the costliest bodies that may
be sent without a key, by 8 clients; for a minute those of a key for searches, by 64 clients; for a minute searches that
cost like hundreds (batches, pictures, labels), by 64 clients; and 1,500 half-sent bodies of the largest size, by keys
for searches and for uploads. Another client asks `/livez` ten times a second.

Failing: a search or `/livez` is not answered; the server needs more than 100 MiB (without a key) or 300 MiB more
memory; half-sent bodies leave more on the disk than one caller may have. Failing if it happens to the same crowd twice:
the p95 of the searches is more than twice (without a key), three times (with one) or 25 times (beside costly searches)
that of searches before and after; an answer of `/livez` takes more than 250 ms, and more than twice the slowest without
a crowd.

A p95 without a crowd of less than 5 ms counts as 5 ms: it is a few samples, which one pause of the machine doubles. In
the short form, of forty samples beside other tests, less than 25 ms counts as 25 ms, and `/livez` may take a second.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.watched import Probe, Watch, port_of, start_crowd
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(27, "bodies", "What one caller sends takes neither memory nor disk nor processor from the others.")
ANONYMOUS = ["session-lists", "session-names", "session-wrong", "session-large"]
SEARCHES = ["groups", "names", "many-groups", "numbers", "many-numbers", "small", "picture", "percent", "form"]
COSTLY_SEARCHES = ["batch", "pictures", "words", "labels"]
COSTLY = "tests.reliability.costly"
MIB = 1 << 20
SEARCHES_SLOW, LIVEZ_SLOW = "slow searches", "slow /livez"
SLOW = {SEARCHES_SLOW, LIVEZ_SLOW}  # what a pause of the machine could do as well
MOST_DISK = 16 << 30  # bytes that one caller may have under way


@dataclass(frozen=True, slots=True)
class Crowd:
    """What is sent, and what it may cost: the searches so many times their p95, the server so many MiB."""

    name: str
    order: dict[str, object]
    times: int
    memory: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a crowd."""

    answers: dict[str, int]
    searches: Probe
    livez: Probe
    memory: int
    disk: int

    def list_faults(self, crowd: Crowd, quiet: Quiet) -> list[str]:
        """Which bounds of the promise this passes."""
        bounds = {
            "nothing was sent": bool(self.answers),
            "not all were served": self.searches.share == self.livez.share == 1,
            SEARCHES_SLOW: self.searches.quantile(0.95) <= crowd.times * quiet.p95,
            LIVEZ_SLOW: self.livez.quantile(1) <= quiet.livez,
            "memory": self.memory <= crowd.memory,
            "disk": self.disk < MOST_DISK,
        }
        return [name for name, holds in bounds.items() if not holds]

    def __str__(self) -> str:
        said = ", ".join(f"{n:,} × {status}" for status, n in sorted(self.answers.items()))
        p50, p95, slowest = (1000 * self.searches.quantile(share) for share in (0.5, 0.95, 1))
        return (
            f"{said}; searches p50 {p50:.1f}, p95 {p95:.1f}, at most {slowest:.0f} ms, /livez at most"
            f" {self.livez.quantile(1) * 1000:.0f} ms, memory +{self.memory} MiB, disk {self.disk // MIB} MiB"
        )


@dataclass(frozen=True, slots=True)
class Quiet:
    """Seconds that searches take without a crowd, and that `/livez` may take beside one."""

    p95: float
    livez: float


def run(scale: Scale) -> Outcome:
    """Each crowd in its turn, beside the same searches; a second time those that passed a bound."""
    seconds, halves = scale.pick(4, 60), scale.pick(200, 1_500)
    pause = max(4.0, seconds / 4)
    held = True
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data", drain_seconds=2) as server:
        server.upload(picture())
        keys = make_keys(server)
        crowds = list_crowds(keys, halves)
        alone = [ask_alone(server, keys["holder"], pause)]
        seen = {crowd.name: send_crowd(server, crowd, keys["holder"], seconds) for crowd in crowds}
        alone.append(ask_alone(server, keys["holder"], pause))
        quiet = measure_quiet(alone, scale)
        for crowd in [one for one in crowds if SLOW & set(seen[one.name].list_faults(one, quiet))]:
            held = held and set(seen[crowd.name].list_faults(crowd, quiet)) <= SLOW
            seen[crowd.name] = send_crowd(server, crowd, keys["holder"], seconds)
        is_calm = "Traceback" not in server.output() and server.process.poll() is None
    figures = []
    for crowd in crowds:
        faults = seen[crowd.name].list_faults(crowd, quiet)
        held = held and not faults
        figures.append(f"{crowd.name}: {seen[crowd.name]}" + (f" ({', '.join(faults)})" if faults else ""))
    both = " and ".join(f"{1000 * one[0].quantile(0.95):.1f}" for one in alone)
    return Outcome("; ".join([f"alone p95 {both} ms", *figures]), held and is_calm)


def list_crowds(keys: dict[str, str], halves: int) -> list[Crowd]:
    guest = {"clients": halves, "key": keys["guest"]}
    return [
        Crowd("8 without a key", {"bodies": ANONYMOUS, "clients": 8, "key": ""}, 2, 100),
        Crowd("64 with a key", {"bodies": SEARCHES, "clients": 64, "key": keys["guest"]}, 3, 300),
        Crowd("64 with costly searches", {"bodies": COSTLY_SEARCHES, "clients": 64, "key": keys["guest"]}, 25, 300),
        Crowd(f"{halves:,} half searches", {"half": "picture", **guest}, 3, 300),
        Crowd(f"{halves:,} half forms", {"half": "form", **guest}, 3, 300),
        Crowd(f"{halves:,} half uploads", {"half": "bulk", "clients": halves, "key": keys["loader"]}, 3, 300),
    ]


def send_crowd(server: RunningServer, crowd: Crowd, holder: str, seconds: int) -> Seen:
    """What the server and the holder of a key see of a crowd."""
    port = port_of(server)
    order = crowd.order | {"port": port, "seconds": seconds if "bodies" in crowd.order else min(seconds, 20)}
    with Watch(server.process.pid) as watch, start_crowd(order, COSTLY) as sent, ask_on(port, holder) as probes:
        disk = 0
        while not sent.done():
            disk = max(disk, count_bytes(server.data_dir))
            time.sleep(0.2)
    return Seen(sent.result(), *probes, watch.more, disk)


def ask_alone(server: RunningServer, holder: str, seconds: float) -> tuple[Probe, Probe]:
    with ask_on(port_of(server), holder) as probes:
        time.sleep(seconds)
    return probes


def measure_quiet(alone: list[tuple[Probe, Probe]], scale: Scale) -> Quiet:
    """The slower of the times before and after, but no less than a few samples can tell."""
    p95 = max(searches.quantile(0.95) for searches, _ in alone)
    livez = max(livez.quantile(1) for _, livez in alone)
    return Quiet(max(p95, scale.pick(0.025, 0.005)), max(2 * livez, scale.pick(1.0, 0.25)))


def make_keys(server: RunningServer) -> dict[str, str]:
    """Keys of three callers."""
    database = open_database(server.data_dir / "sightline.db")
    access = ApiKeyService(database)
    scopes = {"holder": KeyScope.SEARCH, "guest": KeyScope.SEARCH, "loader": KeyScope.WRITE}
    keys = {name: access.create(name, scope)[1] for name, scope in scopes.items()}
    database.close()
    return keys


@contextmanager
def ask_on(port: int, key: str) -> Iterator[tuple[Probe, Probe]]:
    """Search and ask `/livez`, each ten times a second on one connection, until the block ends."""
    ended = threading.Event()
    probes = Probe(), Probe()
    searches = [json.dumps({"query": [{"text": f"{word} {n}"}]}) for n in range(40) for word in ("blue", "red")]
    threads = [
        threading.Thread(target=_ask, args=(port, "POST", "/v1/search", searches, key, probes[0], ended)),
        threading.Thread(target=_ask, args=(port, "GET", "/livez", [None], "", probes[1], ended)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield probes
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _ask(
    port: int, method: str, path: str, bodies: list[str] | list[None], key: str, probe: Probe, ended: threading.Event
) -> None:
    headers = {"X-API-Key": key, "Content-Type": "application/json"} if key else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not ended.wait(0.1):
        began = time.monotonic()
        try:
            connection.request(method, path, bodies[probe.asked % len(bodies)], headers)
            answer = connection.getresponse()
            answer.read()
            status = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
            connection.close()
        probe.asked += 1
        if status == "200":
            probe.served.append(time.monotonic() - began)
        else:
            probe.others.append(status)
    connection.close()


def count_bytes(folder: Path) -> int:
    """Bytes of the files below a folder; files and folders that go meanwhile count nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(place, name).stat().st_blocks * 512
    return total
