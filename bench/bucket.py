"""A server whose pictures are in a bucket, beside one with a folder: `python -m bench.bucket [MEBIBYTES]`.

The store is moto's S3 on this machine, in a process of its own: it is slower than a real one (one request at a time),
and has no distance. The encoder sees colours, so that the figures are those of storing. Prints uploads a second (one by
one, and a bulk until all are ready), reads of files and thumbnails with an empty and a full cache, and the memory of
the server and its worker while an archive of so many MiB (200) goes through.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.object_stores import WHO
from tests.support.servers import RunningServer

ONE_BY_ONE = 200
IN_BULK = 1_000
CALLERS = 4
STORE = (
    "import sys, time; from tests.support.object_stores import Store; store = Store('photos');"
    " print(store.url, flush=True); sys.stdin.read()"
)


def main() -> None:
    mebibytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder, run_store() as url:
        for place in ("folder", "bucket"):
            settings = {"media": f"s3://photos/{uuid.uuid4().hex}", "s3_endpoint": url} if place == "bucket" else {}
            measure(place, Path(folder) / place, settings, mebibytes)


@contextmanager
def run_store() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", STORE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    os.environ.update(WHO)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate("")


def measure(place: str, folder: Path, settings: dict[str, Any], mebibytes: int) -> None:
    dice = random.Random(5)
    with RunningServer(folder / "data", cache_dir=folder / "cache", **settings) as server:
        pictures = [make_picture(dice, 320) for _ in range(ONE_BY_ONE)]
        began = time.monotonic()
        with ThreadPoolExecutor(CALLERS) as callers:
            answers = list(callers.map(lambda n: server.upload(pictures[n], id=f"p{n}", wait=0), range(ONE_BY_ONE)))
        print(f"{place}: {ONE_BY_ONE / (time.monotonic() - began):.0f} uploads a second, {CALLERS} callers")
        assert {answer.status_code for answer in answers} == {202}
        began = time.monotonic()
        packed = make_archive([make_picture(dice, 64) for _ in range(IN_BULK)])
        server.wait_job(server.bulk([("small.zip", packed)])["id"], 600)
        print(f"{place}: {IN_BULK / (time.monotonic() - began):.0f} pictures of an archive a second, to ready")
        peak = watch_memory(server)
        large = make_archive([dice.randbytes(1 << 20) for _ in range(mebibytes)], "txt")
        began = time.monotonic()
        server.wait_job(server.bulk([("large.zip", large)])["id"], 600)
        before, most = peak()
        print(
            f"{place}: an archive of {mebibytes} MiB took {time.monotonic() - began:.1f} s; server and worker had"
            f" {before:.0f} MiB before, {most:.0f} MiB at most"
        )
    shutil.rmtree(folder / "cache", ignore_errors=True)
    if place == "folder":
        return measure_reads(place, folder, settings, ("",))
    return measure_reads(place, folder, settings, (", empty cache", ", full cache"))


def measure_reads(place: str, folder: Path, settings: dict[str, Any], rounds: tuple[str, ...]) -> None:
    with RunningServer(folder / "data", cache_dir=folder / "cache", **settings) as server:
        for what in rounds:
            for kind in ("file", "thumbnail"):
                times = []
                for n in range(ONE_BY_ONE):
                    began = time.perf_counter()
                    answer = server.http.get(f"/v1/images/p{n}/{kind}")
                    times.append((time.perf_counter() - began) * 1000)
                    assert answer.status_code == 200
                p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
                print(f"{place}{what}: {kind} p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def make_picture(dice: random.Random, side: int) -> bytes:
    image = Image.frombytes("RGB", (side, side), dice.randbytes(3 * side * side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return file.getvalue()


def make_archive(members: list[bytes], suffix: str = "jpg") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for n, member in enumerate(members):
            packed.writestr(f"{n}.{suffix}", member)
        if suffix != "jpg":
            packed.writestr("one.jpg", make_picture(random.Random(1), 64))
    return file.getvalue()


def watch_memory(server: RunningServer) -> Any:
    """Sample the memory of the server and its workers; returns a function that ends it and says before and most."""
    ending = threading.Event()
    seen: list[float] = [resident(server)]

    def sample() -> None:
        while not ending.wait(0.05):
            seen.append(resident(server))

    thread = threading.Thread(target=sample)
    thread.start()

    def end() -> tuple[float, float]:
        ending.set()
        thread.join()
        return seen[0], max(seen)

    return end


def resident(server: RunningServer) -> float:
    """MiB that the server and its workers have for themselves."""
    total = 0
    for pid in (server.process.pid, *server.pids()):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Private_Clean")))
    return total / 1024


if __name__ == "__main__":
    main()
