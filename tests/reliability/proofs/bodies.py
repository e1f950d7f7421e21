"""What one caller sends cannot take memory, disk or processor from the others.

While a holder of a key searches ten times a second, another process sends: for a minute the costliest bodies that may
be sent without a key, by 8 clients; for a minute those of a key for searches, by 64 clients; and 1,500 half-sent bodies
of the largest size, by keys for searches and for uploads. Another client asks `/livez` ten times a second.

Failing: a search or `/livez` is not answered; the p95 of the searches is more than twice (without a key) or three times
(with one) that of searches before, and above 50 ms; the server needs 100 MiB (without a key) or 300 MiB more memory;
half-sent bodies leave more on the disk than one caller may have. The short form grants the searches 250 ms.
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
from pathlib import Path

from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.database import Database
from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.watched import Probe, Watch, port_of, start_crowd
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(27, "bodies", "What one caller sends takes neither memory nor disk nor processor from the others.")
ANONYMOUS = ["session-lists", "session-names", "session-wrong", "session-large"]
SEARCHES = ["groups", "names", "many-groups", "numbers", "many-numbers", "small", "picture", "percent", "form"]
COSTLY = "tests.reliability.costly"
MIB = 1 << 20
NOISE = 0.05  # seconds: a p95 below is as good as none on a machine that others use


def run(scale: Scale) -> Outcome:
    """Each crowd in its turn, beside the same searches."""
    seconds, halves = scale.pick(4, 60), scale.pick(200, 1_500)
    floor = scale.pick(0.25, NOISE)
    figures, wrong = [], []
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data", drain_seconds=2) as server:
        server.upload(picture())
        keys = make_keys(server)
        port, pid = port_of(server), server.process.pid
        with ask_on(port, keys["holder"]) as before:
            time.sleep(max(4, seconds / 4))
        crowds: list[tuple[str, dict[str, object], int, int]] = [
            ("8 without a key", {"bodies": ANONYMOUS, "clients": 8, "key": ""}, 2, 100),
            ("64 with a key", {"bodies": SEARCHES, "clients": 64, "key": keys["guest"]}, 3, 300),
            (f"{halves:,} half searches", {"half": "picture", "clients": halves, "key": keys["guest"]}, 3, 300),
            (f"{halves:,} half forms", {"half": "form", "clients": halves, "key": keys["guest"]}, 3, 300),
            (f"{halves:,} half uploads", {"half": "bulk", "clients": halves, "key": keys["loader"]}, 3, 300),
        ]
        for name, order, times, most in crowds:
            order |= {"port": port, "seconds": seconds if "bodies" in order else min(seconds, 20)}
            with Watch(pid) as watch, start_crowd(order, COSTLY) as telling, ask_on(port, keys["holder"]) as beside:
                disk = 0
                while not telling.done():
                    disk = max(disk, count_bytes(server.data_dir))
                    time.sleep(0.2)
                told = telling.result()
            slow = beside[0].quantile(0.95) > max(times * before[0].quantile(0.95), floor)
            held = all(one.share == 1 for one in beside) and not slow and watch.more <= most and disk < 16 << 30
            wrong += [] if held and told else [name]
            figures.append(
                f"{name}: {', '.join(f'{n:,} × {status}' for status, n in sorted(told.items()))}; searches p50"
                f" {beside[0].quantile(0.5) * 1000:.1f}, p95 {beside[0].quantile(0.95) * 1000:.1f} ms, /livez at most"
                f" {beside[1].quantile(1) * 1000:.0f} ms, memory +{watch.more} MiB, disk {disk // MIB} MiB"
            )
        quiet = "Traceback" not in server.output()
        alive = server.process.poll() is None
    alone = f"alone p50 {before[0].quantile(0.5) * 1000:.1f}, p95 {before[0].quantile(0.95) * 1000:.1f} ms"
    return Outcome("; ".join([alone, *figures]), not wrong and quiet and alive)


def make_keys(server: RunningServer) -> dict[str, str]:
    """Keys of three callers."""
    database = Database(server.data_dir / "sightline.db")
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
