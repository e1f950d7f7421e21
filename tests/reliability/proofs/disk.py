"""A full disk refuses writes, loses nothing, and recovers by itself once there is space again.

The database, the pictures and TMPDIR are on three small file systems (tmpfs). The proof fills one of them, or all, to
the last byte, and meanwhile uploads, searches and deletes pictures. Then it frees the space; the next upload must
succeed without a restart.

Failing: an answer other than 2xx, 507 or 503 (a search must answer 200); no accepted upload within 30 s of the free
space; a server or worker process ends; an acknowledged picture is not there, ready and whole, after a final restart;
no write was refused at all.
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.reliability.client import digest
from tests.reliability.ledger import Ledger
from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.reliability.proofs.kills import wait_until_settled
from tests.reliability.strike import workers
from tests.support.servers import RunningServer, wait_until

PROMISE = Promise(7, "disk", "A full disk corrupts nothing and stops nothing: writes are refused until there is space.")
SIZES = {"data": "24m", "data/media": "16m", "tmp": "4m"}
FULL = (507, 503)
MEND = 30.0


def run(scale: Scale) -> Outcome:
    """50 times full and free."""
    cycles = scale.pick(5, 50)
    refused = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = [stack.enter_context(small_disk(folder / name, size)) for name, size in SIZES.items()]
        ledger = stack.enter_context(Ledger(folder / "ledger"))
        with RunningServer(places[0], under=("env", f"TMPDIR={places[2]}")) as server:
            store(server, ledger)
            wait_until(lambda: server.http.get("/v1/stats").json()["images"]["ready"], 60, server.output)
            before = wait_until(lambda: workers(server), 60)
            for n in range(cycles):
                refused += cycle(server, ledger, (*([place] for place in places), places)[n % 4], n)
            restarts = int(server.process.poll() is not None) + len(set(before) - set(workers(server)))
            if "Traceback" in server.output():
                ledger.faults.append("a traceback")
        ledger.faults += [f"left behind: {path.name}" for path in (places[1] / ".incoming").iterdir()]
        wait_until_settled(places[0], ledger)
    figure = f"{cycles} times full and free: {restarts} restarts, {refused} uploads refused, {ledger.summarise()}"
    if ledger.faults:
        figure += f"; {ledger.faults[0]}"
    return Outcome(figure, not ledger.faults and not restarts and refused >= cycles // 2)


def cycle(server: RunningServer, ledger: Ledger, places: Sequence[Path], n: int) -> int:
    """Fill these file systems, check the answers, free them, and wait for recovery; returns the number of refusals."""
    refused = 0
    for place in places:
        fill(place / "filler")
    for _ in range(3):
        content = ledger.new((300, 200))
        response = server.upload(content, wait=0)
        if response.status_code in (200, 202):
            ledger.stored(digest(content))
        elif response.status_code in FULL:
            refused += 1
        else:
            ledger.faults.append(f"upload {response.status_code}: {response.text[:100]}")
    search = server.http.get("/v1/search", params={"q": "red"})
    if search.status_code != 200 or not search.json()["hits"]:
        ledger.faults.append(f"search {search.status_code}: {search.text[:100]}")
    listed = server.http.get("/v1/images", params={"limit": 3}).json()["images"]
    thumbnail = server.http.get(f"/v1/images/{listed[0]['id']}/thumbnail", params={"size": 64 << n % 3})
    if thumbnail.status_code not in (200, 202, 409, *FULL):
        ledger.faults.append(f"thumbnail {thumbnail.status_code}: {thumbnail.text[:100]}")
    if n % 3 == 0 and len(ledger.there) > 5:
        image = listed[-1]
        ledger.deleting(image["sha256"])
        status = server.http.delete(f"/v1/images/{image['id']}").status_code
        if status == 204:
            ledger.deleted(image["sha256"])
        elif status not in FULL:
            ledger.faults.append(f"delete {status}")
    for place in places:
        (place / "filler").unlink()
    store(server, ledger)
    return refused


def store(server: RunningServer, ledger: Ledger) -> None:
    """Upload one picture, again and again until the server takes it."""
    content = ledger.new((300, 200))
    taken = wait_until(lambda: server.upload(content, wait=0).status_code in (200, 202), MEND, server.output)
    assert taken
    ledger.stored(digest(content))


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size. Raises Impossible if this machine cannot."""
    at.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        raise Impossible(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def fill(path: Path) -> None:
    """Take all free bytes of the file system."""
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(os.urandom(1) * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
