"""`sightline ingest`: sends pictures, folders, archives and tables to a server as one job, and shows the progress."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.cli import ServerError
from app.cli.answers import Limits
from app.cli.archives import (
    Member,
    add_parted_sidecars,
    find_excess,
    find_parted_sidecars,
    hash_stored_pictures,
)
from app.cli.client import Client
from app.cli.local_files import (
    UNREADABLE,
    Failure,
    LocalFile,
    LocalFiles,
    expand_stdin,
    failure,
    find_files,
    is_missing,
    read_file,
    read_lines,
)
from app.cli.output import MAX_SHOWN, escape, short_id, show_failures
from app.cli.table_upload import ITEM_FIELDS, RowBatch, TableUpload, is_table
from app.core.errors import ArchiveLimit, ImageTooLarge, SightlineError
from app.core.files import sha256_file
from app.decode.archive import PART_OF_TAKEOUT
from app.decode.headers import has_picture_suffix, is_picture_head
from app.decode.left_out import LeftOut
from app.decode.litter import is_litter
from app.decode.metadata_files import METADATA_FILE, normalise_name
from app.sources.picture_folder import HEAD_BYTES, FoundFile

BULK_FILES = 500
BULK_BYTES = 64 << 20
POLL_SECONDS = 0.25
UNFINISHED = ("queued", "running", "paused")
MAX_NOTES = 10  # warnings below it
SOURCE_PREFIX = re.compile(r"[a-z][a-z0-9-]*:")

Job = dict[str, Any]
Step = tuple[Callable[[], None], int]  # sends something, and how many files or rows that is


@dataclass(slots=True)
class UploadReport:
    """What became of everything that was to be sent. `twins` are files with the bytes of another one of them."""

    done: int = 0
    duplicates: int = 0
    twins: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)  # the first MAX_SHOWN of them
    warned: int = 0  # items about which the server warns
    left_out: LeftOut = field(default_factory=LeftOut)
    job: str | None = None

    def fail(self, failures: Iterable[Failure]) -> None:
        """Count failures, and keep the first."""
        for one in failures:
            self.failed += 1
            if len(self.failures) < MAX_SHOWN:
                self.failures.append(one)

    def warn(self, warnings: Iterable[Mapping[str, Any]]) -> None:
        """Keep warnings about single files."""
        for one in warnings:
            self.left_out.warn(one["code"], one["detail"], one.get("field"))

    @property
    def settled(self) -> int:
        return self.duplicates + self.twins + self.failed


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A picture in memory, with its SHA-256 and what was found beside it."""

    name: str
    content: bytes
    digest: str
    fields: dict[str, Any]


def ingest_paths(
    client: Client,
    paths: Sequence[str],
    console: Console,
    options: Mapping[str, Any] | None = None,
    exclude: Sequence[str] = (),
) -> int:
    """Send everything below `paths` (`-`: paths from standard input; `folder:/photos`: a source of the server).

    `options` are those of sources. Returns the exit status.
    """
    return show_report(upload_paths(client, paths, console, options or {}, exclude), console)


def upload_paths(
    client: Client, paths: Sequence[str], console: Console, options: Mapping[str, Any], exclude: Sequence[str] = ()
) -> UploadReport:
    """Like `ingest_paths`; returns what became of it. Raises ServerError when there is nothing to send."""
    sources = [path for path in paths if is_source(path)]
    local = [path for path in paths if path not in sources]
    if missing := [path for path in local if path != "-" and is_missing(path)]:
        raise ServerError(f"there is no {missing[0]}")
    tables = [path for path in local if is_table(Path(path))]
    if wrong := [name for name in options if not sources and (name != "columns" or not tables)]:
        raise ServerError(f"{wrong[0]} belongs to a source that the server reads, like clip-retrieval:/data")
    client.be_patient(lambda text: click.echo(text, err=True))
    limits = client.limits()
    found = find_files(
        expand_stdin(path for path in local if path not in tables), exclude, limits.formats, videos=limits.videos
    )
    if not (found.files or found.failures or sources or tables):
        left_out = [text for text in (found.left_out.describe(),) if text]
        left_out += [one.detail for one in found.left_out.warnings]
        raise ServerError("; ".join(["no pictures or archives were found there", *left_out]))
    with tempfile.TemporaryDirectory(prefix="sightline-") as folder:
        first = next((Path(path).resolve().name for path in local if path != "-"), "")
        sender = Sender(client, limits, Path(folder), first or "pictures")
        sender.report.left_out = found.left_out
        sender.report.fail(found.failures)
        uploads = list(sender.open_tables(tables, options.get("columns", {})))
        if exclude:
            options = {**options, "exclude": list(exclude)}
        try:
            return sender.send_all(found, uploads, sources, options, console)
        except ServerError as error:
            if sender.report.job is None:
                raise
            raise ServerError(f"{error}; the same command goes on later with what was not sent") from None


def ingest_urls(client: Client, file: Any, console: Console) -> int:
    """Have the server fetch the URLs of the lines, or of the JSON objects in them; returns the exit status."""
    try:
        lines = [line.decode() for line in read_lines(file)]
    except UnicodeDecodeError:
        raise ServerError("the list is neither UTF-8 nor UTF-16; save it as UTF-8") from None
    items = [parse_url_line(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not items:
        raise ServerError("the list is empty")
    client.be_patient(lambda text: click.echo(text, err=True))
    with tempfile.TemporaryDirectory(prefix="sightline-") as folder:
        sender = Sender(client, Limits(), Path(folder))
        sender.follow([(partial(sender.send_urls, items), len(items))], len(items), console)
    return show_report(sender.report, console)


def parse_url_line(line: str) -> dict[str, Any]:
    if not line.lstrip().startswith("{"):
        return {"url": line.strip()}
    try:
        parsed: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        raise ServerError(f"this line is not JSON: {escape(line[:80].strip())}") from None
    return parsed


class Sender:
    """Sends files, rows and sources as one job, and counts what became of them. `folder` is for temporary files.

    `title` names the archives in which pictures go with their captions, and so the job.
    """

    def __init__(self, client: Client, limits: Limits, folder: Path, title: str = "pictures") -> None:
        self.report = UploadReport()
        self._client = client
        self._limits = limits
        self._folder = folder
        self._title = title
        self._jobs: dict[str, Job] = {}  # more than one of a server that adds nothing to a job
        self._seen: set[str] = set()  # digests
        self._has_parted_sidecars = False  # archives that tell about each other's pictures

    def open_tables(self, paths: Iterable[str], columns: Mapping[str, str]) -> Iterator[TableUpload]:
        """The tables that can be read."""
        for n, path in enumerate(paths):
            try:
                yield TableUpload(Path(path), self._folder / str(n), columns)
            except OSError as error:
                self.report.fail([failure(path, UNREADABLE, error.strerror or str(error))])
            except SightlineError as error:
                self.report.fail([failure(path, error.code, error.detail)])

    def send_all(
        self,
        found: LocalFiles,
        tables: Sequence[TableUpload],
        sources: Sequence[str],
        options: Mapping[str, Any],
        console: Console,
    ) -> UploadReport:
        """Name the sources to the server, then send files and rows one after the other while it works."""
        named = [(partial(self.send_source, source, options), 0) for source in sources]
        rows = ((partial(self.send_rows, table, batch), len(batch.lines)) for table in tables for batch in table)
        count = len(found.files) + sum(table.count for table in tables)
        self.follow(chain(named, self._file_steps(found.files), rows), count, console)
        return self.report

    def _file_steps(self, files: Sequence[LocalFile]) -> Iterator[Step]:
        most = min(BULK_FILES, max(1, self._limits.max_archive_members - 1))  # less the file that tells about them
        pictures = (file for file in files if not (file.is_archive or file.is_video))
        for batch in group_into_batches(pictures, most):
            yield partial(self.send_pictures, batch), len(batch)
        for file in files:
            if file.is_video:
                yield partial(self.send_video, file), 1
        archives = [file for file in files if file.is_archive]
        parted = find_parted_sidecars([file.path for file in archives]) if len(archives) > 1 else {}
        self._has_parted_sidecars = bool(parted)
        for file in archives:
            yield partial(self.send_archive, file, parted.get(file.path, ())), 1

    def follow(self, steps: Iterable[Step], count: int, console: Console) -> None:
        """Take the steps one after the other, follow the job to its end, and show one bar.

        `count` is the number of files and rows of all steps.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            bar = progress.add_task("loading", total=None, rate="")
            started = time.monotonic()
            waiting = iter(steps)
            step = next(waiting, None)
            while step or any(job["state"] in UNFINISHED for job in self._jobs.values()):
                if step:
                    step[0]()
                    count -= step[1]
                    step = next(waiting, None)
                else:
                    time.sleep(POLL_SECONDS)
                self._refresh_first()
                jobs = self._jobs.values()
                completed = self.report.settled + sum(job["done"] + job["failed"] + job["duplicates"] for job in jobs)
                total = self.report.settled + sum(job["total"] for job in jobs) + count
                rate = completed / max(time.monotonic() - started, 1e-9)
                progress.update(bar, completed=completed, total=total or None, rate=f"{rate:.0f}/s")
        for job in self._jobs.values():
            self._count_job(job)

    def send_pictures(self, files: Sequence[LocalFile]) -> None:
        """Send those of the pictures that the server does not have, with the captions and metadata beside them."""
        self._send_loaded([one for file in files if (one := self._load(file.name, file.path, file.found)) is not None])

    def send_archive(self, file: LocalFile, sidecars: Sequence[Member] = ()) -> None:
        """Send an archive that is within the limits, unless the server has all its pictures.

        `sidecars` are what other archives tell about them.
        """
        if (excess := find_excess(file.path, file.size, self._limits)) is not None:
            self.report.fail([failure(file.name, ArchiveLimit.code, excess)])
            return
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            path = add_parted_sidecars(file.path, sidecars, Path(folder)) if sidecars else file.path
            self._send_archive(file.name, path)

    def send_video(self, file: LocalFile) -> None:
        """Send a video, and what is said of it as a sidecar, unless the server has it."""
        most = min(self._limits.max_video_bytes, self._limits.max_upload_bytes)
        try:
            digest = sha256_file(file.path) if file.size <= most else ""
        except OSError as error:
            self.report.fail([failure(file.name, UNREADABLE, error.strerror or str(error))])
            return
        if not digest:
            detail = f"the video has {file.size:,} bytes; the limit is {most:,} (SIGHTLINE_MAX_VIDEO_BYTES)"
            self.report.fail([failure(file.name, ImageTooLarge.code, detail)])
        elif digest in self._seen:
            self.report.twins += 1
        elif self._client.find_known([digest]):
            self.report.duplicates += 1
        else:
            fields = dict(file.found.read_fields()) if file.found is not None else {}
            self.report.warn(fields.pop("warnings", ()))
            said = {name: fields[name] for name in ("caption", "tags") if name in fields}
            sidecar = json.dumps({**fields.get("metadata", {}), **said}).encode()
            self._send([(file.name, file.path), *([(f"{file.name}.json", sidecar)] if fields else [])])
        self._seen.add(digest)

    def _send_archive(self, name: str, path: Path) -> None:
        digests = hash_stored_pictures(self._client, path, videos=self._limits.videos)
        if digests is not None:
            new = set(digests) - self._seen
            self._seen |= new
            self.report.duplicates += len(new)
            self.report.twins += len(digests) - len(new)
        else:
            self._send([(name, path)])

    def send_rows(self, table: TableUpload, batch: RowBatch) -> None:
        """Send some rows of a table."""
        for line in batch.lines:
            self.report.warn(line.get("warnings", ()))
        if batch.kind == "url":
            fields = ("url", *ITEM_FIELDS)
            self.send_urls([{name: line[name] for name in fields if name in line} for line in batch.lines])
        elif batch.kind == "error":
            self.report.fail({"name": table.name(line), "error": line["error"]} for line in batch.lines)
        elif batch.kind == "path":
            loaded = []
            for line in batch.lines:
                said = {name: line[name] for name in ITEM_FIELDS if name in line}
                found = FoundFile(table.folder / line["path"], line["path"], metadata=said)
                loaded.append(self._load(found.name, found.path, found, f"row {line['row']} of {table.label}: "))
            self._send_loaded([one for one in loaded if one is not None])
        else:
            with table.make_archive(batch) as (path, failed):
                self.report.fail(failed)
                if path is not None:
                    self._send([(path.name, path)])

    def send_urls(self, items: Sequence[dict[str, Any]]) -> None:
        self._follow_job(self._client.ingest_urls(items, self.report.job))

    def send_source(self, source: str, options: Mapping[str, Any]) -> None:
        self._follow_job(self._client.ingest_source(source, options, self.report.job))

    def _load(self, name: str, path: Path, found: FoundFile | None, where: str = "") -> LoadedFile | None:
        """Read a picture; None if it cannot be read, or has the bytes of an earlier one and nothing more to tell."""
        try:
            content = read_file(path, self._limits.max_image_bytes)
        except (OSError, ImageTooLarge) as error:
            code = error.code if isinstance(error, ImageTooLarge) else UNREADABLE
            detail = error.detail if isinstance(error, ImageTooLarge) else error.strerror or str(error)
            self.report.fail([failure(name, code, where + detail)])
            return None
        fields = dict(found.read_fields()) if found is not None else {}
        self.report.warn(fields.pop("warnings", ()))
        digest = hashlib.sha256(content).hexdigest()
        if digest in self._seen and not fields:
            self.report.twins += 1
            return None
        self._seen.add(digest)
        return LoadedFile(name, content, digest, fields)

    def _send_loaded(self, files: Sequence[LoadedFile]) -> None:
        known = self._client.find_known([file.digest for file in files]) if files else {}
        plain: list[tuple[str, bytes | Path]] = []
        described: list[LoadedFile] = []
        for file in files:
            lacks = known.get(file.digest)
            if lacks is not None and set(lacks).isdisjoint(file.fields):
                self.report.duplicates += 1
            elif file.fields and is_picture_head(file.content[:HEAD_BYTES]):  # another is refused by its name
                described.append(file)
            else:
                plain.append((file.name, file.content))
        with ExitStack() as stack:
            if described:
                folder = stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder))
                path = write_archive(Path(folder, "pictures.zip"), described)
                plain.append((f"{self._title}.zip", path))
            if plain:
                self._send(plain)

    def _send(self, files: Sequence[tuple[str, bytes | Path]]) -> None:
        kinds = self.report.left_out.kinds
        job = self._client.upload_bulk(files, self.report.job, kinds)
        if kinds and job.get("left_out"):  # the report gets them back from the job
            kinds.clear()
        self._follow_job(job)

    def _follow_job(self, job: Job) -> None:
        self.report.job = self.report.job or job["id"]
        self._jobs[job["id"]] = job

    def _refresh_first(self) -> None:
        """Ask the server about the first job that has not ended; those behind it end later."""
        for id in [id for id, job in self._jobs.items() if job["state"] in UNFINISHED]:
            self._jobs[id] = self._client.job(id)
            if self._jobs[id]["state"] in UNFINISHED:
                return

    def _count_job(self, job: Job) -> None:
        """Add what a job says of its items to the report."""
        report, id = self.report, job["id"]
        twins = self._count_twins(id) if job["duplicates"] else 0
        report.done += job["done"]
        report.duplicates += job["duplicates"] - twins
        report.twins += twins
        report.failed += job["failed"]
        if job["failed"]:
            report.failures.extend(islice(self._client.items(id, status="failed"), MAX_SHOWN - len(report.failures)))
        report.left_out.kinds.update(job.get("left_out", {}))
        report.warn(
            one for one in job.get("warnings", ()) if one["code"] != PART_OF_TAKEOUT or not self._has_parted_sidecars
        )
        if job.get("warned"):
            report.warned += job["warned"]
            for item in islice(self._client.items(id, warned="true"), MAX_NOTES):
                report.warn({**one, "detail": f"{item['name']}: {one['detail']}"} for one in item.get("warnings", ()))

    def _count_twins(self, id: str) -> int:
        """How many duplicates of a job have the bytes of another picture of the same job."""
        loaded = {item["image_id"] for item in self._client.items(id, status="done")}
        return sum(item["image_id"] in loaded for item in self._client.items(id, status="duplicate"))


def write_archive(path: Path, files: Sequence[LoadedFile]) -> Path:
    """Write pictures, and what is said of each, as a zip that the server understands; returns its path."""
    lines = []
    names: set[str] = set()
    with zipfile.ZipFile(path, "w") as archive:
        for n, file in enumerate(files):
            name = archive_name(file.name, n)
            name = f"{n}-{name}" if name in names else name
            names.add(name)
            archive.writestr(name, file.content)
            lines.append(json.dumps({"file": name, **file.fields}) + "\n")
        archive.writestr(METADATA_FILE, "".join(lines))
    return path


def archive_name(name: str, n: int) -> str:
    """The name of a picture as a member that the server does not skip as litter, or as a file of another kind."""
    whole = normalise_name(name)
    for one in (whole, whole.rpartition("/")[2].lstrip(".")):
        if has_picture_suffix(one) and not is_litter(one):
            return one
    return f"picture-{n}.jpg"


def is_source(path: str) -> bool:
    """Whether this names a source of the server: a type of source, a colon and a place."""
    return SOURCE_PREFIX.match(path) is not None and is_missing(path)


def show_report(report: UploadReport, console: Console) -> int:
    """Print the counts, what was left out, and a table of the failures; returns the exit status."""
    twins = f"{report.twins} {'duplicate of another file' if report.twins == 1 else 'duplicates of other files'}, "
    counts = f"{report.done} loaded, {report.duplicates} already there, {twins if report.twins else ''}"
    console.print(f"{counts}{report.failed} failed", soft_wrap=True)
    if left_out := report.left_out.describe():
        console.print(left_out, highlight=False, soft_wrap=True)
    for warning in report.left_out.warnings[:MAX_NOTES]:
        console.print(f"note: {escape(warning.detail)}", highlight=False, soft_wrap=True)
    if (more := max(len(report.left_out.warnings), report.warned) - MAX_NOTES) > 0:
        console.print(f"note: and {more} more")
    if report.failures:
        show_failures(report.failures, console)
    job = "" if report.job is None else short_id(report.job, console)
    if report.failed > len(report.failures):
        console.print(f"and {report.failed - len(report.failures)} more; `sightline job {job} --report FILE` has all")
    elif job:
        console.print(f"job {job}", highlight=False)
    return 1 if report.failed else 0


def group_into_batches(files: Iterable[LocalFile], most: int = BULK_FILES) -> Iterator[list[LocalFile]]:
    """The files in groups that one request can carry."""
    bulk: list[LocalFile] = []
    bulk_bytes = 0
    for file in files:
        if bulk and (len(bulk) >= most or bulk_bytes + file.size > BULK_BYTES):
            yield bulk
            bulk, bulk_bytes = [], 0
        bulk.append(file)
        bulk_bytes += file.size
    if bulk:
        yield bulk
