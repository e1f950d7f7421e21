"""No picture takes the service down.

The proof uploads some hundreds of hostile files, made from a seed (`tests/reliability/hostile.py`): JPEG, PNG, WebP,
GIF, AVIF, 200 mutations of each newer format, and files that only pretend to be pictures. It waits for each before it
sends the next.

Failing: an answer of 500 or above; the server ends; a file takes longer than 15 s beyond its waiting; a failure has an
undocumented code; a rare but valid picture is refused; a file makes the server start another process; the server needs
300 MiB more memory.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.reliability.hostile import corpus
from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.watched import Watch
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(9, "pictures", "No picture can take the service down; a bad one is refused with a reason.")
CODES = {"image_too_large", "image_corrupt", "unsupported_media_type"}
STATUSES = {200, 202, 413, 415, 422}
LONGEST = 15.0
BESIDE = 300  # MiB


def run(scale: Scale) -> Outcome:
    """Every file of the corpus; the short form tries every tenth of the cuts and flips."""
    wrong: list[str] = []
    told: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data") as server:
        server.upload(picture())
        pids = set(server.pids())
        with Watch(server.process.pid) as watch:
            for name, content in corpus(9, scale.pick(10, 1)):
                began = time.monotonic()
                said = describe_outcome(server, name, content)
                slowest = max(slowest, took := time.monotonic() - began)
                told[said] += 1
                if said not in allowed_outcomes(name) or took > LONGEST:
                    wrong.append(f"{name}: {said} after {took:.1f} s")
                if server.process.poll() is not None:
                    return Outcome(f"the server ended at {name}", False)
        last = server.upload(picture(seed=99)).json()["status"]
        restarted = set(server.pids()) != pids
        traceback = "Traceback" in server.output()
    counts = ", ".join(f"{n} {said}" for said, n in sorted(told.items()))
    figure = (
        f"{told.total()} files: {counts}; {len(wrong)} otherwise{': ' + '; '.join(wrong[:3]) if wrong else ''};"
        f" slowest {slowest:.1f} s, memory +{watch.more} MiB, 0 deaths"
    )
    return Outcome(figure, not wrong and not restarted and not traceback and last == "ready" and watch.more <= BESIDE)


def allowed_outcomes(name: str) -> set[str]:
    """The permitted outcomes of a file; for some files only one is right."""
    only = {"good": "ready", "foreign": "unsupported_media_type", "bomb": "image_too_large"}
    if name.startswith("claims-65535x65535"):
        return {"image_too_large"}
    return {only[kind]} if (kind := name.partition("-")[0]) in only else {"ready", *CODES}


def describe_outcome(server: RunningServer, name: str, content: bytes) -> str:
    """`ready`, the code with which a file was refused or failed, or a description of a fault."""
    answer = server.upload(content, name, wait=30)
    if answer.status_code not in STATUSES:
        return f"status {answer.status_code}"
    said = answer.json()
    if answer.status_code >= 400:
        return str(said["code"])
    return str(said["error"]["code"] if said["status"] == "failed" else said["status"])
