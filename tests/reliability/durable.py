"""Reads in a trace whether every upload that was answered with 2xx was on the disk before."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.traced import Call, read_calls

TRACED = "fsync,fdatasync,rename,link,mkdir,pwrite64,write,sendto,sendmsg"
OPTIONS = ("-y", "-s", "600", "-e", f"trace={TRACED}", "-e", "signal=none")
NAMED = re.compile(r'"([^"]*)"')
FILE = re.compile(r"^\d+<([^>]*)>")
DIGEST = re.compile(r'\\"sha256\\":\\"([0-9a-f]{64})\\"')
HEAD = re.compile(r'"HTTP/1\.1 (\d{3})')
DUPLICATE = '\\"duplicate\\":true'


@dataclass(slots=True)
class Placed:
    """A picture on its way to the disk: the numbers of the lines at which each step was done."""

    source: str
    linked: int
    renamed: int = -1


@dataclass(slots=True)
class Log:
    """What a trace tells so far."""

    data: str
    lines: int = 0
    synced: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # path: (began, ended) of good fsyncs
    named: dict[str, int] = field(default_factory=dict)  # path: when it got its name
    wal: list[int] = field(default_factory=list)  # when frames were written
    placed: dict[str, Placed] = field(default_factory=dict)
    links: dict[str, Placed] = field(default_factory=dict)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)  # socket: the last answer's begin, status
    answered: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


def read_trace(trace: Path, log: Log) -> None:
    """Go through a trace, the next of the same server; the log's `wrong` says which answers came too early."""
    for call in read_calls(trace, log.lines):
        log.lines = max(log.lines, call.ended + 1)
        if call.name in ("write", "sendto", "sendmsg"):
            check_answer(log, call)
        elif call.ok:
            step(log, call)


def step(log: Log, call: Call) -> None:
    """Remember a call that changed or synced something below the data directory."""
    if call.name in ("fsync", "fdatasync"):
        if match := FILE.match(call.arguments):
            log.synced.setdefault(match[1], []).append((call.began, call.ended))
    elif call.name == "pwrite64":
        if (match := FILE.match(call.arguments)) and match[1].endswith("/sightline.db-wal"):
            log.wal.append(call.began)
    else:
        paths = NAMED.findall(call.arguments)
        target = paths[-1]
        log.named[target] = call.ended
        if call.name == "link":
            log.links[target] = Placed(paths[0], call.ended)
        elif call.name == "rename" and paths[0] in log.links:
            placed = log.placed[Path(target).name] = log.links.pop(paths[0])
            placed.renamed = call.ended


def check_answer(log: Log, call: Call) -> None:
    """An answer's head or body goes out: hold it to what was done before."""
    socket = call.arguments.split(",", 1)[0]
    if head := HEAD.search(call.arguments):
        log.heads[socket] = (call.began, head[1])
    if socket not in log.heads or "<socket" not in socket:
        return
    at, status = log.heads[socket]
    if not status.startswith("2"):
        log.refused += head is not None
        return
    for sha256 in DIGEST.findall(call.arguments)[:1]:
        log.answered += 1
        if DUPLICATE not in call.arguments and (why := explain_early_answer(log, sha256, at)):
            log.wrong.append(f"{sha256[:8]}: {why}")


def explain_early_answer(log: Log, sha256: str, at: int) -> str:
    """Why an answer at line `at` came before the picture was on the disk; nothing if it did not."""
    placed = log.placed.get(sha256)
    if placed is None:
        return "its file was not there"
    if not any(ended < placed.linked for _, ended in log.synced.get(placed.source, ())):
        return "its bytes were not synced before its name was given"
    folder = Path(log.data, "media", sha256[:2], sha256[2:4])
    named = max(placed.renamed, 0)
    done = [ended for began, ended in log.synced.get(str(folder), ()) if began > named]
    if not done:
        return "its folder was not synced"
    for below in (folder, folder.parent, folder.parent.parent):
        since = log.named.get(str(below), -1)
        if not any(began > since for began, ended in log.synced.get(str(below.parent), ()) if ended < at):
            return f"{below.parent.name} was not synced since it got the name {below.name}"
    frames = [frame for frame in log.wal if min(done) < frame < at]
    wal = log.synced.get(f"{log.data}/sightline.db-wal", ())
    if not any(ended < at and any(frame < began for frame in frames) for began, ended in wal):
        return "the row was not synced"
    return ""
