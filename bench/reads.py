"""Read files and thumbnails while other clients replace and delete their pictures; then look at 200 thumbnails twice.

python -m bench.reads [N]   (N reads, 10,000 by default)
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from bench.servers import HOST, exit_on_sigterm

READERS = 4
REPLACED, DELETED = "replaced", "deleted"  # ids of two pictures: one always has bytes, one comes and goes
THUMBNAILS = 200
RIGHT = {"whole", "not found", "busy"}
PARTS = (None, None, "bytes=0-99", "bytes=-50")


def main() -> None:
    """Print a table of figures; exit status 1 unless every read was right."""
    exit_on_sigterm()
    reads = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    table = Table("work", "figure")
    with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch)) as (http, read_log):
        outcomes, changes = read_beside_changes(http, reads)
        told = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        table.add_row(f"{reads:,} reads beside {changes:,} replaces and deletes", told)
        table.add_row("tracebacks in the log", str(read_log().count("Traceback")))
        first, second = view_twice(http)
        share = f"{first / 1e6:.2f} MB, then {second / 1e3:.1f} kB: {second / first:.1%}"
        table.add_row(f"{THUMBNAILS} thumbnails, seen twice", share)
    Console(width=120).print(table)
    sys.exit(1 if set(outcomes) - RIGHT else 0)


@contextmanager
def serve(folder: Path) -> Iterator[tuple[httpx.Client, Callable[[], str]]]:
    """A server on an empty data directory: its client, and what reads its log."""
    log, port = folder / "log", free_port(HOST, 0)
    with (
        open(log, "wb") as written,
        run_server(folder / "data", HOST, port, "colours", stderr=written) as process,
        Client(f"http://{HOST}:{port}") as client,
        httpx.Client(base_url=client.server, trust_env=False, timeout=60) as http,
    ):
        wait_until_ready(client, process)
        yield http, lambda: log.read_text("utf-8")


def read_beside_changes(http: httpx.Client, reads: int) -> tuple[Counter[str], int]:
    """Read files, parts of files and thumbnails while their pictures change: the outcomes, and the number of changes.

    An outcome is `whole`, `not found` (of the picture that comes and goes), `busy` (a machine on which much else runs:
    the answer says when to ask again), or what was wrong.
    """
    contents = {REPLACED: [make_picture(1), make_picture(2)], DELETED: [make_picture(3), make_picture(4)]}
    known = {hashlib.sha256(content).hexdigest(): content for pair in contents.values() for content in pair}
    for id, pair in contents.items():
        upload(http, id, pair[0], wait=30)
    ended = threading.Event()

    def change(id: str) -> int:
        count = 0
        while not ended.is_set():
            if id == DELETED:
                http.delete(f"/v1/images/{id}")
            upload(http, id, contents[id][count % 2])
            count += 1
        return count

    with ThreadPoolExecutor(READERS + 2) as threads:
        changing = [threads.submit(change, id) for id in contents]
        try:
            outcomes = Counter(threads.map(lambda n: read(http, n, known), range(reads)))
        finally:
            ended.set()
        return outcomes, sum(one.result() for one in changing)


def read(http: httpx.Client, n: int, known: dict[str, bytes]) -> str:
    """One read, and whether it was right."""
    id = (REPLACED, DELETED)[n % 2]
    kind = ("file", "file", "thumbnail")[n % 3]
    part = PARTS[n % len(PARTS)]
    try:
        answer = http.get(f"/v1/images/{id}/{kind}", headers={"Range": part} if part else {})
    except httpx.HTTPError as error:
        return f"cut ({type(error).__name__})"
    if answer.status_code == 404 and id == DELETED:
        return "not found"
    if answer.status_code == 503 and "Retry-After" in answer.headers:
        return "busy"
    if answer.status_code not in (200, 206):
        return str(answer.status_code)
    if kind == "thumbnail":
        return "whole" if answer.status_code == 206 or is_picture(answer.content) else "no picture"
    whole = known[answer.headers["etag"].strip('"')]
    expected = whole if answer.status_code == 200 else whole[:100] if part == "bytes=0-99" else whole[-50:]
    return "whole" if answer.content == expected else "other bytes"


def view_twice(http: httpx.Client) -> tuple[int, int]:
    """Bytes that the answers for many thumbnails bring, heads included: at first, and when a client has them all."""
    paths = []
    for n in range(THUMBNAILS):
        upload(http, f"seen-{n}", make_picture(100 + n), wait=30 if n == THUMBNAILS - 1 else 0)
        paths.append(f"/v1/images/seen-{n}/thumbnail")
    first = [http.get(path) for path in paths]
    second = [
        http.get(path, headers={"If-None-Match": answer.headers["etag"]})
        for path, answer in zip(paths, first, strict=True)
    ]
    if {answer.status_code for answer in second} != {304}:
        raise SystemExit("a thumbnail that a client has was sent again")
    return sum(map(size_of, first)), sum(map(size_of, second))


def size_of(answer: httpx.Response) -> int:
    """The bytes of the head and the body of an answer."""
    head = [b"HTTP/1.1 200 OK", *(b"%s: %s" % one for one in answer.headers.raw), b"", b""]
    return len(b"\r\n".join(head)) + len(answer.content)


def upload(http: httpx.Client, id: str, content: bytes, wait: int = 0) -> None:
    """Give a picture these bytes. Its other answers are the business of the reader."""
    files, params = {"file": (f"{id}.jpg", content)}, {"replace": "true", "wait": str(wait)}
    http.post("/v1/images", params=params, files=files, data={"id": id})


def make_picture(seed: int) -> bytes:
    """A JPEG of 480 × 360 with as many details as a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((480, 360), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def is_picture(content: bytes) -> bool:
    """Whether these bytes are a whole picture."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
