"""Measure the service with ViT-B/32 over HTTP: ingest, searches on an idle server, and searches during a bulk.

`python -m bench.serve`, under three minutes. The same run times the encoder alone, before and after.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.cli.client import Client
from app.encoder.openvino import OpenVinoEncoder, detect_precision
from bench.needs import list_processes, processor_seconds, proportional_bytes, resident_bytes
from bench.pictures import LARGE, SMALL, make_photographs
from bench.results import Figures, load_average, save_figures
from bench.servers import Pace, ingest, is_running, make_queries, measure_pace, port_of, run_our_server, search, upload
from bench.weights import SIDE, ensure_compiled

MANY, FEW = 1000, 200
HELD_BACK = 500  # pictures of the bulk during which searches are timed
ASKED = 200
CALLERS = 16
ROUNDS = 8
BATCH = 32
MIB = 1 << 20


def main() -> None:
    began = load_average()
    small, large = make_photographs(MANY, SMALL), make_photographs(FEW, LARGE)
    before = time_encoder()
    with run_our_server() as (client, pid):
        figures = measure_ingest(client, pid, small[:-HELD_BACK], "ingest 640x480, half")
        figures |= measure_searches(port_of(client), "searches")
        figures |= search_beside_bulk(client, small[-HELD_BACK:])
        figures |= measure_memory(pid)
    with run_our_server() as (client, pid):
        figures |= measure_ingest(client, pid, small, "ingest 640x480")
        figures |= measure_ingest(client, pid, large, "ingest 12 MP")
    spent = time.process_time()
    figures["encoder alone"] = rate = (before + time_encoder()) / 2
    figures["encoder alone, processor ms a picture"] = (time.process_time() - spent) / (BATCH * (ROUNDS + 2)) * 1000
    figures["ingest 640x480 of the encoder alone"] = figures["ingest 640x480, pictures/s"] / rate
    figures["load before, after"] = max(began, load_average())
    save_figures("serve", figures)


def time_encoder() -> float:
    """Pictures a second of the encoder at the worker's batch size."""
    encoder = OpenVinoEncoder(ensure_compiled(), detect_precision(), bulk=True)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    taken = []
    for turn in range(ROUNDS + 2):
        began = time.perf_counter()
        encoder.encode_images(pixels)
        if turn >= 2:
            taken.append(time.perf_counter() - began)
    return BATCH / statistics.median(taken)


def measure_ingest(client: Client, pid: int, paths: Sequence[Path], name: str) -> Figures:
    """Time a bulk from its first byte until all are ready; record processor time of the server and of this caller."""
    before = processor_seconds(pid) + time.process_time()
    rate = ingest(client, paths)
    spent = processor_seconds(pid) + time.process_time() - before
    return {f"{name}, pictures/s": rate, f"{name}, processor ms a picture": spent / len(paths) * 1000}


def measure_searches(port: int, name: str) -> Figures:
    """Search distinct queries with one caller and with many."""
    one = measure_pace(port, 1, make_queries(ASKED), search)
    many = measure_pace(port, CALLERS, make_queries(ASKED, ASKED), search)
    return to_figures(f"{name}, 1 caller", one) | to_figures(f"{name}, {CALLERS} callers", many)


def to_figures(name: str, measured: Pace) -> Figures:
    return {f"{name}, p50 ms": measured.p50, f"{name}, p95 ms": measured.p95, f"{name}, a second": measured.rate}


def search_beside_bulk(client: Client, paths: Sequence[Path]) -> Figures:
    """Search with one caller before a bulk and while it runs."""
    port, quiet, loaded = port_of(client), Figures(), list[Pace]()
    quiet = to_figures("searches before a bulk", measure_pace(port, 1, make_queries(100, 2 * ASKED), search))
    jobs = upload(client, paths)
    start = 0
    while is_running(client, jobs) and start < 180:
        loaded.append(measure_pace(port, 1, make_queries(20, 2 * ASKED + 100 + start), search))
        start += 20
    p95 = statistics.median(one.p95 for one in loaded)
    worst = max(one.p95 for one in loaded)
    while is_running(client, jobs):
        time.sleep(0.1)
    return quiet | {
        "searches beside a bulk, p50 ms": statistics.median(one.p50 for one in loaded),
        "searches beside a bulk, p95 ms": p95,
        "searches beside a bulk, worst p95 of 20": worst,
        "searches beside a bulk over before": p95 / quiet["searches before a bulk, p95 ms"],
    }


def measure_memory(pid: int) -> Figures:
    """Memory with both towers loaded, of the server and of all processes (proportional)."""
    every = sum(proportional_bytes(one) for one, _ in list_processes(pid))
    return {"memory of the server, MiB": resident_bytes(pid) / MIB, "memory of all processes, MiB": every / MIB}


if __name__ == "__main__":
    main()
