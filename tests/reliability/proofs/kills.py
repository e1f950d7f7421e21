"""Acknowledged pictures survive kill -9 of server, worker or both, at random and at the worst moments.

Random: clients upload single pictures, bulks and archives. Each client writes what it sent, and what the server
acknowledged, to its own fsynced ledger. The proof kills server, worker or both 0 to 0.9 s after the server accepted a
bulk, and starts them again.

Windows: there are twelve moments (file written, synced, renamed; folder synced; row committed; answer sent; embedded;
in the index; snapshot half written, renamed; delete half done; migration). At each, strace kills the process on entry
to a system call.

After each start the proof compares the server's list with the ledger. At the end it compares every byte; every job must
have ended; every picture must be ready (a picture that was alone at work at three kills, after it is sent again); and
`sightline verify` may report only files without a row.

Failing: one picture is lost, doubled, altered, back after its delete, or there although no client sent it; a process
outlives its parent; the proof did not reach a window.
"""

from __future__ import annotations

import contextlib
import io
import random
import tempfile
import threading
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.acceptance.commands import sightline
from tests.reliability.client import digest, pictures
from tests.reliability.ledger import Ledger
from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.strike import kill_processes, workers
from tests.reliability.windows import WINDOWS, Window, kill_during_migration
from tests.support.servers import RunningServer, wait_until

PROMISE = Promise(1, "kills", "A picture acknowledged with 2xx survives kill -9 at any moment, once, byte for byte.")
KINDS = ("worker", "server", "both")
BULK = 40
LONGEST = 0.9
SEED = random.SystemRandom().randrange(1 << 32)


def run(scale: Scale) -> Outcome:
    """200 random kills, and 20 at each of the twelve windows."""
    rounds, times = scale.pick(12, 200), scale.pick(1, 20)
    lanes = 2
    print(f"seed {SEED}")
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2 * lanes) as pool:
        folder = Path(name)
        shares = [WINDOWS[n::lanes] for n in range(lanes)]
        first = [pool.submit(kill_at_windows, folder / f"w{n}", share, times) for n, share in enumerate(shares)]
        ledgers = [each.result() for each in first]
        wrong = [why for n in range(times) for why in kill_during_migration(folder, n)]
        then = [pool.submit(kill_at_random, folder / f"r{n}", rounds // lanes, SEED + n) for n in range(lanes)]
        ledgers += [each.result() for each in then]
    faults = [fault for ledger in ledgers for fault in ledger.faults] + wrong
    counts = {kind: sum(fault.startswith(kind) for fault in faults) for kind in ("lost", "doubled", "altered")}
    found = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    stored = sum(len(ledger.there) for ledger in ledgers)
    figure = f"{rounds} random kills, {(len(WINDOWS) + 1) * times} at windows, {stored} pictures: {found}"
    if given_up := sum(ledger.given_up for ledger in ledgers):
        figure += f"; {given_up} given up after three kills each, and ready once sent again"
    if set(faults) and not any(counts.values()):
        figure += f"; {faults[0]}"
    return Outcome(figure, not faults)


def kill_at_windows(folder: Path, windows: Sequence[Window], times: int) -> Ledger:
    """Kill a server at each window, so many times; the next start shows the state it left."""
    folder.mkdir()
    data = folder / "data"
    with Ledger(folder / "ledger") as ledger:
        with RunningServer(data) as server:
            for _ in range(2 * times):
                content = ledger.new()
                server.upload(content).raise_for_status()
                ledger.stored(digest(content))
        for n in range(times):
            for window in windows:
                if n % 5 == 4:  # in the middle of a start, too
                    RunningServer(data, workers=0, ready=False).kill()
                server = RunningServer(data, workers=window.workers)
                try:
                    ledger.compare(server)
                    window.act(server, ledger, n)
                except BaseException as error:
                    server.kill()
                    raise AssertionError(f"{window.name}, {n}: {error!r}") from error
        wait_until_settled(data, ledger)
    return ledger


def kill_at_random(folder: Path, rounds: int, seed: int) -> Ledger:
    """Kill at random moments of a load, and compare at the end."""
    folder.mkdir()
    dice = random.Random(seed)
    data = folder / "data"
    server: RunningServer | None = None
    with Ledger(folder / "ledger") as ledger:
        for n in range(rounds):
            kind = KINDS[n % len(KINDS)]
            server = server or RunningServer(data)
            wait_until(lambda: workers(server), 60)  # noqa: B023 (asked at once)
            enough = threading.Event()
            trickling = threading.Thread(target=upload_until, args=(server.url, ledger, enough))
            trickling.start()
            bulk(server, ledger, archive=n % 2 == 0)
            time.sleep(dice.uniform(0, LONGEST))
            kill_processes(server, kind)
            if kind == "worker":  # the server goes on, into the next round
                time.sleep(dice.uniform(0, LONGEST))
            else:
                server = None
            enough.set()
            trickling.join(60)
        if server is not None:
            server.kill()
        wait_until_settled(data, ledger)
    return ledger


def upload_until(url: str, ledger: Ledger, enough: threading.Event) -> None:
    """Send pictures one by one until `enough` is set or the server is gone."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http, contextlib.suppress(httpx.TransportError):
        while not enough.is_set():
            content = ledger.new()
            response = http.post("/v1/images", files={"file": ("one.png", content)})
            assert response.status_code in (200, 202), response.text
            ledger.stored(digest(content))


def bulk(server: RunningServer, ledger: Ledger, archive: bool) -> None:
    """Send a bulk, as one archive or as loose files."""
    contents = [ledger.new() for _ in range(BULK)]
    files = [(f"{n}.png", content) for n, content in enumerate(contents)]
    if archive:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as zipped:
            for name, content in files:
                zipped.writestr(name, content)
        files = [("bulk.zip", out.getvalue())]
    ledger.accepted(server.bulk(files)["id"], contents)


def wait_until_settled(data: Path, ledger: Ledger) -> None:
    """Wait for everything accepted to end, then compare every byte."""
    with RunningServer(data) as server:
        for id, digests in ledger.jobs.items():
            job = server.wait_job(id, 300)
            if job["state"] != "succeeded" or job["done"] + job["failed"] != len(digests):
                ledger.faults.append(f"job {id}: {job['state']}, {job['done']} of {len(digests)}")
        for state in ("queued", "processing"):
            wait_until(lambda: server.http.get("/v1/stats").json()["images"][state] == 0, 120)  # noqa: B023 (asked at once)
        retry_quarantined(server, ledger)
        count = ledger.compare(server, settled=True)
        stats = server.http.get("/v1/stats").json()
        if stats["images"]["ready"] != count or stats["index"]["images"]["ntotal"] != count:
            ledger.faults.append(
                f"{count} pictures, {stats['images']['ready']} ready, index {stats['index']['images']}"
                + "".join(f"; {image['status']}: {image['error']}" for image in list_unready(server))
            )
    checked = sightline("verify", "--data-dir", data)
    found = [line.split()[1] for line in checked.stdout.splitlines() if line.startswith("│")]
    # A kill between a file's placing and its row's commit may leave the file of a picture never acknowledged.
    ledger.faults += [f"verify: {fault}" for fault in found if fault != "orphan"]


def retry_quarantined(server: RunningServer, ledger: Ledger) -> None:
    """Send once more what was given up.

    A picture that was alone at work at three kills is: nothing tells it from one that kills. Its bytes are kept.
    """
    for image in list_unready(server):
        if image["status"] == "failed" and " died 3 times " in image["error"]["detail"]:
            ledger.given_up += 1
            server.upload(ledger.sent[image["sha256"]], wait=60).raise_for_status()


def list_unready(server: RunningServer) -> list[dict[str, Any]]:
    """The pictures that searches cannot find."""
    return [image for image in pictures(server) if image["status"] != "ready"]
