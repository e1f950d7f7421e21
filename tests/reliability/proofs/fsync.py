"""A failed fsync is never reported as success.

strace makes the nth fsync and the nth fdatasync of each thread of a server fail with EIO, for each n from 1 on. Clients
upload one picture after another, and send some again after a refusal.

Failing: an upload answered with 2xx although the trace does not show all successful syncs in order before the answer
(as for `order`); an answer other than 2xx, 507 or 503; an answer that the trace lacks; no refusal at all; an
acknowledged picture that is not there, whole, after kill -9.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability import durable, traced
from tests.reliability.client import digest, pictures
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(8, "fsync", "A failing fsync is never reported as success.")
UPLOADS = 14
SYNCS = "fsync,fdatasync"


@dataclass(slots=True)
class Tally:
    """The results of all runs."""

    uploads: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    acknowledged: dict[str, bytes] = field(default_factory=dict)


def run(scale: Scale) -> Outcome:
    """The nth fsync fails, n = 1…30."""
    numbers = scale.pick((1, 2, 4, 7), tuple(range(1, 31)))
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder).resolve() / "data"
        log = durable.Log(str(data))
        server = RunningServer(data, workers=0)
        for n in numbers:
            trace = Path(folder) / f"trace-{n}"
            options = (*durable.OPTIONS, *traced.fail_syscall(SYNCS, n))
            with traced.attach_strace(server.process.pid, *options, into=trace):
                send(server, tally, n)
                # strace may end before it wrote the last answer down: a further answer comes after that.
                server.http.get("/livez").raise_for_status()
            durable.read_trace(trace, log)
        server.kill()
        tally.wrong += log.wrong
        with RunningServer(data, workers=0) as server:
            compare(server, tally)
    figure = f"n = 1…{max(numbers)}: {tally.refused} of {tally.uploads} uploads refused, {len(tally.wrong)} false 2xx"
    if log.answered != len(tally.acknowledged):
        figure += f"; the traces have {log.answered} of {len(tally.acknowledged)} answers"
    if tally.wrong:
        figure += f"; {tally.wrong[0]}"
    seen = log.answered == len(tally.acknowledged)
    return Outcome(figure, seen and not tally.wrong and tally.refused >= len(numbers) // 2)


def send(server: RunningServer, tally: Tally, n: int) -> None:
    """Upload; send a refused picture again."""
    for number in range(UPLOADS + n):
        content = picture(seed=1000 * n + number, size=(29, 31))
        for _ in range(2):
            tally.uploads += 1
            status = server.upload(content, wait=0).status_code
            if status in (200, 202):
                tally.acknowledged[digest(content)] = content
                break
            tally.refused += 1
            if status not in (503, 507):
                tally.wrong.append(f"status {status}")


def compare(server: RunningServer, tally: Tally) -> None:
    """Kill the server and check that every acknowledged picture is there."""
    there = {image["sha256"]: image["id"] for image in pictures(server)}
    for sha256, content in tally.acknowledged.items():
        if sha256 not in there or server.http.get(f"/v1/images/{there[sha256]}/file").content != content:
            tally.wrong.append(f"{sha256[:8]} is lost")
