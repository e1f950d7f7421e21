"""Load the gallery and search it over HTTP with the starter model; print the first table of docs/benchmarks.md."""

from __future__ import annotations

import io
import json
import os
import statistics
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from app.cli.client import Client
from app.cli.demo import free_port, load_texts, run_server, wait_until_ready
from app.core.settings import Settings
from app.service.demo_gallery import find_gallery
from bench.needs import resident_bytes

QUERIES = 1_000
CALLERS = 16
HOST = "127.0.0.1"


def main() -> None:
    table = Table("work", "figure")
    folder = find_gallery()
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port(HOST, 0)
        began = time.perf_counter()
        with run_server(Path(scratch), HOST, port) as process, Client(f"http://{HOST}:{port}") as client:
            wait_until_ready(client, process)
            table.add_row("start to ready", f"{time.perf_counter() - began:.1f} s")
            load_gallery(client, folder, table)
            captions = read_captions(folder)
            measure_search(client.server, captions, 1, table)
            measure_search(client.server, captions, CALLERS, table)
            table.add_row("memory of the server (resident)", f"{resident_bytes(process.pid) / 2**20:.0f} MiB")
    console = Console()
    console.print(f"{os.cpu_count()} cores; {Settings().batch_size_for('cpu')} pictures a batch; model starter")
    console.print(table)


def load_gallery(client: Client, folder: Path, table: Table) -> None:
    """Upload the gallery as one bulk and wait until every picture is ready."""
    began = time.perf_counter()
    job = client.upload_bulk([("gallery.zip", folder / "gallery.zip")])
    while (job := client.job(job["id"]))["state"] in ("queued", "running"):
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    if job["failed"]:
        raise SystemExit(f"{job['failed']} pictures failed")
    table.add_row(f"bulk of {job['total']} pictures, to all ready", f"{seconds:.1f} s, {job['total'] / seconds:.0f}/s")
    load_texts(client, folder / "texts.jsonl")


def read_captions(folder: Path) -> list[str]:
    """Distinct queries: captions of the gallery."""
    with zipfile.ZipFile(folder / "gallery.zip") as archive, archive.open("metadata.jsonl") as file:
        captions = {json.loads(line)["caption"] for line in io.TextIOWrapper(file, "utf-8")}
    return sorted(captions)[:QUERIES]


def measure_search(server: str, queries: list[str], callers: int, table: Table) -> None:
    """GET /v1/search once with each query, with `callers` requests at a time."""
    with httpx.Client(base_url=server, trust_env=False) as http:

        def one(query: str) -> float:
            began = time.perf_counter()
            http.get("/v1/search", params={"q": query}).raise_for_status()
            return time.perf_counter() - began

        for query in queries[:20]:
            one(query)
        began = time.perf_counter()
        with ThreadPoolExecutor(callers) as pool:
            taken = sorted(pool.map(one, queries))
        seconds = time.perf_counter() - began
    p50, p99 = statistics.median(taken), taken[int(len(taken) * 0.99)]
    table.add_row(
        f"text search, {callers} caller{'s' * (callers > 1)}, {len(queries)} distinct queries",
        f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, {len(queries) / seconds:.0f}/s",
    )


if __name__ == "__main__":
    main()
