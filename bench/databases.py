"""SQLite beside PostgreSQL: the queue alone with 1, 2 and 4 workers, and reads and claims among a million rows.

`python -m bench.databases [ROWS]` makes both in folders that it removes at the end; PostgreSQL is a process of its own
with its default settings, so that each commit reaches the disk on both. With `--servers [PICTURES]` it compares two
servers that have the same pictures: searches in turns, and memory. With `--trees BEFORE AFTER` it times SQLite alone
under two checkouts, in turns: what a change of the code costs.

A worker commits the vectors of 32 pictures and claims the next 32 in one change, as `app.worker.embed` does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw

try:
    from app.storage.address import open_database
except ImportError:  # a checkout from before there was PostgreSQL
    from app.storage.database import Database as open_database  # type: ignore[assignment]
from app.core.types import EmbeddingSpace, ItemStatus, NewImage
from app.storage.tables import embeddings, images, jobs, queue_depth, work_queue

QUEUED = 4_000  # pictures that the workers share
BATCH = 32
WORKERS = (1, 2, 4)
ROUNDS = 40
STEP = 20_000  # rows in a commit
SERVED, SEARCHES = 2_000, 200  # pictures of each server, searches at each
SPACE = EmbeddingSpace("bench", "0" * 64, 4, "none")
VECTOR = b"\0" * 16
ROWS = {
    "sqlite": "WITH RECURSIVE t(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM t WHERE n + 1 < ?2)"
    " SELECT 'default', 'i' || n, printf('f%063x', n), iif(n % 10 = 0, 'queued', 'ready'), 4, 4, 'png', 100,"
    " '2026-01-01T00:00:00.000Z', ?3, iif(n % 10 = 0, NULL, n) FROM t",
    "postgresql": "SELECT 'default', 'i' || n, 'f' || lpad(to_hex(n), 63, '0'), iif(n % 10 = 0, 'queued', 'ready'), 4,"
    " 4, 'png', 100, '2026-01-01T00:00:00.000Z', ?3, iif(n % 10 = 0, NULL, n) FROM generate_series(?1, ?2 - 1) AS t(n)",
}
INSERT = (
    "INSERT INTO images (collection, id, sha256, status, width, height, format, bytes, created_at, job_id,"
    " embedded_seq) "
)


def new_image(n: int) -> NewImage:
    return NewImage(id=None, sha256=f"{n:064x}", width=4, height=4, format="png", bytes=100)


def queue_pictures(database: Any, count: int) -> float:
    """Queue pictures one by one, as uploads do; returns the median time until one is committed, in ms."""
    database.write(lambda c: embeddings.save_space(c, SPACE))
    job = database.write(lambda c: jobs.create(c, "default", "bulk"))
    first = database.read(lambda c: max(images.count_by_status(c, "default").values()))

    def add(c: Any, n: int) -> None:
        added = images.add(c, "default", new_image(n), job, replace=False)
        jobs.add_item(c, job, "x.png", ItemStatus.QUEUED, image=(added.image.key, added.image.id))

    times = [time_call(partial(database.write, partial(add, n=first + n))) for n in range(min(50, count))]
    futures = [database.submit(partial(add, n=first + n)) for n in range(len(times), count)]
    for future in futures:
        future.result()
    return statistics.median(times)


def work_queue_off(address: str) -> tuple[int, int]:
    """What one worker does: claim and finish until nothing waits; returns how many pictures and commits that were."""
    finished = 0
    with closing(open_database(address if "://" in address else Path(address))) as database:
        owner = f"worker {os.getpid()}"
        leases = database.write(lambda c: work_queue.claim_images(c, owner, 1e12, BATCH))
        commits = 1
        while leases:
            found = [work_queue.FinishedImage(one, VECTOR, 4, 4, False) for one in leases]

            def work(c: Any, found: Any = found) -> tuple[dict[int, int], Any]:
                done = work_queue.finish_images(c, SPACE.fingerprint, found)
                return done, work_queue.claim_images(c, owner, 1e12, BATCH)

            done, leases = database.write(work)
            finished, commits = finished + len(done), commits + 1
    return finished, commits


def time_queue(address: str, workers: int) -> tuple[float, float]:
    """Pictures and commits a second of this many processes."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "bench.databases", "--worker", address]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(workers)]
    counts = [tuple(map(int, process.communicate()[0].split())) for process in processes]
    starts = max(count[2] for count in counts) / 1e6
    seconds = time.perf_counter() - max(began, starts)
    return sum(count[0] for count in counts) / seconds, sum(count[1] for count in counts) / seconds


def time_call(call: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def fill(database: Any, kind: str, rows: int) -> None:
    """Insert pictures, a tenth of which wait, without the triggers, which would take most of the time."""
    job = database.write(lambda c: jobs.create(c, "default", "bulk"))

    def insert(c: Any, start: int) -> None:
        if kind == "sqlite":
            c.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        else:
            c.execute("ALTER TABLE images DISABLE TRIGGER USER")
        c.execute(INSERT + ROWS[kind], (start, min(rows, start + STEP), job))
        if kind == "sqlite":
            c.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
        else:
            c.execute("ALTER TABLE images ENABLE TRIGGER USER")

    for start in range(0, rows, STEP):
        database.write(partial(insert, start=start))
    turn = "INSERT INTO turns (job_id, turn, step, waiting, held) VALUES (?, 0, 1, ?, 0)"
    database.write(lambda c: c.execute(turn, (job, rows // 10)) and None)
    database.write(lambda c: c.execute("UPDATE waiting SET items = ?, bytes = 100", (rows // 10,)) and None)
    database.write(lambda c: c.execute("ANALYZE") and None)


def list_calls(database: Any) -> dict[str, Callable[[], object]]:
    label = "default"
    middle = database.read(lambda c: images.list_page(c, label, 1, None))[0].key // 2

    return {
        "list, first page": lambda: database.read(lambda c: images.list_page(c, label, 50, None)),
        "list, in the middle": lambda: database.read(lambda c: images.list_page(c, label, 50, middle)),
        "one picture": lambda: database.read(lambda c: images.get(c, label, "i77")),
        "claim 32": lambda: database.write(lambda c: work_queue.claim_images(c, "bench", 1e12, BATCH)),
        "queue depth": lambda: database.read(queue_depth.read_depth),
        "stats of a collection": lambda: database.read(lambda c: images.count_by_status(c, label)),
    }


def compare(addresses: dict[str, str], rows: int) -> None:
    print(f"{'':28}" + "".join(f"{kind:>14}" for kind in addresses))
    for kind, address in addresses.items():
        with closing(open_database(address)) as database:
            print(f"acknowledge p50, {kind}: {queue_pictures(database, 200):.2f} ms", flush=True)
    for workers in WORKERS:
        figures = []
        for address in addresses.values():
            with closing(open_database(address)) as database:
                queue_pictures(database, QUEUED)
            figures.append(time_queue(address, workers))
        print(f"{f'{workers} workers: pictures / s':28}" + "".join(f"{one:14.0f}" for one, _ in figures))
        print(f"{f'{workers} workers: commits / s':28}" + "".join(f"{one:14.0f}" for _, one in figures), flush=True)
    opened = {kind: open_database(address) for kind, address in addresses.items()}
    try:
        for kind, database in opened.items():
            fill(database, kind, rows)
        calls = {kind: list_calls(database) for kind, database in opened.items()}
        print(f"\nmedian ms at {rows:,} rows")
        for name in next(iter(calls.values())):
            times: dict[str, list[float]] = {kind: [] for kind in calls}
            for _ in range(ROUNDS):
                for kind, of in calls.items():
                    times[kind].append(time_call(of[name]))
                    opened[kind].write(lambda c: work_queue.release_images(c, "bench"))
            print(f"{name:28}" + "".join(f"{statistics.median(one[2:]):14.2f}" for one in times.values()), flush=True)
    finally:
        for database in opened.values():
            database.close()


def compare_trees(trees: list[str]) -> None:
    """Time SQLite's acknowledgement, claims and commits under two checkouts, in turns."""
    figures: dict[str, list[list[float]]] = {tree: [] for tree in trees}
    for _ in range(7):
        for tree in trees:
            env = {**os.environ, "PYTHONPATH": tree}
            done = subprocess.run(
                [sys.executable, "-P", str(Path(__file__).resolve()), "--one"],
                env=env,
                cwd=tree,
                capture_output=True,
                text=True,
                check=True,
            )
            figures[tree].append([float(one) for one in done.stdout.split()])
    for n, name in enumerate(("acknowledge p50, ms", "claim 32, ms", "finish 32, ms")):
        before, after = (statistics.median(one[n] for one in figures[tree]) for tree in trees)
        print(f"{name:24} {before:8.3f} {after:8.3f} ratio {after / before:.3f}")


def compare_servers(address: str, folder: Path, pictures: int) -> None:
    """The same pictures and searches at a server over SQLite and at one over PostgreSQL, in turns."""
    from bench.servers import make_queries
    from tests.support.pictures import COLOURS, picture
    from tests.support.servers import RunningServer

    cluster = {"database": address, "shared_media": True, "cache_dir": folder / "cache"}
    places: dict[str, dict[str, Any]] = {"sqlite": {}, "postgresql": cluster}
    colours = list(COLOURS)
    files = [
        (f"{colours[n % len(colours)]} {n}.png", picture(colours[n % len(colours)], seed=n)) for n in range(pictures)
    ]
    for kind, settings in places.items():
        with RunningServer(folder / kind, workers=1, **settings) as server:
            assert server.wait_job(server.bulk(files)["id"], 600)["done"] == pictures
    with ExitStack() as opened:
        servers = {
            kind: opened.enter_context(RunningServer(folder / kind, workers=0, **settings))
            for kind, settings in places.items()
        }
        times: dict[str, list[float]] = {kind: [] for kind in servers}
        for words in make_queries(SEARCHES):
            for kind, server in servers.items():
                times[kind].append(time_call(partial(server.http.get, "/v1/search", params={"q": words, "k": 10})))
        p50 = {kind: statistics.median(one[20:]) for kind, one in times.items()}
        memory = {kind: measure_memory(server.process.pid) for kind, server in servers.items()}
    print(f"{'':28}" + "".join(f"{kind:>14}" for kind in servers) + f"{'ratio':>8}")
    for name, of in (("search p50, ms", p50), ("memory of the server, MB", memory)):
        ratio = of["postgresql"] / of["sqlite"]
        print(f"{name:28}" + "".join(f"{one:14.1f}" for one in of.values()) + f"{ratio:8.2f}")


def measure_memory(pid: int) -> float:
    """Proportional set size of one process, in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def time_one() -> None:
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        database = open_database(Path(folder) / "sightline.db")
        with closing(database):
            acknowledge = queue_pictures(database, 1_500)
            claims, finishes = [], []
            while True:
                began = time.perf_counter()
                leases = database.write(lambda c: work_queue.claim_images(c, "bench", 1e12, BATCH))
                claims.append((time.perf_counter() - began) * 1e3)
                if not leases:
                    break

                def finish(c: Any, leases: Any = leases) -> None:
                    for one in leases:
                        work_queue.finish_image(c, one, SPACE.fingerprint, VECTOR, 4, 4, False)

                finishes.append(time_call(lambda: database.write(finish)))
    print(acknowledge, statistics.median(claims), statistics.median(finishes))


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        began = time.perf_counter()
        finished, commits = work_queue_off(sys.argv[2])
        print(finished, commits, int(began * 1e6))
    elif sys.argv[1:2] == ["--one"]:
        time_one()
    elif sys.argv[1:2] == ["--trees"]:
        compare_trees(sys.argv[2:4])
    else:
        from tests.support.postgresql import PostgresqlServer

        is_about_servers = sys.argv[1:2] == ["--servers"]
        rows = int(sys.argv[1]) if len(sys.argv) > 1 and not is_about_servers else 1_000_000
        with (
            tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder,
            closing(PostgresqlServer(("shared_buffers=256MB",))) as server,
            server.empty_database() as address,
        ):
            if is_about_servers:
                compare_servers(address, Path(folder), int(sys.argv[2]) if len(sys.argv) > 2 else SERVED)
            else:
                compare({"sqlite": str(Path(folder) / "sightline.db"), "postgresql": address}, rows)


if __name__ == "__main__":
    main()
