"""`sightline ingest`: send pictures, folders and archives to a server and watch them go in."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.cli.client import Client, ServerError
from app.cli.table_upload import ITEM_FIELDS, RowBatch, TableUpload, is_table
from app.decode.headers import has_picture_suffix

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
BULK_FILES = 500
BULK_BYTES = 64 << 20
POLL_SECONDS = 0.25
UNFINISHED = ("queued", "running", "paused")
MAX_SHOWN = 50  # failures in the table
NO_JOB: dict[str, Any] = {"id": "", "state": "succeeded", "total": 0}  # a job that need not be
SOURCE_PREFIX = re.compile(r"[a-z][a-z0-9-]*:")


@dataclass(slots=True)
class UploadReport:
    """What became of everything that was sent."""

    done: int = 0
    duplicates: int = 0
    failed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)  # the first SHOWN of them


def ingest(client: Client, paths: Sequence[str], console: Console, options: Mapping[str, Any] | None = None) -> int:
    """Send everything below `paths` (`-`: paths from standard input; `folder:/photos`: a source of the server).

    `options` belong to the sources. Returns the exit status.
    """
    sources = [path for path in paths if is_source(path)]
    paths = [path for path in paths if path not in sources]
    missing = [path for path in paths if path != "-" and not Path(path).exists()]
    if missing:
        raise ServerError(f"there is no {missing[0]}")
    tables = [path for path in paths if is_table(Path(path))]
    bulks = list(group_into_bulks(walk_inputs(expand_stdin(path for path in paths if path not in tables))))
    if not bulks and not sources and not tables:
        raise ServerError("no pictures or archives were found there")
    columns = (options or {}).get("columns", {})
    if wrong := [name for name in options or {} if not sources and (name != "columns" or not tables)]:
        raise ServerError(f"{wrong[0]} belongs to a source that the server reads, clip-retrieval:/data say")
    with tempfile.TemporaryDirectory(prefix="sightline-") as folder:
        parcels = [TableUpload(Path(path), Path(folder, str(n)), columns) for n, path in enumerate(tables)]
        report = upload_all(client, bulks, console, sources, options, parcels)
    show_report(report, console)
    return 1 if report.failed else 0


def ingest_urls(client: Client, listed: Iterable[str], console: Console) -> int:
    """Have the server fetch what the lines list: URLs, or objects with a `url`; returns the exit status."""
    items = [parse_url_line(line) for line in listed if line.strip()]
    if not items:
        raise ServerError("the list is empty")
    report = follow_jobs(client, [(lambda: client.urls(items), len(items))], len(items), console)
    show_report(report, console)
    return 1 if report.failed else 0


def parse_url_line(line: str) -> dict[str, Any]:
    """A line of a list of URLs."""
    if not line.lstrip().startswith("{"):
        return {"url": line.strip()}
    try:
        parsed: dict[str, Any] = json.loads(line)
    except ValueError:
        raise ServerError(f"this line is not JSON: {escape(line[:80].strip())}") from None
    return parsed


def upload_all(
    client: Client,
    bulks: Sequence[Sequence[tuple[str, Path]]],
    console: Console,
    sources: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    tables: Sequence[TableUpload] = (),
) -> UploadReport:
    """Send the bulks one after the other, while the server works on the sources and those before; show one bar."""
    named = [(partial(client.source, source, options or {}), 0) for source in sources]
    files = [(partial(send_bulk, client, bulk), len(bulk)) for bulk in bulks]
    rows = ((partial(send_rows, client, table, one), len(one.lines)) for table in tables for one in table)
    count = sum(map(len, bulks)) + sum(table.count for table in tables)
    return follow_jobs(client, chain(named, files, rows), count, console)


def send_bulk(client: Client, bulk: Sequence[tuple[str, Path]]) -> dict[str, Any]:
    """Send what of a bulk the server does not have; returns the Job, or what one would say when it has all of it."""
    digests = {path: digest_file(path) for _, path in bulk if has_picture_suffix(path.name)}
    known = client.known(list(digests.values())) if digests else set()
    rest = [(name, path) for name, path in bulk if digests.get(path) not in known]
    here = len(bulk) - len(rest)
    job = client.bulk(rest) if rest else NO_JOB
    return {**job, "here": here}


def send_rows(client: Client, table: TableUpload, parcel: RowBatch) -> dict[str, Any]:
    """Send some rows of a table; returns the Job, or what one would say when nothing of them can be sent."""
    if parcel.sort == "url":
        return client.urls(
            [{word: line[word] for word in ("url", *ITEM_FIELDS) if word in line} for line in parcel.lines]
        )
    if parcel.sort == "error":
        return {**NO_JOB, "refused": [{"name": table.name(line), "error": line["error"]} for line in parcel.lines]}
    with table.archive(parcel) as (path, refused):
        job = client.bulk([(path.name, path)]) if path else NO_JOB
    return {**job, "refused": refused}


def digest_file(path: Path) -> str:
    """The SHA-256 of a file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ServerError(f"{path} cannot be read: {error.strerror}") from None


def is_source(path: str) -> bool:
    """Whether this names something that the server has: a kind of source, a colon and a place."""
    return SOURCE_PREFIX.match(path) is not None and not Path(path).exists()


def follow_jobs(
    client: Client, begin: Iterable[tuple[Callable[[], dict[str, Any]], int]], count: int, console: Console
) -> UploadReport:
    """Begin the jobs one after the other, each with how much of the `count` it brings, and watch them to their ends."""
    report = UploadReport()
    refused: list[dict[str, Any]] = []  # rows that could not be sent
    here = 0  # what was not sent, because it is there
    open_jobs: dict[str, dict[str, Any]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("loading", total=None, rate="")
        began = time.monotonic()
        waiting = iter(begin)
        one = next(waiting, None)
        while one or any(job["state"] in UNFINISHED for job in open_jobs.values()):
            if one:
                job = one[0]()
                count -= one[1]
                one = next(waiting, None)
                here += job.get("here", 0)
                refused.extend(job.get("refused", ()))
                if job["id"]:
                    open_jobs[job["id"]] = job
            else:
                time.sleep(POLL_SECONDS)
            for id in [id for id, job in open_jobs.items() if job["state"] in UNFINISHED]:
                open_jobs[id] = client.job(id)
                if open_jobs[id]["state"] in UNFINISHED:
                    break  # those behind it come later, and asking about forty at once slows the server down
            gone = (
                here + len(refused) + sum(job["done"] + job["failed"] + job["duplicates"] for job in open_jobs.values())
            )
            total = here + len(refused) + sum(job["total"] for job in open_jobs.values()) + count
            rate = gone / max(time.monotonic() - began, 1e-9)
            progress.update(bar, completed=gone, total=total or None, rate=f"{rate:.0f}/s")
    report.duplicates, report.failed, report.failures = here, len(refused), refused[:MAX_SHOWN]
    for id, job in open_jobs.items():
        report.done += job["done"]
        report.duplicates += job["duplicates"]
        report.failed += job["failed"]
        if job["failed"]:
            report.failures.extend(islice(client.failed_items(id), MAX_SHOWN - len(report.failures)))
    return report


def show_report(report: UploadReport, console: Console) -> None:
    """The outcome, and a table of what failed and why."""
    console.print(f"{report.done} loaded, {report.duplicates} already there, {report.failed} failed")
    if not report.failures:
        return
    console.print(failures(report.failures))
    if report.failed > len(report.failures):
        console.print(f"and {report.failed - len(report.failures)} more")


def failures(items: Iterable[dict[str, Any]]) -> Table:
    """Items that failed, and why."""
    table = Table("item", "code", "why")
    for item in items:
        error = item["error"] or {"code": "", "detail": ""}
        table.add_row(escape(item["name"]), error["code"], escape(error["detail"]))
    return table


def escape(text: str) -> str:
    """Text from outside without anything that a terminal or rich would act on."""
    cleaned = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return cleaned.replace("[", "\\[")


def expand_stdin(paths: Iterable[str]) -> Iterator[Path]:
    """The paths, with `-` replaced by the lines of standard input."""
    for path in paths:
        if path == "-":
            yield from (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
        else:
            yield Path(path)


def walk_inputs(paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """(name, path) of each file: those named, and the pictures and archives below folders."""
    for path in paths:
        if path.is_dir():
            for below in sorted(path.rglob("*")):
                if below.is_file() and is_ingestible(below) and not is_hidden(below.relative_to(path)):
                    yield str(below.relative_to(path.parent)), below
        else:
            yield path.name, path


def is_ingestible(path: Path) -> bool:
    """Whether a file of a folder looks like something to load."""
    return has_picture_suffix(path.name) or path.name.lower().endswith(ARCHIVES)


def is_hidden(path: Path) -> bool:
    """Whether any step of a relative path is hidden."""
    return any(step.startswith(".") for step in path.parts)


def group_into_bulks(files: Iterable[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    """Files in groups that one request can carry."""
    bulk: list[tuple[str, Path]] = []
    size = 0
    for name, path in files:
        try:
            weight = path.stat().st_size
        except OSError as error:
            raise ServerError(f"{path} cannot be read: {error.strerror}") from None
        if bulk and (len(bulk) >= BULK_FILES or size + weight > BULK_BYTES):
            yield bulk
            bulk, size = [], 0
        bulk.append((name, path))
        size += weight
    if bulk:
        yield bulk
