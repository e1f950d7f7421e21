"""Measure every way to add pictures, with the starter model.

python -m bench.intake [acknowledged|folder|urls]...   (without arguments all three, a quarter of an hour)

`acknowledged` uploads one picture after the other, and times the same fsyncs without the service. `folder` ingests
20,000 small files by the command line, once more with nothing new, and searches meanwhile. `urls` lets the server fetch
100,000 pictures from a web server on this machine, every fiftieth of them bad, and then starts the server again.
"""

from __future__ import annotations

import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from app.core.process import child_env, sightline_command
from bench import picture_server
from bench.needs import MIB, list_processes, proportional_bytes
from bench.results import Figures, save_figures
from bench.weights import WORK

HOST = "127.0.0.1"
UPLOADS = 500
FILES = 20_000
URLS = 100_000
SIDE = 96
WORDS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")
PAUSE_SECONDS = 0.02  # between two searches beside a load


def main() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], Figures]] = {
        "acknowledged": measure_acknowledgement,
        "folder": measure_folder,
        "urls": measure_urls,
    }
    for name in sys.argv[1:] or parts:
        save_figures(f"intake-{name}", parts[name]())


@contextmanager
def start_server(data: Path, model: str = "starter") -> Iterator[tuple[int, Client, float]]:
    """Run a server on `data`; yield its process id, a client, and the seconds until it was ready."""
    port = free_port(HOST, 0)
    began = time.perf_counter()
    with run_server(data, HOST, port, model) as process, Client(f"http://{HOST}:{port}") as client:
        wait_until_ready(client, process)
        yield process.pid, client, time.perf_counter() - began


def draw_jpeg(n: int, side: int = SIDE) -> bytes:
    """A distinct JPEG of a few kilobytes for each `n`."""
    squares = np.random.default_rng(n).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(squares).resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def measure_acknowledgement() -> Figures:
    """One caller uploads picture after picture. In turns with it, time the same syncs done without the service."""
    acknowledged, synced = [], []
    with tempfile.TemporaryDirectory(dir=WORK) as scratch, start_server(Path(scratch) / "data") as (_, client, _):
        disk = Path(scratch) / "disk"
        disk.mkdir()
        with httpx.Client(base_url=client.server, trust_env=False) as http:
            for n in range(UPLOADS):
                content = draw_jpeg(n)
                began = time.perf_counter()
                http.post("/v1/images", files={"file": ("a.jpg", content)}).raise_for_status()
                acknowledged.append(time.perf_counter() - began)
                began = time.perf_counter()
                write_durably(disk, n, content)
                synced.append(time.perf_counter() - began)
    return {
        "acknowledgement, p50, ms": statistics.median(acknowledged) * 1e3,
        "acknowledgement, p95, ms": p95(acknowledged) * 1e3,
        "the same syncs without us, p50, ms": statistics.median(synced) * 1e3,
        "the same syncs without us, p95, ms": p95(synced) * 1e3,
    }


def write_durably(folder: Path, n: int, content: bytes) -> None:
    """Make the syncs that an acknowledged picture needs: its bytes, its name and a commit."""
    path = folder / f"{n}.new"
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.rename(folder / f"{n}")
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    with open(folder / "wal", "ab") as file:
        file.write(bytes(8 * 1024))
        file.flush()
        os.fdatasync(file.fileno())


def measure_folder() -> Figures:
    """Ingest a folder twice by the command line, and search before and during the first run."""
    with tempfile.TemporaryDirectory(dir=WORK) as scratch, start_server(Path(scratch) / "data") as (pid, client, _):
        source = Path(scratch) / "pictures"
        for n in range(FILES):
            place = source / f"{n // 1_000}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{n}.jpg").write_bytes(draw_jpeg(n))
        before = list(itertools.islice(time_searches(client.server), 200))
        done = threading.Event()
        beside: list[float] = []
        watching = threading.Thread(target=search_until, args=(client.server, done, beside))
        watching.start()
        first = time_ingest(client.server, source)
        done.set()
        watching.join()
        most = measure_memory(pid)
        second = time_ingest(client.server, source)
    return {
        "pictures of the folder, by the command line, a second": FILES / first,
        "the folder once more, nothing new, s": second,
        "search before, p95, ms": p95(before) * 1e3,
        "search beside it, p95, times": p95(beside) / p95(before),
        "memory of all processes after it, MiB": most,
    }


def time_ingest(server: str, source: Path) -> float:
    """Seconds of `sightline ingest FOLDER`."""
    began = time.perf_counter()
    words = sightline_command("ingest", str(source), "--server", server)
    subprocess.run(words, env=child_env(os.environ), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def time_searches(server: str) -> Iterator[float]:
    """Yield the seconds of one search after another, each with new words."""
    with httpx.Client(base_url=server, trust_env=False, timeout=60) as http:
        for n in itertools.count():
            words = f"{WORDS[n % len(WORDS)]} {WORDS[n // len(WORDS) % len(WORDS)]} {n}"
            began = time.perf_counter()
            http.get("/v1/search", params={"q": words}).raise_for_status()
            yield time.perf_counter() - began
            time.sleep(PAUSE_SECONDS)


def search_until(server: str, done: threading.Event, taken: list[float]) -> None:
    """Search until `done` is set."""
    for seconds in time_searches(server):
        taken.append(seconds)
        if done.is_set():
            return


def p95(taken: list[float]) -> float:
    """The 95th percentile."""
    return float(np.quantile(taken, 0.95))


def measure_memory(pid: int) -> float:
    """MiB of the server, its workers and the children of both (proportional)."""
    return sum(proportional_bytes(member) for member, _ in list_processes(pid)) / MIB


def measure_urls() -> Figures:
    """Import many pictures by URL, some of them bad; then start the server again with all of them."""
    os.environ |= {"SIGHTLINE_FETCH": "true", "SIGHTLINE_FETCH_ALSO": "127.0.0.1"}
    with tempfile.TemporaryDirectory(dir=WORK) as scratch, picture_server.run_picture_server() as address:
        data = Path(scratch) / "data"
        with start_server(data) as (pid, client, _):
            began = time.perf_counter()
            job = client.ingest_urls([{"url": f"{address}/{n}.png", "id": f"{n}"} for n in range(URLS)])
            used = []
            while job["state"] in ("queued", "running"):
                time.sleep(5)
                job = client.job(job["id"])
                used.append(measure_memory(pid))
            seconds = time.perf_counter() - began
            failures = Counter(item["error"]["code"] for item in client.items(job["id"], status="failed"))
        if failures != picture_server.count_faults(URLS) or job["done"] != URLS - job["failed"]:
            raise SystemExit(f"{job}: {failures}")
        with start_server(data) as (_, client, ready):
            there = client.stats()["images"]["ready"]
    fifth = max(1, len(used) // 5)
    return {
        "URLs": URLS,
        "failed, each with its reason": job["failed"],
        "URLs a second": URLS / seconds,
        "memory of all processes in the first fifth, median, MiB": statistics.median(used[:fifth]),
        "memory of all processes in the last fifth, median, MiB": statistics.median(used[-fifth:]),
        "memory of all processes, the most, MiB": max(used),
        f"start with {there:,} pictures to ready, s": ready,
    }


if __name__ == "__main__":
    main()
