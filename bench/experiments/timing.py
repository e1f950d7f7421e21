"""Time searches, and read how much memory of its own a process has."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.encoder.protocol import Embeddings

ROUNDS = 5


def anonymous_bytes(pid: int | str = "self") -> int:
    """Memory of a process beyond mapped files. This process first returns its free memory to the system."""
    if pid == "self":
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def time_queries(search: Callable[[Embeddings], object], queries: Embeddings) -> list[float]:
    """Seconds of each query, one after the other."""
    taken = []
    for query in queries:
        began = time.perf_counter()
        search(query[None])
        taken.append(time.perf_counter() - began)
    return taken


def processor_ms(search: Callable[[Embeddings], object], queries: Embeddings) -> float:
    """Median milliseconds of this thread's processor time for a query; equals p50 on an idle machine."""
    taken = []
    for query in queries:
        began = time.thread_time()
        search(query[None])
        taken.append(time.thread_time() - began)
    return statistics.median(taken) * 1000


def measure_rate(search: Callable[[Embeddings], object], queries: Embeddings, threads: int) -> float:
    """Queries a second of `threads` threads; each sends its share one by one."""
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(time_queries, [search] * threads, [queries[n::threads] for n in range(threads)]))
    return len(queries) / (time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Pace:
    """Milliseconds of one caller; queries a second of two threads."""

    p50: float
    p95: float
    rate: float


def measure_in_turns(
    searches: Mapping[str, Callable[[Embeddings], object]], queries: Embeddings, rounds: int = ROUNDS
) -> dict[str, Pace]:
    """The pace of each search, medians over the rounds. They run in turns, so that other load affects all alike."""
    taken: dict[str, list[Pace]] = {name: [] for name in searches}
    parts = np.array_split(queries, rounds + 1)
    for turn, part in enumerate(parts):
        for name, search in searches.items():
            alone = sorted(time_queries(search, part))
            p95 = alone[int(len(alone) * 0.95)]
            pace = Pace(
                statistics.median(alone) * 1000, p95 * 1000, measure_rate(search, np.concatenate([part, part]), 2)
            )
            if turn:  # the first warms up
                taken[name].append(pace)
    return {name: _median(paces) for name, paces in taken.items()}


def _median(paces: list[Pace]) -> Pace:
    return Pace(*(statistics.median(getattr(pace, name) for pace in paces) for name in ("p50", "p95", "rate")))
