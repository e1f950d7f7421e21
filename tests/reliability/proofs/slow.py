"""Slow clients do not delay others.

2,000 clients send a header byte by byte, 5,000 send nothing (half of them after one answer), 200 send a body byte by
byte, and 100 ask for a large file and do not read it. When the server cuts a client off, the client connects again at
once. Meanwhile a well-behaved client searches five times a second, each time on a new connection.

Failing: the server answers fewer than 99 of 100 of these searches within 10 s; it does not cut slow clients off; it
needs 300 MiB more memory.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.watched import Watch, port_of, probe, start_crowd
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(12, "slow", "Slow clients cannot block good ones: a header has 10 s, a body 1 KiB/s, silence 5 s.")
PATH = "/v1/search?q=red"
PROBE = 0.99
BESIDE = 300  # MiB that the server may take beside what it has


def run(scale: Scale) -> Outcome:
    """Slow clients of every kind at once, and a well-behaved one."""
    share = scale.pick(10, 1)
    kinds = {"header": 2000, "silent": 2500, "idle": 2500, "body": 200, "unread": 100}
    kinds = {kind: count // share for kind, count in kinds.items()}
    seconds = scale.pick(15.0, 60.0)
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data") as server:
        large = server.upload(picture() + os.urandom(24 << 20), wait=30).json()["id"]
        port = port_of(server)
        before = probe(port, PATH, 4)
        order = {"port": port, "kinds": kinds, "seconds": seconds, "ramp": 5, "large": f"/v1/images/{large}/file"}
        with Watch(server.process.pid) as watch, start_crowd(order) as telling:
            during = probe(port, PATH, seconds)
            told = telling.result(120)
        after = probe(port, PATH, 2)
        alive = server.process.poll() is None
    cut = {
        kind: sum(told.get(f"{kind} {how}", 0) for how in ("408", "closed", "503"))
        for kind in ("header", "silent", "idle")
    }
    held = alive and during.share >= PROBE and after.share == 1 and watch.more <= BESIDE and all(cut.values())
    others = f" ({', '.join(sorted(set(during.others)))})" if during.others else ""
    p50, p95, usual = (each * 1000 for each in (during.quantile(0.5), during.quantile(0.95), before.quantile(0.95)))
    figure = (
        f"{sum(kinds.values()):,} slow clients for {seconds:.0f} s, {sum(cut.values()):,} cut off: {during.share:.1%}"
        f" of {during.asked} searches beside them answered{others}, p50 {p50:.0f} ms, p95 {p95:.0f} ms (without them"
        f" {usual:.0f} ms); memory +{watch.more} MiB"
    )
    return Outcome(figure, held)
