"""A deleted picture stays away from searches, lists and its address, after the 204 and after kill -9.

The proof kills a server around a delete: by strace on entry to a write of the log, its fsync, or the removal of the
file; or by the client once it has the 204. After each start it looks for every picture whose delete was ever
acknowledged: in a search of everything, in the list, and at its address. Between kills, deletes and searches run side
by side; a search that begins after a 204 must not find the picture.

Failing: one picture comes back.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.reliability import traced
from tests.reliability.client import digest, pictures
from tests.reliability.ledger import Ledger
from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.windows import delete, expect_killed
from tests.support.servers import RunningServer

PROMISE = Promise(4, "deleted", "Deleted means gone: no search finds it, nothing serves it, after a crash too.")
WINDOWS = (("pwrite64", 1), ("fdatasync", 1), ("unlink", 1), ("204", 1), ("pwrite64", 4), ("204", 1))
AT_ONCE = 4


def run(scale: Scale) -> Outcome:
    """100 kills around a delete."""
    kills = scale.pick(6, 100)
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name) / "ledger") as ledger:
        data = Path(name) / "data"
        deleted: list[str] = []
        with RunningServer(data) as server:
            fill(server, ledger, 3 * kills)
        for n in range(kills):
            server = RunningServer(data, workers=0)
            ledger.compare(server)
            check_absent(server, ledger, deleted)
            first, *rest = pictures(server)
            for image in rest[: 2 * (n % 2)]:
                side_by_side(server, ledger, image, deleted)
            delete_and_kill(server, ledger, first, deleted, *WINDOWS[n % len(WINDOWS)])
        with RunningServer(data) as server:
            ledger.compare(server, settled=True)
            check_absent(server, ledger, deleted)
    back = [fault for fault in ledger.faults if fault.startswith("back again")]
    figure = f"{kills} kills, {len(ledger.gone)} deleted: {len(back)} resurrections"
    if len(ledger.faults) > len(back):
        figure += f"; {ledger.faults[0]}"
    return Outcome(figure, not ledger.faults)


def fill(server: RunningServer, ledger: Ledger, count: int) -> None:
    """Upload pictures and wait until searches find them."""
    for n in range(count):
        content = ledger.new()
        server.upload(content, wait=60 if n == count - 1 else 0).raise_for_status()
        ledger.stored(digest(content))


def delete_and_kill(
    server: RunningServer, ledger: Ledger, image: dict[str, Any], deleted: list[str], call: str, when: int
) -> None:
    """Delete a picture; kill the server on entry to a call, or once it has answered."""
    if call == "204":
        delete(server, ledger, image)
        server.process.kill()
        expect_killed(server)
    else:
        with traced.attach_strace(server.process.pid, *traced.kill_at_syscall(call, when)):
            delete(server, ledger, image)
            expect_killed(server)
    if image["sha256"] in ledger.gone:
        deleted.append(image["id"])


def side_by_side(server: RunningServer, ledger: Ledger, image: dict[str, Any], deleted: list[str]) -> None:
    """Delete a picture while others search; a search that begins after the 204 must not find it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        others = [pool.submit(search_ids, server) for _ in range(AT_ONCE - 1)]
        delete(server, ledger, image)
        after = pool.submit(search_ids, server)
        if image["id"] in after.result():
            ledger.faults.append(f"back again {image['sha256'][:8]}: found after the 204")
        for other in others:
            other.result()
    deleted.append(image["id"])


def search_ids(server: RunningServer) -> set[str]:
    """The ids that a search of everything finds."""
    hits = server.http.get("/v1/search", params={"q": "red", "k": 1000}).json()["hits"]
    return {hit["id"] for hit in hits}


def check_absent(server: RunningServer, ledger: Ledger, deleted: list[str]) -> None:
    """Check that the server neither finds nor serves a deleted picture."""
    for id in search_ids(server) & set(deleted):
        ledger.faults.append(f"back again {id}: found")
    for id in deleted[-20:]:
        for path in (f"/v1/images/{id}", f"/v1/images/{id}/file", f"/v1/images/{id}/thumbnail"):
            if server.http.get(path).status_code != 404:
                ledger.faults.append(f"back again {path}")
