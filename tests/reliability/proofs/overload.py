"""The server refuses excess queries at once.

Another process sends 10,000 searches for different words at the same moment, each on its own connection, while a client
asks `/livez` ten times a second.

Failing: a query gets no answer, or one other than 200, 429, or 503 with `Retry-After`; a `/livez` gets no answer; a new
search gets no answer within 5 s of the last query; the server needs 300 MiB more memory.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.watched import Probe, Watch, ask, port_of, probe, start_crowd
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(11, "overload", "Overload is refused at once with a time to come back, not suffered.")
RECOVERY = 5.0
BESIDE = 300  # MiB


def run(scale: Scale) -> Outcome:
    """A burst of queries, and the searches after it."""
    count = scale.pick(1_000, 10_000)
    # Where crowd and server share two processors, the crowd itself needs longer than 5 s to ask.
    patience: dict[str, Any] = {"idle_seconds": 60.0, "header_seconds": 60.0}
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data", **patience) as server:
        server.upload(picture())
        port = port_of(server)
        live = Probe()
        with Watch(server.process.pid) as watch, start_crowd({"port": port, "queries": count}) as telling:
            while not telling.done():
                status, took = ask(port, "/livez", 60)
                live.asked += 1
                (live.served.append(took) if status == "200" else live.others.append(status))
                time.sleep(0.1)
            told: dict[str, list[float]] = telling.result()
        began = time.monotonic()
        while ask(port, "/v1/search?q=blue", 60)[0] != "200" and time.monotonic() < began + 60:
            time.sleep(0.05)
        back = time.monotonic() - began
        after = probe(port, "/v1/search?q=green", 2)
        alive = server.process.poll() is None
    counts = {status: len(times) for status, times in told.items()}
    answered = sum(counts.get(status, 0) for status in ("200", "429", "503"))
    good = sorted(told.get("200", [0.0]))
    held = (
        alive
        and answered == count
        and live.share == 1
        and back <= RECOVERY
        and after.share == 1
        and watch.more <= BESIDE
    )
    figure = (
        f"{count:,} at once: {', '.join(f'{n:,} × {status}' for status, n in sorted(counts.items()))}; with hits"
        f" p99 {good[int(0.99 * (len(good) - 1))]:.1f} s; /livez {live.share:.0%} of {live.asked}, slowest"
        f" {live.quantile(1) * 1000:.0f} ms; a search again after {back:.2f} s; memory +{watch.more} MiB"
    )
    return Outcome(figure, held)
