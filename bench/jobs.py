"""Measure the cost of a job of a million items: the time of each listing and step, and memory.

`python -m bench.jobs [ITEMS]` inserts the rows directly into SQLite, in a folder that it removes at the end. It times
each call for a job of 1,000 items and for the large job in turns, so that the ratio holds on a busy machine too.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.cli.demo import free_port
from app.core.process import child_env, sightline_command
from app.core.settings import Settings
from app.core.types import ItemStatus
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import job_control, jobs, queue_depth, work_queue
from bench.needs import resident_bytes

ROUNDS = 30
SMALL = 1_000
STEP = 20_000  # rows in a commit
IMAGES = (
    "INSERT INTO images (collection, id, sha256, status, width, height, format, bytes, created_at, job_id)"
    " WITH RECURSIVE t(n) AS (SELECT :start UNION ALL SELECT n + 1 FROM t WHERE n + 1 < :stop)"
    " SELECT 'default', 'i' || n, printf('%064x', n), CASE WHEN n % 1000 = 999 THEN 'failed'"
    " WHEN n < :size / 2 THEN 'ready' ELSE 'queued' END, 4, 4, 'png', 100, '2026-01-01T00:00:00.000Z', :job FROM t"
)
ITEMS = (
    "INSERT INTO job_items (job_id, n, name, status, image_key, image_id, error_code)"
    " SELECT :job, key, 'folder/' || key || '.jpg', iif(status = 'ready', 'done', status), key, id,"
    " iif(status = 'failed', 'image_corrupt', NULL) FROM images WHERE key > :start AND key <= :stop"
)


@dataclass(frozen=True)
class FilledDatabase:
    """A database with a job of `size` items: half of them wait, one in a thousand failed."""

    database: Database
    job: str
    size: int


def fill(path: Path, size: int) -> FilledDatabase:
    """Insert the rows that an upload of this size leaves half-way through."""
    path.mkdir()
    database = open_database(path / "sightline.db")
    for n in range(100):
        database.write(lambda c, n=n: jobs.create(c, "default", f"old {n}"))  # type: ignore[misc]
    id = database.write(lambda c: jobs.create(c, "default", "bulk"))

    def work(c: Any, start: int) -> None:
        values = {"start": start, "stop": min(size, start + STEP), "size": size, "job": id}
        c.execute(IMAGES, values)
        c.execute(ITEMS, values)

    for start in range(0, size, STEP):
        database.write(lambda c, start=start: work(c, start))  # type: ignore[misc]
    failed = size // 1000
    done = size // 2 - size // 2 // 1000
    sql = "UPDATE jobs SET total = ?, done = ?, failed = ?, state = 'running', started_at = created_at WHERE id = ?"
    database.write(lambda c: c.execute(sql, (size, done, failed, id)) and None)
    return FilledDatabase(database, id, size)


def roll_back_after(work: Callable[[Connection], Any]) -> Callable[[Connection], None]:
    """Wrap `work` so that its changes are undone."""

    def both(c: Connection) -> None:
        c.execute("SAVEPOINT bench")
        work(c)
        c.execute("ROLLBACK TO bench; RELEASE bench")

    return both


def list_calls(filled: FilledDatabase) -> dict[str, Callable[[], object]]:
    """The calls to time, by name."""
    database, id, deep = filled.database, filled.job, filled.size - 101

    def read(work: Callable[[Connection], object]) -> Callable[[], object]:
        return lambda: database.read(work)

    def write(work: Callable[[Connection], object]) -> Callable[[], object]:
        return lambda: database.write(roll_back_after(work))

    return {
        "list jobs": read(lambda c: jobs.list_recent(c, 50)),
        "list jobs of a key": read(lambda c: jobs.list_recent(c, 50, {"default"})),
        "one job": read(lambda c: jobs.get(c, id)),
        "items, first page": read(lambda c: jobs.list_items(c, id, None, 0, 100)),
        "items, last page": read(lambda c: jobs.list_items(c, id, None, deep, 100)),
        "items failed, last": read(lambda c: jobs.list_items(c, id, ItemStatus.FAILED, deep - 900, 100)),
        "items duplicate (none)": read(lambda c: jobs.list_items(c, id, ItemStatus.DUPLICATE, 0, 100)),
        "queue depth": read(queue_depth.read_depth),
        "jobs to forget": read(lambda c: job_control.list_ended(c, "2026-01-01", 500)),
        "claim 96": write(lambda c: work_queue.claim_images(c, "bench", 1e12, 96)),
        "claim an upload": write(lambda c: work_queue.claim_upload(c, "bench", 1e12)),
        "add an item": write(lambda c: jobs.add_item(c, id, "x.png", ItemStatus.DUPLICATE)),
        "settle": write(lambda c: jobs.finish_if_complete(c, id)),
    }


def time_call(call: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def compare(small: FilledDatabase, large: FilledDatabase) -> None:
    """Print the medians of each call for both jobs, and their ratio."""
    others = list_calls(large)
    print(f"{'':24} {small.size:>12,} {large.size:>12,}   ratio")
    for name, call in list_calls(small).items():
        pairs = [(time_call(call), time_call(others[name])) for _ in range(ROUNDS)][2:]
        few, many = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(f"{name:24} {few:9.2f} ms {many:9.2f} ms {many / few:7.1f}", flush=True)


def serve(folder: Path, job: str) -> None:
    """Print how much a server grows while it reports every item, and how long its listings take."""
    port = free_port("127.0.0.1", 0)
    settings = Settings(data_dir=folder, model="colours", port=port, workers=0)
    server = subprocess.Popen(
        sightline_command("serve"), env=child_env(settings.environment()), stderr=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as http:
            deadline = time.monotonic() + 600
            while time.monotonic() < deadline:
                try:
                    if http.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.2)
            before = resident_bytes(server.pid)
            began = time.perf_counter()
            count = 0
            with http.stream("GET", f"/v1/jobs/{job}/items", headers={"Accept": "application/x-ndjson"}) as answer:
                last = b""
                for part in answer.iter_bytes():
                    count += part.count(b"\n")
                    last = part
            json.loads(last.splitlines()[-1])
            seconds = time.perf_counter() - began
            for path in ("/v1/jobs", f"/v1/jobs/{job}", f"/v1/jobs/{job}/items?status=failed"):
                spent = statistics.median(time_call(lambda path=path: http.get(path)) for _ in range(ROUNDS))  # type: ignore[misc]
                print(f"GET {path.replace(job, 'ID'):32} {spent:6.2f} ms")
            grown = (resident_bytes(server.pid) - before) / (1 << 20)
            print(f"report of {count:,} items: {seconds:.1f} s; the server grew by {grown:.0f} MiB in all")
    finally:
        server.terminate()
        server.wait(60)


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="sightline-jobs-") as name:
        small, large = fill(Path(name) / "small", SMALL), fill(Path(name) / "large", size)
        compare(small, large)
        for one in (small, large):
            one.database.close()
        serve(Path(name) / "large", large.job)


if __name__ == "__main__":
    main()
