"""Measure a large collection: time to load and to open, memory, speed of searches and listings.

python -m bench.many FOLDER [N]   (N pictures, 100,000 by default; a folder that has pictures is measured as it is)
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from bench.__main__ import HOST
from bench.needs import resident_bytes

ARCHIVE = 10_000  # the most members that the server takes in an archive, metadata.jsonl included
SIDE = 48
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")
QUERIES = 200


def main() -> None:
    """Fill the folder if it is empty, then print a table of figures."""
    folder, wanted = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    table = Table("work", "figure")
    began = time.perf_counter()
    port = free_port(HOST, 0)
    with run_server(folder, HOST, port) as process, Client(f"http://{HOST}:{port}") as client:
        wait_until_ready(client, process)
        table.add_row("start to ready", f"{time.perf_counter() - began:.1f} s")
        if there := client.stats()["images"]["total"]:
            table.add_row("pictures", f"{there:,}")
        else:
            fill(client, wanted, table)
        with httpx.Client(base_url=client.server, trust_env=False, timeout=60) as http:
            measure(http, table)
        table.add_row("memory of the server (resident)", f"{resident_bytes(process.pid) / 2**20:.0f} MiB")
    Console().print(table)


def fill(client: Client, wanted: int, table: Table) -> None:
    """Upload the pictures, one archive after the other."""
    began = time.perf_counter()
    for start in range(0, wanted, ARCHIVE - 1):
        content = make_archive(start, min(start + ARCHIVE - 1, wanted))
        answer = httpx.post(
            f"{client.server}/v1/images/bulk", files={"files": ("many.zip", content)}, timeout=120, trust_env=False
        )
        job = answer.raise_for_status().json()
        while (job := client.job(job["id"]))["state"] in ("queued", "running"):
            time.sleep(0.2)
        if job["failed"]:
            raise SystemExit(f"{job['failed']} pictures failed")
    seconds = time.perf_counter() - began
    table.add_row(f"{wanted:,} pictures of {SIDE} × {SIDE}, to all ready", f"{seconds:.0f} s, {wanted / seconds:.0f}/s")


def make_archive(start: int, stop: int) -> bytes:
    """A zip of distinct pictures."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        lines = []
        for n in range(start, stop):
            file.writestr(f"{n}.png", draw_squares(n))
            lines.append(json.dumps({"file": f"{n}.png", "id": f"{n}", "caption": f"picture {n}"}))
        file.writestr("metadata.jsonl", "\n".join(lines))
    return out.getvalue()


def draw_squares(n: int) -> bytes:
    """The PNG of this number: a few large squares of seeded colours."""
    colours = np.random.default_rng(n).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def measure(http: httpx.Client, table: Table) -> None:
    """Time searches by distinct words, by a stored picture and with many hits, and pages of the listing."""
    words = [f"{one} {two} {n}" for n in range(4) for one in COLOURS for two in COLOURS][:QUERIES]

    def by_words(n: int, k: int) -> httpx.Response:
        return http.get("/v1/search", params={"q": words[n], "k": k})

    def by_picture(n: int) -> httpx.Response:
        return http.post("/v1/search", json={"query": [{"image_id": str(n)}], "k": 10})

    cursor: list[str | None] = [None]

    def list_page(n: int) -> httpx.Response:
        params = {"limit": "60", **({"cursor": cursor[0]} if cursor[0] else {})}
        answer = http.get("/v1/images", params=params)
        cursor[0] = answer.json()["next_cursor"]
        return answer

    table.add_row("text search, 10 hits", time_calls(lambda n: by_words(n, 10)))
    table.add_row("text search, 1,000 hits", time_calls(lambda n: by_words(n, 1_000)))
    table.add_row("search by a stored picture, 10 hits", time_calls(by_picture))
    table.add_row("60 pictures of the listing by cursor", time_calls(list_page))


def time_calls(ask: Callable[[int], httpx.Response]) -> str:
    """p50 and p99 of QUERIES calls."""
    taken = []
    for n in range(QUERIES):
        began = time.perf_counter()
        ask(n).raise_for_status()
        taken.append(time.perf_counter() - began)
    taken.sort()
    return f"p50 {statistics.median(taken) * 1000:.1f} ms, p99 {taken[int(QUERIES * 0.99)] * 1000:.1f} ms"


if __name__ == "__main__":
    main()
