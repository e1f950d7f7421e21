"""Measure searches over HTTP on the loopback: without an encoder (that of colours, and the gallery), and with ViT-B/32.

python -m bench.queries [TREE...]   (three minutes for each tree, in turns)

A TREE is a checkout of this project, by default this one: a second one, of the commit before, is measured in turns. The
limits are of the same run: what the encoder does alone, and what the server answers that only says that it lives.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from app.cli.client import Client
from app.cli.demo import free_port, wait_until_ready
from app.encoder.loader import EncoderOptions, load_located, locate_model
from app.service.demo_gallery import ARCHIVE, find_gallery
from bench.needs import list_processes, processor_seconds, proportional_bytes
from bench.results import Figures, save_figures
from bench.servers import HOST, exit_on_sigterm, make_queries
from bench.weights import WORK, ensure_compiled, model_name

CALLERS = 16
BURST = 200
ROUNDS = 2
BATCH = 32
MIB = 1 << 20
Paths = Sequence[str]


def main() -> None:
    exit_on_sigterm()
    trees = [Path(name).resolve() for name in sys.argv[1:]] or [Path.cwd()]
    WORK.mkdir(parents=True, exist_ok=True)
    ensure_compiled()
    galleries = {tree: fill(tree, WORK / f"gallery-{tree.name}") for tree in trees}  # each with the schema of its tree
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for tree in trees:
            for name, value in measure(tree, galleries[tree]).items():
                found.setdefault(f"{tree.name}: {name}" if len(trees) > 1 else name, []).append(value)
    save_figures("queries", {name: statistics.median(values) for name, values in found.items()})


def fill(tree: Path, data: Path) -> Path:
    """The data directory of a checkout with the gallery, loaded once."""
    done = data / "filled"
    if not done.exists():
        with serve(tree, data, "colours") as (client, _, _):
            client.upload_bulk([(ARCHIVE, find_gallery() / ARCHIVE)])
            while any(job["state"] in ("queued", "running") for job in client.jobs()["jobs"]):
                time.sleep(0.2)
        done.touch()
    return done.parent


def measure(tree: Path, gallery: Path) -> Figures:
    with serve(tree, gallery, "colours") as (_, port, process):
        figures = measure_plain(port, process.pid)
    one, many = time_encoder()
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        (Path(scratch) / "models").symlink_to(WORK)
        with serve(tree, Path(scratch), model_name()) as (_, port, _):
            words = [search_path(one) for one in make_queries(420)]
            pace(port, 1, words[:20])
            figures["ViT-B/32: 1 caller over the encoder alone, ms"] = pace(port, 1, words[20:120])[0] - one
            figures[f"ViT-B/32: {CALLERS} callers of the encoder's batches"] = (
                pace(port, CALLERS, words[120:])[1] / many
            )
    return figures


def measure_plain(port: int, pid: int) -> Figures:
    plain = [search_path(words) for words in make_queries(600)]
    figures = {"memory of all processes, MiB": sum(proportional_bytes(p) for p, _ in list_processes(pid)) / MIB}
    pace(port, 1, plain[:100])
    pace(port, CALLERS, plain[:200])
    figures["bare server, a second"] = pace(port, 1, ["/livez"] * 500)[1]
    figures["1 caller, p50 ms"] = pace(port, 1, plain)[0]
    before = processor_seconds(pid)
    figures[f"{CALLERS} callers, a second"] = pace(port, CALLERS, plain * 3)[1]
    figures[f"{CALLERS} callers, processor ms a search"] = (processor_seconds(pid) - before) / 1.8
    figures["a repeated query, p50 ms"] = pace(port, 1, [plain[0]] * 200)[0]
    figures["1,000 hits, p50 ms"] = pace(port, 1, [f"{path}&k=1000" for path in plain[:20]])[0]
    figures["/livez beside a burst, worst ms"] = live_beside_burst(port, plain)
    return figures


def time_encoder() -> tuple[float, float]:
    """Milliseconds of one text, and texts a second in batches, of the encoder alone."""
    encoder = load_located(locate_model(model_name(), WORK), WORK, EncoderOptions())
    words = make_queries(BATCH * 4 + 60)

    def took(texts: Sequence[str]) -> float:
        began = time.perf_counter()
        encoder.encode_texts(texts)
        return time.perf_counter() - began

    took(words[:BATCH])
    one = statistics.median(took([text]) for text in words[:60])
    return one * 1000, BATCH / statistics.median(took(words[n : n + BATCH]) for n in range(60, 60 + 4 * BATCH, BATCH))


def search_path(words: str) -> str:
    return f"/v1/search?q={quote(words)}"


@contextmanager
def serve(tree: Path, data: Path, model: str) -> Iterator[tuple[Client, int, subprocess.Popen[bytes]]]:
    """Run the server of a checkout until the block ends; its client, port and process."""
    port = free_port(HOST, 0)
    settings = {"DATA_DIR": str(data), "HOST": HOST, "PORT": str(port), "MODEL": model, "LOG_LEVEL": "error"}
    env = {**os.environ, **{f"SIGHTLINE_{name}": value for name, value in settings.items()}}
    process = subprocess.Popen([sys.executable, "-m", "app", "serve"], cwd=tree, env=env)
    try:
        with Client(f"http://{HOST}:{port}") as client:
            wait_until_ready(client, process)
            time.sleep(2)  # until the worker has its model, and the collection is measured
            yield client, port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def pace(port: int, callers: int, paths: Paths) -> tuple[float, float]:
    """Milliseconds at p50 and answers a second, of callers with a connection each."""
    waiting, taken = iter(paths), list[float]()
    lock = threading.Lock()

    def call() -> None:
        with socket.create_connection((HOST, port)) as connection:
            while True:
                with lock:
                    path = next(waiting, None)
                if path is None:
                    return
                began = time.perf_counter()
                get(connection, path)
                taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    run_all([call] * callers)
    return statistics.median(taken) * 1000, len(paths) / (time.perf_counter() - began)


def run_all(calls: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def get(connection: socket.socket, path: str) -> None:
    """Without an HTTP client, which would take as long as the server. SystemExit for any answer but 200."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1 << 16)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{path} answered {head[:60]!r}")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    left = length - len(body)
    while left > 0:
        left -= len(connection.recv(left))


def live_beside_burst(port: int, paths: Paths) -> float:
    """The longest wait for `/livez` while so many searches come at once, ms."""
    ended = threading.Event()
    taken: list[float] = []

    def watch() -> None:
        with socket.create_connection((HOST, port)) as connection:
            while not ended.is_set():
                began = time.perf_counter()
                get(connection, "/livez")
                taken.append(time.perf_counter() - began)
                time.sleep(0.01)

    watching = threading.Thread(target=watch)
    watching.start()
    pace(port, BURST, paths)
    ended.set()
    watching.join()
    return max(taken) * 1000


if __name__ == "__main__":
    main()
