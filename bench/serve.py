"""The whole service with ViT-B/32 over HTTP: pictures in, searches while nothing and while much goes on.

`python -m bench.serve`, under three minutes. The encoder alone is timed before and after, in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.cli.client import Client
from app.encoder.openvino import OpenVinoEncoder, detect_precision
from bench.needs import family, processor_seconds, proportional, resident
from bench.pictures import LARGE, SMALL, photographs
from bench.results import Figures, busy, keep
from bench.servers import Pace, ingest, ours, pace, port_of, queries, running, search, upload
from bench.weights import SIDE, compiled

MANY, FEW = 1000, 200
HELD_BACK = 500  # pictures of the bulk that searches are timed beside
ASKED = 200
CALLERS = 16
ROUNDS = 8
BATCH = 32
MIB = 1 << 20


def main() -> None:
    """Print and keep the figures."""
    began = busy()
    small, large = photographs(MANY, SMALL), photographs(FEW, LARGE)
    before = alone()
    with ours() as (client, pid):
        figures = filled(client, pid, small[:-HELD_BACK], "ingest 640x480, half")
        figures |= searched(port_of(client), "searches")
        figures |= beside(client, small[-HELD_BACK:])
        figures |= remembered(pid)
    with ours() as (client, pid):
        figures |= filled(client, pid, small, "ingest 640x480")
        figures |= filled(client, pid, large, "ingest 12 MP")
    spent = time.process_time()
    figures["encoder alone"] = rate = (before + alone()) / 2
    figures["encoder alone, processor ms a picture"] = (time.process_time() - spent) / (BATCH * (ROUNDS + 2)) * 1000
    figures["ingest 640x480 of the encoder alone"] = figures["ingest 640x480, pictures/s"] / rate
    figures["load before, after"] = max(began, busy())
    keep("serve", figures)


def alone() -> float:
    """Pictures a second of the encoder, at the worker's batch size."""
    encoder = OpenVinoEncoder(compiled(), detect_precision(), bulk=True)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    taken = []
    for turn in range(ROUNDS + 2):
        began = time.perf_counter()
        encoder.encode_images(pixels)
        if turn >= 2:
            taken.append(time.perf_counter() - began)
    return BATCH / statistics.median(taken)


def filled(client: Client, pid: int, paths: Sequence[Path], name: str) -> Figures:
    """A bulk, from its first byte until all are ready; and what it took of the processor, ours and its callers'."""
    before = processor_seconds(pid) + time.process_time()
    rate = ingest(client, paths)
    spent = processor_seconds(pid) + time.process_time() - before
    return {f"{name}, pictures/s": rate, f"{name}, processor ms a picture": spent / len(paths) * 1000}


def searched(port: int, name: str) -> Figures:
    """Distinct queries from one caller and from many."""
    one = pace(port, 1, queries(ASKED), search)
    many = pace(port, CALLERS, queries(ASKED, ASKED), search)
    return told(f"{name}, 1 caller", one) | told(f"{name}, {CALLERS} callers", many)


def told(name: str, measured: Pace) -> Figures:
    """A pace as figures."""
    return {f"{name}, p50 ms": measured.p50, f"{name}, p95 ms": measured.p95, f"{name}, a second": measured.rate}


def beside(client: Client, paths: Sequence[Path]) -> Figures:
    """Searches of one caller before a bulk, and as long as it runs."""
    port, quiet, loaded = port_of(client), Figures(), list[Pace]()
    quiet = told("searches before a bulk", pace(port, 1, queries(100, 2 * ASKED), search))
    jobs = upload(client, paths)
    start = 0
    while running(client, jobs) and start < 180:
        loaded.append(pace(port, 1, queries(20, 2 * ASKED + 100 + start), search))
        start += 20
    p95 = statistics.median(one.p95 for one in loaded)
    worst = max(one.p95 for one in loaded)
    while running(client, jobs):
        time.sleep(0.1)
    return quiet | {
        "searches beside a bulk, p50 ms": statistics.median(one.p50 for one in loaded),
        "searches beside a bulk, p95 ms": p95,
        "searches beside a bulk, worst p95 of 20": worst,
        "searches beside a bulk over before": p95 / quiet["searches before a bulk, p95 ms"],
    }


def remembered(pid: int) -> Figures:
    """Memory with both towers loaded in server and worker: the server as it stands, and all without counting twice."""
    every = sum(proportional(one) for one, _ in family(pid))
    return {"memory of the server, MiB": resident(pid) / MIB, "memory of all processes, MiB": every / MIB}


if __name__ == "__main__":
    main()
