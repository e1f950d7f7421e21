"""Memory stays flat under a mixed load.

For 30 minutes a client sends uploads, bulks, searches for new words, lists, thumbnails and deletes, some ten requests a
second, so that the number of pictures stays about the same. Every few seconds the proof reads the resident memory of
the server, and of its workers and decode children together. Before that, 30,000 requests of the same kind run without a
pause, because bounded caches (files, folders) fill by requests and not by hours. The first third of the 30 minutes is
warm-up too; the proof fits a line (least squares) to the rest. The cache of query vectors has so low a bound
(`SIGHTLINE_QUERY_CACHE`) that it is full by then.

Failing: a slope of more than 5 MB/h for the server, or 40 MB/h for all processes together. The short form is too short
for a slope; there, more than 30 MB from the first to the last third.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.pictures import COLOURS, picture
from tests.support.processes import descendants
from tests.support.servers import RunningServer

PROMISE = Promise(22, "soak", "Memory is stable.", beside=True)
PACE = 0.1  # seconds between two requests
EVERY = 2.0
KEPT = 300
WARMING = 30_000  # requests
CACHED = 64 << 10  # bytes
MOST, MOST_ALL, MOST_SHORT = 5.0, 40.0, 30.0
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Load:
    """The client's counters, and the pictures it keeps."""

    server: RunningServer
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    ids: list[str] = field(default_factory=list)
    failed: int = 0


@dataclass(slots=True)
class Sample:
    """Megabytes at a second."""

    at: float
    server: float
    together: float


def run(scale: Scale) -> Outcome:
    """30 minutes."""
    seconds = scale.pick(30.0, 1800.0)
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as name, RunningServer(Path(name) / "data", query_cache=CACHED) as server:
        load = Load(server)
        for _ in range(scale.pick(0, WARMING)):
            step(load)
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            step(load)
            if not samples or now - samples[-1].at >= EVERY:
                samples.append(sample(server, now))
            time.sleep(PACE)
    return judge_samples(samples, load, scale)


def judge_samples(samples: list[Sample], load: Load, scale: Scale) -> Outcome:
    """The slopes after the warm-up, and whether they are within the bounds."""
    rest = samples[len(samples) // 3 :]
    hours = np.array([each.at for each in rest]) / 3600
    one, all_ = (float(np.polyfit(hours, np.array(values), 1)[0]) for values in columns(rest))
    last = samples[-1]
    said = f"{next(load.numbers):,} requests in {last.at / 60:.1f} min, {load.failed} failed: "
    if scale is Scale.LONG:
        said += (
            f"server {one:+.1f} MB/h at {last.server:.0f} MB, all processes {all_:+.1f} MB/h at {last.together:.0f} MB"
        )
        return Outcome(said, one <= MOST and all_ <= MOST_ALL and not load.failed)
    third = max(1, len(rest) // 2)
    grown = sum(each.server for each in rest[-third:]) / third - sum(each.server for each in rest[:third]) / third
    return Outcome(f"{said}server {grown:+.1f} MB at {last.server:.0f} MB", grown <= MOST_SHORT and not load.failed)


def columns(samples: list[Sample]) -> tuple[list[float], list[float]]:
    """Memory of the server, and of all together."""
    return [each.server for each in samples], [each.together for each in samples]


def step(load: Load) -> None:
    """Send one request of the mix."""
    n, http = next(load.numbers), load.server.http
    colour = list(COLOURS)[n % len(COLOURS)]
    if n % 50 == 49:
        files = [("files", (f"{m}.png", picture(colour, seed=100 * n + m))) for m in range(10)]
        response = http.post("/v1/images/bulk", files=files)
    elif n % 5 == 0:
        response = load.server.upload(picture(colour, seed=100 * n), wait=0)
        if response.is_success:
            load.ids.append(response.json()["id"])
    elif n % 5 == 1:
        response = http.get("/v1/search", params={"q": f"{colour} word{n}", "k": 20})
    elif n % 5 == 2:
        response = http.post("/v1/search/image", files={"file": ("q.png", picture(colour, seed=n))})
    elif n % 5 == 3:
        response = http.get("/v1/images", params={"limit": 50})
    else:
        response = http.get(f"/v1/images/{load.ids[-1]}/thumbnail")
    load.failed += not response.is_success
    if len(load.ids) > KEPT:
        load.failed += not http.delete(f"/v1/images/{load.ids.pop(0)}").is_success
    if n % 500 == 499:  # those of the bulks, too
        bulks = {"key": "source", "match": {"any": [f"{m}.png" for m in range(10)]}}
        load.failed += not http.post("/v1/images/delete", json={"filter": {"must": [bulks]}}).is_success


def sample(server: RunningServer, at: float) -> Sample:
    """Read the memory of the processes now."""
    own = resident(server.process.pid)
    return Sample(at, own, own + sum(resident(pid) for pid in descendants(server.process.pid)))


def resident(pid: int) -> float:
    """Resident memory of a process in MB; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
    except (OSError, IndexError):
        return 0.0
