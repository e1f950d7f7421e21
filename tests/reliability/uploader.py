"""Clients that upload to any server of a cluster while something is done to it, and what must be true at the end."""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.reliability.client import digest, pictures
from tests.reliability.ledger import Ledger
from tests.support.cluster import LEASE_SECONDS, Cluster
from tests.support.servers import RunningServer, wait_until

GRACE = 10.0  # seconds beside the lease
RATE = 5.0  # pictures a second that the workers embed at least
BULK = 12
PAUSE = 0.05  # between two uploads of a client
AWAY = "the PostgreSQL database cannot be opened"  # what a process says that starts meanwhile
RETRYABLE = (429, 502, 503, 504)


class Uploader:
    """A client with a ledger of its own, which sends to any server, and again where the answer was lost."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int) -> None:
        self._cluster, self._dice = cluster, random.Random(seed)
        self.ledger = Ledger(folder / f"ledger-{seed}")
        self.enough = threading.Event()
        self.odd: list[str] = []
        self.refused = 0
        self._thread = threading.Thread(target=self._run, daemon=True)  # it must not outlive a proof that fails
        self._thread.start()

    def end(self) -> None:
        self.enough.set()
        self._thread.join(120)

    def _run(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as http:
            while not self.enough.is_set():
                if self._dice.random() < 0.1:
                    self._send_bulk(http)
                else:
                    self._send_one(http)
                time.sleep(PAUSE)

    def _post(self, http: httpx.Client, path: str, files: Any, key: str) -> httpx.Response | None:
        """The answer; None where it was lost, or the server refused for now."""
        url = self._dice.choice(self._cluster.servers).url
        try:
            response = http.post(f"{url}{path}", files=files, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            return None
        if response.status_code in RETRYABLE or is_in_progress(response):
            self.refused += 1
            return None
        if response.status_code not in (200, 202):
            self.odd.append(f"{response.status_code} {response.text[:200]}")
        return response

    def _send_one(self, http: httpx.Client) -> None:
        content = self.ledger.new()
        for _ in range(3):
            if self._post(http, "/v1/images", {"file": ("one.png", content)}, digest(content)) is not None:
                self.ledger.stored(digest(content))
                return

    def _send_bulk(self, http: httpx.Client) -> None:
        contents = [self.ledger.new() for _ in range(BULK)]
        files = [("files", (f"{n}.png", content)) for n, content in enumerate(contents)]
        for _ in range(3):
            response = self._post(http, "/v1/images/bulk", files, digest(b"".join(contents)))
            if response is not None and response.status_code == 202:
                self.ledger.accepted(response.json()["id"], contents)
                return


def is_in_progress(response: httpx.Response) -> bool:
    """Whether the first of two equal requests, whose answer was lost, is still at work: the client may try again."""
    return response.status_code == 409 and response.json()["code"] == "in_progress"


def settle(cluster: Cluster, uploaders: list[Uploader]) -> tuple[int, list[str]]:
    """Wait until everything has ended, and compare; how many pictures there are, and what is wrong."""
    faults = [fault for uploader in uploaders for fault in uploader.odd]
    faults += revive(cluster)
    for server in cluster.servers:
        server.wait_ready()
    server = cluster.servers[0]
    wait_until(lambda: server.http.get("/v1/stats").status_code == 200, GRACE)
    waiting = server.http.get("/v1/stats").json()["images"]
    due = LEASE_SECONDS + GRACE + (waiting["queued"] + waiting["processing"] + BULK * 20) / RATE
    began = time.monotonic()

    def is_overdue() -> bool:
        return time.monotonic() - began > LEASE_SECONDS + GRACE and count_overdue(cluster) > 0

    try:
        wait_until(lambda: has_settled(cluster) or is_overdue(), due)
        if late := count_overdue(cluster) if is_overdue() else 0:
            faults.append(f"stuck {late} leases, {GRACE:.0f} s after their end")
            wait_until(lambda: has_settled(cluster), due)
    except AssertionError:
        stuck = server.http.get("/v1/stats").json()["images"]
        faults.append(f"stuck {stuck['queued']} queued, {stuck['processing']} processing after {due:.0f} s")
    with ExitStack() as ledgers:
        ledger = merge([ledgers.enter_context(uploader.ledger) for uploader in uploaders])
        for id, digests in ledger.jobs.items():
            job = server.http.get(f"/v1/jobs/{id}").json()
            if job["state"] != "succeeded" or job["done"] + job["duplicates"] + job["failed"] != len(digests):
                faults.append(f"stuck job {job['state']}, {job['done']} of {len(digests)}")
        retry_quarantined(cluster, ledger)
        count = ledger.compare(server, settled=True)
        wait_until(lambda: all(count_found(each) == count for each in cluster.servers), GRACE, lambda: "an index lags")
    return count, faults + ledger.faults


def revive(cluster: Cluster) -> list[str]:
    """Start again, as compose and Kubernetes do, what ended because PostgreSQL was away; what else has ended."""
    faults = []
    for server in list(cluster.servers):
        if server.process.poll() is not None:
            if AWAY not in server.output():
                faults.append(f"a server ended with {server.process.returncode}: {server.output()[-300:]}")
            cluster.replace_server(server)
    for worker in cluster.workers:
        if worker.process.poll() is not None:
            if AWAY not in "".join(worker.lines):
                faults.append(f"a worker ended with {worker.process.returncode}: {''.join(worker.lines)[-300:]}")
            worker.restart()
    return faults


def has_settled(cluster: Cluster) -> bool:
    answer = cluster.servers[0].http.get("/v1/stats")
    if answer.status_code != 200:  # a part of the cluster is still starting
        return False
    stats = answer.json()["images"]
    (rows,) = cluster.query("SELECT count(*) FROM sources")
    return bool(stats["queued"] == stats["processing"] == rows[0] == 0)


def count_overdue(cluster: Cluster) -> int:
    """The pictures and uploads whose lease ended GRACE seconds ago, and that nobody has taken back."""
    late = f"SELECT count(*) FROM {{}} WHERE lease_owner IS NOT NULL AND lease_until < lease_clock() - {GRACE}"
    return sum(cluster.query(late.format(table))[0][0] for table in ("images", "sources"))


def count_found(server: RunningServer) -> int:
    """The vectors in the index of a server."""
    return int(server.http.get("/v1/stats").json()["index"]["images"]["ntotal"])


def merge(ledgers: list[Ledger]) -> Ledger:
    """One book of all clients."""
    first = ledgers[0]
    for other in ledgers[1:]:
        first.sent |= other.sent
        first.there |= other.there
        first.unsure |= other.unsure
        first.jobs |= other.jobs
        first.faults += other.faults
    return first


def retry_quarantined(cluster: Cluster, ledger: Ledger) -> None:
    """Send once more what was given up: a picture that was alone at work at three kills is."""
    server = cluster.servers[0]
    for image in pictures(server):
        if image["status"] == "failed" and " died 3 times " in image["error"]["detail"]:
            ledger.given_up += 1
            server.upload(ledger.sent[image["sha256"]], wait=60).raise_for_status()


def count_faults(faults: list[str]) -> str:
    """What was found, in words, with the first fault of another kind."""
    kinds = ("lost", "doubled", "stuck")
    found = ", ".join(f"{sum(fault.startswith(kind) for fault in faults)} {kind}" for kind in kinds)
    others = [fault for fault in faults if not fault.startswith(kinds)]
    return found + (f"; {others[0]}" if others else "")
