"""Our server with ViT-B/32, and callers that ask any server over HTTP on the loopback."""

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
from bench.weights import WORK, compiled, model

HOST = "127.0.0.1"
SECONDS = 60.0
A_REQUEST = 50  # pictures of one upload
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "old", "small", "wooden", "striped")
THINGS = ("car", "boat", "house", "cat", "chair", "tree", "bicycle", "lamp", "horse", "kite")
PLACES = ("by the sea", "in the snow", "at night", "on a hill", "in a garden", "on a street", "under a bridge")
Ask = Callable[[http.client.HTTPConnection, str], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """Answers a second, and the milliseconds that half of them, and 95 of 100, took at most."""

    rate: float
    p50: float
    p95: float


@contextmanager
def ours() -> Iterator[tuple[Client, int]]:
    """A fresh server with one worker, both ready; its client and process id."""
    end_in_order()
    compiled()
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "models").symlink_to(WORK)
        port = free_port(HOST, 0)
        with (
            run_server(Path(scratch), HOST, port, model()) as process,
            Client(f"http://{HOST}:{port}") as client,
        ):
            wait_until_ready(client, process)
            first = Path(scratch) / "first.png"
            Image.new("RGB", (64, 64)).save(first)
            ingest(client, [first])  # the worker has its model then
            pace(port, 1, queries(4), search)  # and the server its text tower
            yield client, process.pid


def end_in_order() -> None:
    """Let SIGTERM leave every `with`, so that no server outlives this process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))


def port_of(client: Client) -> int:
    """Where the client's server listens."""
    return int(client.server.rpartition(":")[2])


def upload(client: Client, paths: Sequence[Path]) -> list[str]:
    """Send the pictures as bulks; the ids of their jobs."""
    parts = [paths[start : start + A_REQUEST] for start in range(0, len(paths), A_REQUEST)]
    return [str(client.upload_bulk([(path.name, path) for path in part])["id"]) for part in parts]


def running(client: Client, jobs: Sequence[str]) -> bool:
    """Whether pictures of these jobs still wait. SystemExit when one failed."""
    said = [client.job(job) for job in jobs]
    if any(job["failed"] or job["duplicates"] for job in said):
        raise SystemExit("a picture failed, or was there already")
    return any(job["state"] in ("queued", "running") for job in said)


def ingest(client: Client, paths: Sequence[Path]) -> float:
    """Pictures a second, from the first byte sent until all are `ready`."""
    began = time.perf_counter()
    jobs = upload(client, paths)
    while running(client, jobs[-1:]) or running(client, jobs):
        time.sleep(0.05)
    return len(paths) / (time.perf_counter() - began)


def queries(count: int, first: int = 0) -> list[str]:
    """Distinct queries of 9 to 11 tokens."""
    numbers = range(first, first + count)
    many = len(COLOURS) * len(THINGS) * len(PLACES)
    if first + count > many:
        raise ValueError(f"there are {many} queries")
    return [
        f"a {COLOURS[n % 10]} {THINGS[n // 10 % 10]} {PLACES[n // 100]}" for n in ((n * 211) % many for n in numbers)
    ]


def search(connection: http.client.HTTPConnection, words: str) -> None:
    """GET /v1/search."""
    answered(connection, "GET", f"/v1/search?q={quote(words)}")


def answered(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> bytes:
    """The body of a 200 answer; SystemExit with what came otherwise."""
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path} answered {answer.status}: {said[:200]!r}")
    return said


def pace(port: int, callers: int, words: Sequence[str], ask: Ask) -> Pace:
    """Each of the words asked once, from so many callers at a time, each on a connection of its own."""
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
