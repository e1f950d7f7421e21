"""Run our server with ViT-B/32, and measure any server over HTTP on the loopback."""

from __future__ import annotations

import http.client
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import local
from urllib.parse import quote

from PIL import Image

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from bench.weights import WORK, ensure_compiled, model_name

HOST = "127.0.0.1"
SECONDS = 60.0
A_REQUEST = 50  # pictures in one upload
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "old", "small", "wooden", "striped")
THINGS = ("car", "boat", "house", "cat", "chair", "tree", "bicycle", "lamp", "horse", "kite")
PLACES = ("by the sea", "in the snow", "at night", "on a hill", "in a garden", "on a street", "under a bridge")
Ask = Callable[[http.client.HTTPConnection, str], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """Answers a second; 50th and 95th percentile of the milliseconds."""

    rate: float
    p50: float
    p95: float


@contextmanager
def run_our_server() -> Iterator[tuple[Client, int]]:
    """Run a fresh server with one worker; yield its client and process id once both have loaded their models."""
    exit_on_sigterm()
    ensure_compiled()
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "models").symlink_to(WORK)
        port = free_port(HOST, 0)
        with (
            run_server(Path(scratch), HOST, port, model_name()) as process,
            Client(f"http://{HOST}:{port}") as client,
        ):
            wait_until_ready(client, process)
            first = Path(scratch) / "first.png"
            Image.new("RGB", (64, 64)).save(first)
            ingest(client, [first])  # the worker has its model then
            measure_pace(port, 1, make_queries(4), search)  # and the server its text tower
            yield client, process.pid


def exit_on_sigterm() -> None:
    """Turn SIGTERM into SystemExit, so that every `with` block ends its server."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))


def port_of(client: Client) -> int:
    return int(client.server.rpartition(":")[2])


def upload(client: Client, paths: Sequence[Path]) -> list[str]:
    """Upload the pictures as bulks; returns the ids of the jobs."""
    parts = [paths[start : start + A_REQUEST] for start in range(0, len(paths), A_REQUEST)]
    return [str(client.upload_bulk([(path.name, path) for path in part])["id"]) for part in parts]


def is_running(client: Client, jobs: Sequence[str]) -> bool:
    """Whether pictures of these jobs still wait. SystemExit if one failed."""
    states = [client.job(job) for job in jobs]
    if any(job["failed"] or job["duplicates"] for job in states):
        raise SystemExit("a picture failed or was a duplicate; start with an empty data directory")
    return any(job["state"] in ("queued", "running") for job in states)


def ingest(client: Client, paths: Sequence[Path]) -> float:
    """Pictures a second, from the first byte sent until all are `ready`."""
    began = time.perf_counter()
    jobs = upload(client, paths)
    while is_running(client, jobs[-1:]) or is_running(client, jobs):
        time.sleep(0.05)
    return len(paths) / (time.perf_counter() - began)


def make_queries(count: int, first: int = 0) -> list[str]:
    """Distinct queries of 9 to 11 tokens."""
    numbers = range(first, first + count)
    many = len(COLOURS) * len(THINGS) * len(PLACES)
    if first + count > many:
        raise ValueError(f"there are {many} queries")
    return [
        f"a {COLOURS[n % 10]} {THINGS[n // 10 % 10]} {PLACES[n // 100]}" for n in ((n * 211) % many for n in numbers)
    ]


def search(connection: http.client.HTTPConnection, words: str) -> None:
    request(connection, "GET", f"/v1/search?q={quote(words)}")


def request(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> bytes:
    """The body of a 200 answer; SystemExit for any other."""
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path} answered {answer.status}: {content[:200]!r}")
    return content


def measure_pace(port: int, callers: int, words: Sequence[str], ask: Ask) -> Pace:
    """Send each query once, from `callers` threads, each with its own connection."""
    mine = local()

    def one(text: str) -> float:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection(HOST, port, timeout=SECONDS)
        began = time.perf_counter()
        ask(mine.connection, text)
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        taken = sorted(pool.map(one, words))
    seconds = time.perf_counter() - began
    p95 = taken[min(len(taken) - 1, int(len(taken) * 0.95))]
    return Pace(len(words) / seconds, statistics.median(taken) * 1000, p95 * 1000)
