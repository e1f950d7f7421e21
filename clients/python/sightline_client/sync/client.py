"""The client: the calls of the API, and what people do with several of them."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from sightline_client.call import quote
from sightline_client.errors import JobFailed
from sightline_client.events import read_event
from sightline_client.folder import (
    Describe,
    FolderFile,
    LoadedFile,
    SentBatch,
    UploadProgress,
    UploadReport,
    find_files,
    group_into_batches,
    load_files,
    pack_files,
)
from sightline_client.models import (
    DuplicateGroup,
    Filter,
    Image,
    Item,
    Job,
    Matched,
    QueryPart,
    SavedSearch,
    SearchResult,
    Text,
    Upload,
    Video,
    Watch,
    WatchedFile,
)
from sightline_client.pictures import NamedPicture, Picture, is_url, open_picture
from sightline_client.sync.calls import Calls
from sightline_client.sync.waiting import run_at_once, run_in_thread, sleep

RUNNING = ("queued", "running", "paused")
FIRST_POLL, LAST_POLL = 0.1, 2.0
PAGE = 1_000
VECTOR_PAGE = 100  # the most pictures of a page with vectors
GROUP_PAGE = 100  # the most groups of a page of duplicates


class Page(Protocol):
    """One page of a list; its cursor is null on the last."""

    next_cursor: str | None


P = TypeVar("P", bound=Page)


class Client(Calls):
    """The asynchronous client of one server."""

    def search(
        self,
        words: str | None = None,
        *,
        picture: Picture | None = None,
        like: str | None = None,
        k: int | None = None,
        target: Literal["images", "texts"] | None = None,
        filter: Filter | None = None,
        collection: str | None = None,
        **options: Any,
    ) -> SearchResult:
        """Search by words, by a picture, by a stored picture (`like`, its id), or by several of these together.

        `options` are those of `search_by_parts`, like `mode`, `score_threshold` and `order_by`.
        """
        common = {"k": k, "target": target, "filter": filter, "collection": collection, **options}
        if words is not None and picture is None and like is None:
            return (
                self.search_images(q=words, **common)
                if fits_address(options)
                else self._search([QueryPart(text=words)], common)
            )
        parts = [QueryPart(text=words)] if words is not None else []
        parts += [QueryPart(image_id=like)] if like is not None else []
        if picture is not None:
            with ExitStack() as opened:
                fetched = self._fetch_picture(picture) if is_url(picture) else picture
                _, content = open_picture(fetched, opened)
                packed = content if isinstance(content, bytes) else content.read()
            parts.append(QueryPart(image=base64.b64encode(packed).decode()))
        return self._search(parts, common)

    def _search(self, parts: Sequence[QueryPart], options: dict[str, Any]) -> SearchResult:
        return self.search_by_parts(query=parts, **options)

    def upload(self, picture: Picture, *, name: str | None = None, **options: Any) -> Upload:
        """Store one picture; `options` are those of `upload_image`: id, caption, tags, metadata, wait, replace."""
        if name is not None:
            with ExitStack() as opened:
                fetched = self._fetch_picture(picture) if is_url(picture) else picture
                content = open_picture(fetched, opened)[1]
                picture = NamedPicture(name, content if isinstance(content, bytes) else content.read())
        return self.upload_image(file=picture, **options)

    def upload_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        describe: Describe | None = None,
        progress: Callable[[UploadProgress], object] | None = None,
        concurrency: int = 4,
        collection: str | None = None,
        wait: bool = True,
    ) -> UploadReport:
        """Send every picture below a folder that the server does not have, as one job, and wait for its end.

        `describe` gives the `caption`, `tags`, `metadata` or `id` of a file, or None. `progress` is called as files are
        sent and imported, in the caller's thread. Without `wait`, the report tells what was sent. Sending the same
        folder again sends what is missing.
        """
        files = run_in_thread(find_files, folder, describe)
        report = UploadReport(total=len(files))

        def send(batch: Sequence[FolderFile]) -> SentBatch:
            return self._send_batch(batch, report.jobs, collection)

        def count(sent: SentBatch) -> None:
            if sent.unsent:
                job = report.jobs[0] if report.jobs else None
                sent.job = self._send_files(sent.unsent, job, collection)
            report.add(sent)
            if progress is not None:
                progress(report)

        batches = group_into_batches(files)
        for batch in islice(batches, 1):  # makes the job that the others join
            count(send(batch))
        for sent in run_at_once(send, batches, concurrency):
            count(sent)
        if wait and report.jobs:
            self._wait_for_folder(report, progress)
        return report

    def _send_batch(self, batch: Sequence[FolderFile], jobs: list[str], collection: str | None) -> SentBatch:
        """Send what the server does not have into the first of the jobs, and leave it `unsent` while there is none."""
        sent = SentBatch()
        loaded = run_in_thread(load_files, batch, sent.unreadable)
        digests = list(dict.fromkeys(one.sha256 for one in loaded))
        known = self.find_known_images(sha256=digests, collection=collection) if digests else None
        lacks = known.lacks if known is not None else {}
        has = set(known.sha256) if known is not None else set()
        new = [one for one in loaded if one.sha256 not in has or set(one.file.fields) & set(lacks.get(one.sha256, ()))]
        sent.files, sent.duplicates = len(loaded), len(loaded) - len(new)
        if new and jobs:
            sent.job = self._send_files(new, jobs[0], collection)
        else:
            sent.unsent = new
        return sent

    def _send_files(self, files: Sequence[LoadedFile], job: str | None, collection: str | None) -> str:
        return (self.upload_images(files=pack_files(files), job=job, collection=collection)).id

    def _wait_for_folder(self, report: UploadReport, progress: Callable[[UploadProgress], object] | None) -> None:
        known = report.duplicates  # by their SHA-256, before any job
        while True:
            jobs = [self.get_job(id) for id in report.jobs]
            report.done = sum(job.done for job in jobs)
            report.failed = sum(job.failed for job in jobs) + len(report.unreadable)
            report.duplicates = known + sum(job.duplicates for job in jobs)
            if progress is not None:
                progress(report)
            if not any(job.state in RUNNING for job in jobs):
                break
            sleep(FIRST_POLL * 5)
        for id in report.jobs:
            for item in self.iter_job_items(id, status="failed"):
                report.failures.append(item)

    def download(self, id: str, path: str | os.PathLike[str], *, collection: str | None = None) -> Path:
        """Write the file of a picture to `path`."""
        content = self.get_image_file(id, collection=collection)
        run_in_thread(Path(path).write_bytes, content)
        return Path(path)

    def wait_for_job(
        self, job: Job | str, *, progress: Callable[[Job], object] | None = None, raise_on_failure: bool = True
    ) -> Job:
        """The job when it has ended. Raises JobFailed for one that failed as a whole, or was cancelled."""
        id, pause = job if isinstance(job, str) else job.id, FIRST_POLL
        while (found := self.get_job(id)).state in RUNNING:
            if progress is not None:
                progress(found)
            sleep(pause)
            pause = min(pause * 1.5, LAST_POLL)
        if progress is not None:
            progress(found)
        if raise_on_failure and found.state != "succeeded":
            reason = f": {found.error.detail}" if found.error is not None else ""
            raise JobFailed(
                f"the job {id} has {'failed' if found.state == 'failed' else 'been cancelled'}{reason}", found
            )
        return found

    def follow_job(self, job: Job | str) -> Iterator[Job]:
        """The job whenever it changes, until it ends. Where the server's stream breaks, it is opened again.

        Raises ApiError or ConnectionFailed where that does not succeed within `patience` seconds.
        """
        id = job if isinstance(job, str) else job.id
        last: Job | None = None
        for event in self._follow(f"/v1/jobs/{quote(id)}/events"):
            now = read_event(Job, event)
            if now != last:  # a stream that was opened again begins with the job as it is
                yield now
            last = now
            if now.state not in RUNNING:
                return

    def follow_saved_search(self, search: SavedSearch | str, *, after: int | None = None) -> Iterator[Matched]:
        """Each new picture that a saved search finds, without end; where the server's stream breaks, none is missed.

        It begins after the match of the number `after`. Without it, it begins after the last match that the record
        `search` tells of, and for an id with what comes from now on. Raises ApiError (`not_found` when the search is
        deleted) or ConnectionFailed where the stream cannot be opened again within `patience` seconds.
        """
        id = search if isinstance(search, str) else search.id
        if after is None:
            after = (self.get_saved_search(id)).last if isinstance(search, str) else search.last
        for event in self._follow(f"/v1/saved-searches/{quote(id)}/events", str(after)):
            yield read_event(Matched, event)

    def iter_images(
        self,
        *,
        filter: Filter | None = None,
        order_by: str | None = None,
        vectors: bool = False,
        collection: str | None = None,
    ) -> Iterator[Image]:
        """Every picture that the filter lets through, the newest first unless `order_by` says otherwise.

        With `vectors` each has its `vector`.
        """
        pages = iter_pages(
            self.list_images,
            limit=VECTOR_PAGE if vectors else PAGE,
            filter=filter,
            order_by=order_by,
            count=False,
            vectors=vectors or None,
            collection=collection,
        )
        for page in pages:
            for image in page.images:
                yield image

    def iter_texts(self, *, collection: str | None = None) -> Iterator[Text]:
        """Every stored text."""
        for page in iter_pages(self.list_texts, limit=PAGE, collection=collection):
            for text in page.texts:
                yield text

    def iter_videos(self, *, collection: str | None = None) -> Iterator[Video]:
        """Every video, the newest first."""
        for page in iter_pages(self.list_videos, limit=PAGE, collection=collection):
            for video in page.videos:
                yield video

    def iter_duplicates(
        self,
        *,
        kind: Literal["exact", "near"] | None = None,
        threshold: float | None = None,
        collection: str | None = None,
    ) -> Iterator[DuplicateGroup]:
        """Every group of duplicates that the last search for them has found."""
        pages = iter_pages(
            self.list_duplicates, limit=GROUP_PAGE, kind=kind, threshold=threshold, collection=collection
        )
        for page in pages:
            for group in page.groups:
                yield group

    def iter_matches(self, search: SavedSearch | str) -> Iterator[Matched]:
        """Every picture that a saved search has found and that is kept, the newest match first."""
        id = search if isinstance(search, str) else search.id
        for page in iter_pages(self.list_matches, id, limit=PAGE):
            for match in page.matches:
                yield match

    def iter_watched_files(
        self, watch: Watch | str, *, status: Literal["failed"] | None = None
    ) -> Iterator[WatchedFile]:
        """Every file of a watched folder, or those that failed."""
        id = watch if isinstance(watch, str) else watch.id
        for page in iter_pages(self.list_watched_files, id, limit=PAGE, status=status):
            for file in page.files:
                yield file

    def iter_job_items(
        self, id: str, *, status: Literal["queued", "done", "failed", "duplicate"] | None = None
    ) -> Iterator[Item]:
        """Every item of a job, or those with this status."""
        for page in iter_pages(self.list_job_items, id, limit=PAGE, status=status):
            for item in page.items:
                yield item


def iter_pages(list_page: Callable[..., P], *args: str, **options: Any) -> Iterator[P]:
    """The pages of a call that lists, each from the cursor of the one before."""
    cursor: str | None = None
    while True:
        page = list_page(*args, cursor=cursor, **options)
        yield page
        if (cursor := page.next_cursor) is None:
            return


def fits_address(options: dict[str, Any]) -> bool:
    """Whether a search by words needs no body for these options."""
    return not {"weights", "params", "like", "unlike"} & options.keys()
