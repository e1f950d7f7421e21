"""`sightline ingest`: sends pictures, folders, archives and tables to a server, and shows their progress."""

from __future__ import annotations

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

from app.cli import ServerError
from app.cli.client import Client
from app.cli.table_upload import ITEM_FIELDS, RowBatch, TableUpload, is_table
from app.core.files import sha256_file
from app.decode.headers import has_picture_suffix

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
BULK_FILES = 500
BULK_BYTES = 64 << 20
POLL_SECONDS = 0.25
UNFINISHED = ("queued", "running", "paused")
MAX_SHOWN = 50  # failures in the table
SOURCE_PREFIX = re.compile(r"[a-z][a-z0-9-]*:")

Job = dict[str, Any]
File = tuple[str, Path]  # the name that the server stores, and the path


@dataclass(frozen=True, slots=True)
class Sent:
    """What one request did: the job that it began, if any, how many pictures the server had, which rows failed."""

    job: Job | None = None
    known: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)


Step = tuple[Callable[[], Sent], int]  # sends something, and how many files or rows that is


@dataclass(slots=True)
class UploadReport:
    """What became of everything that was sent."""

    done: int = 0
    duplicates: int = 0
    failed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)  # the first MAX_SHOWN of them


def ingest_paths(
    client: Client, paths: Sequence[str], console: Console, options: Mapping[str, Any] | None = None
) -> int:
    """Send everything below `paths` (`-`: paths from standard input; `folder:/photos`: a source of the server).

    `options` are those of sources. Returns the exit status.
    """
    options = options or {}
    sources = [path for path in paths if is_source(path)]
    paths = [path for path in paths if path not in sources]
    if missing := [path for path in paths if path != "-" and not Path(path).exists()]:
        raise ServerError(f"there is no {missing[0]}")
    tables = [path for path in paths if is_table(Path(path))]
    batches = list(group_into_batches(walk_inputs(expand_stdin(path for path in paths if path not in tables))))
    if not batches and not sources and not tables:
        raise ServerError("no pictures or archives were found there")
    if wrong := [name for name in options if not sources and (name != "columns" or not tables)]:
        raise ServerError(f"{wrong[0]} belongs to a source that the server reads, like clip-retrieval:/data")
    with tempfile.TemporaryDirectory(prefix="sightline-") as folder:
        columns = options.get("columns", {})
        uploads = [TableUpload(Path(path), Path(folder, str(n)), columns) for n, path in enumerate(tables)]
        report = upload_all(client, batches, console, sources, options, uploads)
    return show_report(report, console)


def ingest_urls(client: Client, lines: Iterable[str], console: Console) -> int:
    """Have the server fetch the URLs of the lines, or of the JSON objects in them; returns the exit status."""
    items = [parse_url_line(line) for line in lines if line.strip()]
    if not items:
        raise ServerError("the list is empty")
    steps = [(lambda: Sent(client.ingest_urls(items)), len(items))]
    return show_report(follow_jobs(client, steps, len(items), console), console)


def parse_url_line(line: str) -> dict[str, Any]:
    if not line.lstrip().startswith("{"):
        return {"url": line.strip()}
    try:
        parsed: dict[str, Any] = json.loads(line)
    except ValueError:
        raise ServerError(f"this line is not JSON: {escape(line[:80].strip())}") from None
    return parsed


def upload_all(
    client: Client,
    batches: Sequence[Sequence[File]],
    console: Console,
    sources: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    tables: Sequence[TableUpload] = (),
) -> UploadReport:
    """Name the sources to the server, then send batches and rows one after the other while it works; shows one bar."""

    def ingest_source(source: str) -> Sent:
        return Sent(client.ingest_source(source, options or {}))

    named = [(partial(ingest_source, source), 0) for source in sources]
    files = [(partial(send_bulk, client, bulk), len(bulk)) for bulk in batches]
    rows = ((partial(send_rows, client, table, batch), len(batch.lines)) for table in tables for batch in table)
    count = sum(map(len, batches)) + sum(table.count for table in tables)
    return follow_jobs(client, chain(named, files, rows), count, console)


def send_bulk(client: Client, bulk: Sequence[File]) -> Sent:
    """Send the files of a bulk that the server does not have."""
    digests = {path: digest_file(path) for _, path in bulk if has_picture_suffix(path.name)}
    known = client.find_known(list(digests.values())) if digests else set()
    rest = [(name, path) for name, path in bulk if digests.get(path) not in known]
    return Sent(client.upload_bulk(rest) if rest else None, known=len(bulk) - len(rest))


def send_rows(client: Client, table: TableUpload, batch: RowBatch) -> Sent:
    """Send some rows of a table."""
    if batch.kind == "url":
        fields = ("url", *ITEM_FIELDS)
        return Sent(client.ingest_urls([{name: line[name] for name in fields if name in line} for line in batch.lines]))
    if batch.kind == "error":
        return Sent(failed=[{"name": table.name(line), "error": line["error"]} for line in batch.lines])
    with table.make_archive(batch) as (path, failed):
        return Sent(client.upload_bulk([(path.name, path)]) if path else None, failed=failed)


def digest_file(path: Path) -> str:
    """The SHA-256 of a file. Raises ServerError."""
    try:
        return sha256_file(path)
    except OSError as error:
        raise ServerError(f"{path} cannot be read: {error.strerror}") from None


def is_source(path: str) -> bool:
    """Whether this names a source of the server: a type of source, a colon and a place."""
    return SOURCE_PREFIX.match(path) is not None and not Path(path).exists()


def follow_jobs(client: Client, steps: Iterable[Step], count: int, console: Console) -> UploadReport:
    """Take the steps one after the other, and follow their jobs until all have ended.

    `count` is the number of files and rows of all steps.
    """
    sent: list[Sent] = []
    jobs: dict[str, Job] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("loading", total=None, rate="")
        started = time.monotonic()
        waiting = iter(steps)
        step = next(waiting, None)
        while step or any(job["state"] in UNFINISHED for job in jobs.values()):
            if step:
                sent.append(one := step[0]())
                count -= step[1]
                if one.job:
                    jobs[one.job["id"]] = one.job
                step = next(waiting, None)
            else:
                time.sleep(POLL_SECONDS)
            refresh_first(client, jobs)
            settled = sum(one.known + len(one.failed) for one in sent)
            completed = settled + sum(job["done"] + job["failed"] + job["duplicates"] for job in jobs.values())
            total = settled + sum(job["total"] for job in jobs.values()) + count
            rate = completed / max(time.monotonic() - started, 1e-9)
            progress.update(bar, completed=completed, total=total or None, rate=f"{rate:.0f}/s")
    return make_report(client, sent, jobs)


def refresh_first(client: Client, jobs: dict[str, Job]) -> None:
    """Ask the server about the first job that has not ended; those behind it end later."""
    for id in [id for id, job in jobs.items() if job["state"] in UNFINISHED]:
        jobs[id] = client.job(id)
        if jobs[id]["state"] in UNFINISHED:
            return


def make_report(client: Client, sent: Iterable[Sent], jobs: Mapping[str, Job]) -> UploadReport:
    report = UploadReport()
    for one in sent:
        report.duplicates += one.known
        report.failed += len(one.failed)
        report.failures.extend(one.failed[: MAX_SHOWN - len(report.failures)])
    for id, job in jobs.items():
        report.done += job["done"]
        report.duplicates += job["duplicates"]
        report.failed += job["failed"]
        if job["failed"]:
            report.failures.extend(islice(client.failed_items(id), MAX_SHOWN - len(report.failures)))
    return report


def show_report(report: UploadReport, console: Console) -> int:
    """Print the counts, and a table of the failures; returns the exit status."""
    console.print(f"{report.done} loaded, {report.duplicates} already there, {report.failed} failed")
    if report.failures:
        console.print(failure_table(report.failures))
    if report.failed > len(report.failures):
        console.print(f"and {report.failed - len(report.failures)} more")
    return 1 if report.failed else 0


def failure_table(items: Iterable[dict[str, Any]]) -> Table:
    """A table of items that failed, with the reasons."""
    table = Table("item", "code", "why")
    for item in items:
        error = item["error"] or {"code": "", "detail": ""}
        table.add_row(escape(item["name"]), error["code"], escape(error["detail"]))
    return table


def escape(text: str) -> str:
    """Text of others without control characters, and without markup that rich would apply."""
    cleaned = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return cleaned.replace("[", "\\[")


def expand_stdin(paths: Iterable[str]) -> Iterator[Path]:
    """The paths, with the lines of standard input in the place of `-`."""
    for path in paths:
        if path == "-":
            yield from (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
        else:
            yield Path(path)


def walk_inputs(paths: Iterable[Path]) -> Iterator[File]:
    """The files among the paths, whatever their names, and the pictures and archives below the folders."""
    for path in paths:
        if path.is_dir():
            for below in sorted(path.rglob("*")):
                if below.is_file() and is_ingestible(below) and not is_hidden(below.relative_to(path)):
                    yield str(below.relative_to(path.parent)), below
        else:
            yield path.name, path


def is_ingestible(path: Path) -> bool:
    """Whether a file has the suffix of a picture or an archive."""
    return has_picture_suffix(path.name) or path.name.lower().endswith(ARCHIVES)


def is_hidden(path: Path) -> bool:
    """Whether any step of a relative path is hidden."""
    return any(step.startswith(".") for step in path.parts)


def group_into_batches(files: Iterable[File]) -> Iterator[list[File]]:
    """The files in groups that one request can carry."""
    bulk: list[File] = []
    bulk_bytes = 0
    for name, path in files:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise ServerError(f"{path} cannot be read: {error.strerror}") from None
        if bulk and (len(bulk) >= BULK_FILES or bulk_bytes + size > BULK_BYTES):
            yield bulk
            bulk, bulk_bytes = [], 0
        bulk.append((name, path))
        bulk_bytes += size
    if bulk:
        yield bulk
