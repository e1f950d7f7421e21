"""Twelve moments at which a kill is worst, and how to be there: strace kills on the way into a system call."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import apsw
import httpx2 as httpx

from tests.reliability import traced
from tests.reliability.client import connect, digest, pictures, upload_request
from tests.reliability.ledger import Ledger
from tests.reliability.strike import workers
from tests.support.servers import RunningServer, wait_until

SECONDS = 60.0
MIGRATE = "import sys; from app.storage.address import open_database; open_database(sys.argv[1])"
TEXTS = 1001  # one more than an index has to be given before it is saved


@dataclass(frozen=True, slots=True)
class Window:
    """A moment. `act(server, ledger, n)` brings the server there for the nth time, and kills it."""

    name: str
    act: Callable[[RunningServer, Ledger, int], None]
    workers: int = 0


def upload(server: RunningServer, ledger: Ledger) -> None:
    """Send a picture, whatever becomes of the answer."""
    content = ledger.new()
    try:
        response = server.upload(content, wait=0)
    except httpx.TransportError:
        return
    assert response.status_code in (200, 202), response.text
    ledger.stored(digest(content))


def kill_during_upload(*calls: str, spread: int = 1) -> Callable[[RunningServer, Ledger, int], None]:
    """A kill on the way into one of these calls, in turn, the nth of its thread up to `spread`."""

    def upload_and_kill(server: RunningServer, ledger: Ledger, n: int) -> None:
        options = traced.kill_at_syscall(calls[n % len(calls)], 1 + (n // len(calls)) % spread)
        with traced.attach_strace(server.process.pid, *options):
            upload(server, ledger)
            expect_killed(server)

    return upload_and_kill


def kill_after_answer(server: RunningServer, ledger: Ledger, n: int) -> None:
    """The first bytes of the answer are here."""
    content = ledger.new()
    with connect(server.url) as connection:
        connection.sendall(upload_request(server.url, content))
        if connection.recv(12).endswith(b" 202"):
            server.process.kill()
            ledger.stored(digest(content))
    expect_killed(server)


def kill_after_embedding(server: RunningServer, ledger: Ledger, n: int) -> None:
    """The worker has its vector, and commits; some are killed at the claim before."""
    (worker,) = wait_until(lambda: workers(server), SECONDS)
    wait_until(lambda: server.http.get("/v1/stats").json()["images"]["queued"] == 0, SECONDS)
    options = (
        traced.kill_at_syscall("pwrite64", 1 + n // 2)
        if n % 2 == 0
        else traced.kill_at_syscall("fdatasync", 1 + n // 2 % 2)
    )
    with traced.attach_strace(worker, *options) as tracer:
        for _ in range(6):
            upload(server, ledger)
        wait_until(lambda: tracer.poll() is not None, SECONDS)
    server.process.kill()
    expect_killed(server)


def kill_after_indexing(server: RunningServer, ledger: Ledger, n: int) -> None:
    """A search finds it."""
    content = ledger.new()
    id = server.upload(content, wait=60).json()["id"]
    ledger.stored(digest(content))
    found = server.http.get("/v1/search", params={"q": "red", "k": 1000}).json()["hits"]
    server.process.kill()
    expect_killed(server)
    if id not in {hit["id"] for hit in found}:
        ledger.faults.append(f"ready and not found {id}")


def kill_during_save(*calls: str) -> Callable[[RunningServer, Ledger, int], None]:
    """A kill on the way into one of these calls while the index is saved, by a server that stops or by itself."""

    def upload_and_kill(server: RunningServer, ledger: Ledger, n: int) -> None:
        texts = [{"text": f"red {n} {number} {time.time_ns()}"} for number in range(TEXTS - 1)]
        call, _, when = calls[n % len(calls)].partition("#")
        # Attached before they are sent: now and then they are the ones for which it saves at once.
        with traced.attach_strace(server.process.pid, *traced.kill_at_syscall(call, int(when or 1))):
            with contextlib.suppress(httpx.TransportError):
                server.http.post("/v1/texts", json={"texts": texts}).raise_for_status()
                server.http.post("/v1/texts", json={"texts": [{"text": f"blue {time.time_ns()}"}]}).raise_for_status()
            server.process.send_signal(signal.SIGTERM)
            expect_killed(server)

    return upload_and_kill


def kill_during_delete(server: RunningServer, ledger: Ledger, n: int) -> None:
    """The row goes, the row is gone, the file goes."""
    image = pictures(server)[0]
    options = traced.kill_at_syscall(
        ("pwrite64", "fdatasync", "unlink")[n % 3], 1 + (n // 3) % (4 if n % 3 == 0 else 1)
    )
    with traced.attach_strace(server.process.pid, *options):
        delete(server, ledger, image)
        expect_killed(server)


def delete(server: RunningServer, ledger: Ledger, image: dict[str, Any]) -> None:
    """Delete a picture, whatever becomes of the answer."""
    ledger.deleting(image["sha256"])
    try:
        response = server.http.delete(f"/v1/images/{image['id']}")
    except httpx.TransportError:
        return
    assert response.status_code == 204, response.text
    ledger.deleted(image["sha256"])


def expect_killed(server: RunningServer) -> None:
    """The window was reached."""
    assert server.process.wait(SECONDS) == -signal.SIGKILL, server.output()
    server.kill()


def kill_during_migration(folder: Path, n: int) -> list[str]:
    """Kill a migration from one of the former schemas at its nth write, then migrate; returns what is wrong then.

    One that writes less often is begun anew: `n` modulo its writes.
    """
    steps = read_migrations()
    path, copy = folder / f"former-{n}.db", folder / f"counted-{n}.db"
    for file in (path, copy):
        make_former_directory(file, steps[: 1 + n % (len(steps) - 1)])
    command = [sys.executable, "-c", MIGRATE]
    counted = [traced.require(), "-f", "-e", "trace=pwrite64", *command, str(copy)]
    writes = subprocess.run(counted, capture_output=True, text=True, check=True).stderr.count("pwrite64(")
    under = [traced.require(), "-f", "-o", "/dev/null", *traced.kill_at_syscall("pwrite64", 1 + n % writes)]
    ended = subprocess.run([*under, *command, str(path)], capture_output=True, text=True, check=False)
    wrong = [] if ended.returncode in (-9, 137) else [f"was not killed: {ended.returncode} {ended.stderr[-200:]}"]
    subprocess.run([*command, str(path)], check=True)
    connection = apsw.Connection(str(path))
    if connection.pragma("user_version") != steps[-1][0] or connection.pragma("integrity_check") != "ok":
        wrong.append(f"schema {connection.pragma('user_version')}, {connection.pragma('integrity_check')}")
    if next(iter(connection.execute("SELECT count(*) FROM texts")))[0] != 50:
        wrong.append("lost rows")
    connection.close()
    return wrong


def read_migrations() -> list[tuple[int, str]]:
    """Every step of the schema: its number and its statements."""
    files = [file for file in resources.files("app.storage.migrations").iterdir() if file.name.endswith(".sql")]
    return sorted((int(file.name[:4]), file.read_text("utf-8")) for file in files)


def make_former_directory(path: Path, steps: list[tuple[int, str]]) -> None:
    """A database as it was after these steps, with 50 texts."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "WAL")
    for number, script in steps:
        connection.execute(script)
        connection.pragma("user_version", number)
    for number in range(50):
        connection.execute(
            "INSERT INTO texts (collection, id, text, metadata, created_at) VALUES (?, ?, ?, '{}', '')",
            ("default", f"{number}", f"text {number}"),
        )
    connection.close()


WINDOWS = (
    Window("file written", kill_during_upload("fsync")),
    Window("file synced", kill_during_upload("link", "rename")),
    Window("file renamed", kill_during_upload("unlink")),
    Window("folder synced", kill_during_upload("pwrite64", spread=10)),
    Window("row written or committed", kill_during_upload("fdatasync", "unlinkat")),
    Window("answer sent", kill_after_answer),
    Window("embedded", kill_after_embedding, workers=1),
    Window("index added", kill_after_indexing, workers=1),
    Window("snapshot half written", kill_during_save("fsync#1", "fsync#2", "fsync#3")),
    Window("snapshot renamed", kill_during_save("rename#1", "fsync#4", "fsync#5")),
    Window("delete half done", kill_during_delete),
)
