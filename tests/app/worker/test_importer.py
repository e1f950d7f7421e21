from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Overloaded, StorageFull
from app.core.types import ItemError, ItemStatus, Job, JobState
from app.decode.archive import expand_archive
from app.decode.limits import ArchiveLimits
from app.decode.pool import DecodePool
from app.sources.base import SourceItem
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.sql import fetch_all
from app.storage.tables import work_queue
from app.worker.importer import CHUNK, Importer, Member
from tests.support import hostile_files
from tests.support.imports import importing
from tests.support.makers import add, add_bulk, count_waiting, image_of, job_of, never_stop
from tests.support.pictures import picture
from tests.support.servers import wait_until

WAIT = 20.0


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return out.getvalue()


def importer(library: Library, pool: DecodePool, attempts: int = 3) -> Importer:
    return Importer(library, pool, ArchiveLimits(), 60.0, 60.0, attempts)


def import_all(library: Library, pool: DecodePool) -> None:
    """Run an importer until no upload is left."""
    with importing(importer(library, pool)):
        wait_until(lambda: not library.database.read(work_queue.list_uploads), WAIT)


def items(library: Library, job: Job) -> list[tuple[str, str]]:
    return [(item.name, item.status.value) for _, item in JobService(library).list_items(job.id, None, 0, 10_000)]


def test_each_picture_of_a_folder_becomes_one_item(library: Library, pool: DecodePool) -> None:
    add(library, picture("green"), id="known")
    job = add_bulk(
        library,
        [("a.png", picture("red")), ("b.jpg", b"words"), ("c.png", picture("green")), ("d.png", picture("red"))],
    )
    import_all(library, pool)
    assert items(library, job) == [
        ("a.png", "queued"),
        ("b.jpg", "failed"),
        ("c.png", "duplicate"),
        ("d.png", "duplicate"),
    ]
    after = job_of(library.database, job.id)
    assert (after.state, after.total, after.failed, after.duplicates) == (JobState.RUNNING, 4, 1, 2)
    assert list(library.blobs.incoming.iterdir()) == []
    ((_, failed),) = JobService(library).list_items(job.id, ItemStatus.FAILED, 0, 10)
    assert failed.error is not None
    assert failed.error.code == "unsupported_media_type"


def test_an_archive_brings_its_captions_and_fails_its_bad_members_alone(library: Library, pool: DecodePool) -> None:
    lines = [
        {"file": "in/a.png", "id": "first", "caption": "a red square", "tags": ["x"], "metadata": {"n": 1}},
        {"file": "b.png", "id": "not an id!"},
    ]
    content = archive(
        {
            "in/a.png": picture("red"),
            "b.png": picture("blue"),
            "c.png": b"no picture",
            "../../etc/d.png": picture("green"),
            "metadata.jsonl": "\n".join(json.dumps(line) for line in lines).encode(),
        }
    )
    job = add_bulk(library, [], [("all.zip", content)])
    import_all(library, pool)
    status = dict(items(library, job))
    assert (status["in/a.png"], status["c.png"]) == ("queued", "failed")
    image = image_of(library.database, "first")
    assert (image.tags, image.metadata, image.source) == (("x",), {"n": 1}, "in/a.png")
    after = job_of(library.database, job.id)
    assert after.total == len(status) == 4
    assert list(library.blobs.incoming.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"PK\x03\x04 and then nothing", "archive_corrupt"), (archive({}), "archive_corrupt")],
)
def test_an_archive_that_cannot_be_read_is_one_failed_item_and_the_job_ends(
    library: Library, pool: DecodePool, content: bytes, code: str
) -> None:
    job = add_bulk(library, [], [("broken.zip", content)])
    import_all(library, pool)
    after = job_of(library.database, job.id)
    assert (after.state, after.total, after.failed) == (JobState.SUCCEEDED, 1, 1)
    ((_, item),) = JobService(library).list_items(job.id, None, 0, 10)
    assert item.error is not None
    assert (item.name, item.error.code) == ("broken.zip", code)
    assert list(library.blobs.incoming.iterdir()) == []


def test_an_upload_whose_files_are_gone_is_one_failed_item(library: Library, pool: DecodePool) -> None:
    job = add_bulk(library, [], [("a.zip", archive({"a.png": picture()}))])
    library.blobs.upload_path(job.id, 1).unlink()
    import_all(library, pool)
    assert items(library, job) == [("a.zip", "failed")]
    assert job_of(library.database, job.id).state is JobState.SUCCEEDED


@pytest.mark.parametrize("file", ["../../../secret", "{}/secret", "link", "way/secret", "pipe", ".", 7])
def test_a_manifest_that_a_hostile_child_wrote_brings_nothing_from_elsewhere(
    file: str | int, library: Library, pool: DecodePool, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(picture("red"))
    job = add_bulk(library, [("a.png", picture("green"))])
    upload = library.blobs.upload_path(job.id, 0)
    (upload / "link").symlink_to(tmp_path / "secret")
    (upload / "way").symlink_to(tmp_path)
    os.mkfifo(upload / "pipe")
    line = {"name": "a.png", "file": file.format(tmp_path) if isinstance(file, str) else file}
    (upload / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    import_all(library, pool)
    assert [status for _, status in items(library, job)] == ["failed"]
    assert not library.list_images("default", 10, None)
    assert (tmp_path / "secret").exists()


class Dies(BaseException):
    """As a kill is: nothing is given back."""


class Mortal(Importer):
    """Dies at the member `poison.png`."""

    def _stage_member(self, folder: Path, line: SourceItem) -> Member:
        if line["name"] == "poison.png":
            raise Dies
        return super()._stage_member(folder, line)


@pytest.mark.parametrize("place", [0, 2, 4, 5])
def test_a_member_that_kills_its_worker_three_times_fails_alone(
    library: Library, pool: DecodePool, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.importer.CHUNK", 4)
    names = [f"{n:03}.png" for n in range(7)]
    names[place] = "poison.png"
    job = add_bulk(library, [(name, picture("red", n)) for n, name in enumerate(names)])
    deaths = 0
    while library.database.read(work_queue.list_uploads):
        mortal = Mortal(library, pool, ArchiveLimits(), 60.0, 60.0, 3)
        source = library.database.write(lambda c: work_queue.claim_upload(c, "mortal", 1e12))
        assert source is not None
        try:
            mortal._import(source, never_stop)
        except Dies:
            deaths += 1
            library.database.write(lambda c: work_queue.expire_leases(c, {"mortal"}, 3))
    assert deaths == 3
    assert items(library, job) == [(name, "failed" if name == "poison.png" else "queued") for name in names]
    ((_, item),) = JobService(library).list_items(job.id, ItemStatus.FAILED, 0, 10)
    assert item.error is not None
    assert item.error.detail == "the worker died 3 times while it imported this"
    after = job_of(library.database, job.id)
    assert (after.total, after.failed) == (len(names), 1)


class RefusingPool(DecodePool):
    """Cannot start a decoder for an archive; others it can."""

    def submit(self, function: Callable[..., Any], *args: Any, seconds: float | None = None) -> Future[Any]:
        if function is not expand_archive:
            return super().submit(function, *args, seconds=seconds)
        refused: Future[Any] = Future()
        refused.set_exception(Overloaded("no decoder could be started; try again"))
        return refused


def test_an_archive_that_brings_every_decoder_down_is_given_up(library: Library) -> None:
    job = add_bulk(library, [], [("a.zip", archive({"a.png": picture()}))])
    with RefusingPool(1) as pool:
        import_all(library, pool)
    ((_, item),) = JobService(library).list_items(job.id, None, 0, 10)
    assert item.error is not None
    assert item.error == ItemError("archive_corrupt", "importing it failed 3 times")


def test_an_archive_is_given_back_when_the_worker_stops_while_it_is_expanded(library: Library) -> None:
    add_bulk(library, [], [("a.zip", archive({"a.png": picture()}))])

    class Endless(DecodePool):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            return Future()

    with Endless(1) as pool:
        importer(library, pool).import_next("me", lambda: True)
    source = library.database.write(lambda c: work_queue.claim_upload(c, "next", 1e12))
    assert source is not None
    assert source.attempts == 1


def test_an_upload_that_killed_its_worker_too_often_is_given_up(library: Library, pool: DecodePool) -> None:
    job = add_bulk(library, [], [("a.zip", archive({"a.png": picture()}))])
    library.database.write(lambda c: c.execute("UPDATE sources SET attempts = 3") and None)
    import_all(library, pool)
    ((_, item),) = JobService(library).list_items(job.id, None, 0, 10)
    assert item.error is not None
    assert "failed 3 times" in item.error.detail
    assert job_of(library.database, job.id).state is JobState.SUCCEEDED


def test_an_id_that_is_taken_fails_its_item_and_not_the_others(library: Library, pool: DecodePool) -> None:
    add(library, picture("black"), id="taken")
    lines = json.dumps({"file": "a.png", "id": "taken"})
    content = archive({"a.png": picture("red"), "b.png": picture("blue"), "metadata.jsonl": lines.encode()})
    job = add_bulk(library, [], [("all.zip", content)])
    import_all(library, pool)
    assert dict(items(library, job)) == {"a.png": "failed", "b.png": "queued"}
    ((_, item),) = JobService(library).list_items(job.id, ItemStatus.FAILED, 0, 10)
    assert item.error is not None
    assert item.error.code == "id_conflict"


class Refusing(Importer):
    """Its writes fail with a full disk at the calls whose numbers are in `refused`."""

    def __init__(self, library: Library, pool: DecodePool, refused: set[int]) -> None:
        super().__init__(library, pool, ArchiveLimits(), 60.0, 60.0, 3)
        self._database = self  # type: ignore[assignment]
        self.library, self.refused, self.calls = library, refused, 0

    def read(self, work: Any) -> Any:
        return self.library.database.read(work)

    def write(self, work: Any) -> Any:
        self.calls += 1

        def refuse_some(c: Any) -> Any:
            made = work(c)
            if self.calls in self.refused:
                raise StorageFull("the disk is full")
            return made

        return self.library.database.write(refuse_some)


@pytest.mark.parametrize("fails", [{2}, {3}, {4}, {2, 3}, {3, 4, 5}])
def test_a_write_that_fails_at_any_point_is_repeated_exactly_once(
    library: Library, pool: DecodePool, fails: set[int]
) -> None:
    """Writes: 1 claim, 2 and 3 a chunk each, 4 the end; after a failure comes one that gives the upload back."""
    names = [f"{n:03}.png" for n in range(CHUNK + 6)]
    job = add_bulk(library, [(name, picture("red", n)) for n, name in enumerate(names)])
    with importing(Refusing(library, pool, fails)):
        wait_until(lambda: not library.database.read(work_queue.list_uploads), WAIT)
    assert [name for name, _ in items(library, job)] == names
    assert len(library.list_images("default", 1000, None)) == len(names)
    assert list(library.blobs.incoming.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from app.storage.jobs import JobService
from app.decode.limits import ArchiveLimits, PictureLimits
from app.decode.pool import DecodePool
from app.worker import importer
from app.storage.library import Library
from app.storage.blobs import BlobStore
from app.storage.address import open_database

folder, moment = Path(sys.argv[1]), sys.argv[2]
database = open_database(folder / "sightline.db")
library = Library(database, BlobStore(folder), PictureLimits(), 1000)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

importer.CHUNK = 2
if moment == "cleanup":
    library.blobs.delete_upload = die
else:
    place, placed = library.blobs.place, []
    def placing(saved, **said):
        place(saved, **said)
        placed.append(saved)
        if len(placed) == int(moment):
            die()
    library.blobs.place = placing
importing = importer.Importer(library, DecodePool(1), ArchiveLimits(), 60.0, 60.0, 3)
while True:
    importing.import_next("killed", lambda: False)
"""


@pytest.mark.parametrize("moment", ["1", "2", "3", "5", "cleanup"])
@pytest.mark.sqlite
def test_a_kill_at_any_point_loses_and_doubles_nothing(
    library: Library, pool: DecodePool, tmp_path: Path, moment: str
) -> None:
    job = add_bulk(library, [(f"{n}.png", picture("red", n)) for n in range(5)])
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    library.database.write(lambda c: work_queue.expire_leases(c, {"killed"}, 3))
    import_all(library, pool)
    assert items(library, job) == [(f"{n}.png", "queued") for n in range(5)]
    assert {path.name for path in library.blobs.iter_files()} == {
        image.sha256 for image in library.list_images("default", 100, None)
    }
    assert job_of(library.database, job.id).total == 5
    left = {path.name for path in library.blobs.incoming.iterdir()}
    assert left == ({f"{job.id}-0"} if moment == "cleanup" else set())  # swept away when it is old enough
    for name in left:
        for path in (library.blobs.incoming / name, *(library.blobs.incoming / name).rglob("*")):
            os.utime(path, (0, 0))
    assert library.collect_garbage(1.0, lambda: False) == len(left)
    assert list(library.blobs.incoming.iterdir()) == []


@pytest.mark.parametrize("positions", [True, False])
def test_an_upload_goes_on_where_a_stop_interrupted_it(library: Library, pool: DecodePool, positions: bool) -> None:
    """Also one that a version began which kept no positions."""
    names = [f"{n:03}.png" for n in range(CHUNK * 2 + 5)]
    job = add_bulk(library, [(name, picture("blue", n)) for n, name in enumerate(names)])
    importer(library, pool).import_next("me", lambda: True)
    assert len(items(library, job)) == CHUNK
    source = library.database.write(lambda c: work_queue.claim_upload(c, "next", 1e12))
    assert source is not None
    assert (source.imported, source.attempts) == (CHUNK, 1)
    assert job_of(library.database, job.id).total == len(names)
    assert source.position > 0
    library.database.write(lambda c: work_queue.release_upload(c, source))
    if not positions:
        library.database.write(lambda c: c.execute("UPDATE sources SET position = 0") and None)
    import_all(library, pool)
    assert [name for name, _ in items(library, job)] == names
    assert count_waiting(library.database) == len(names)


class SlowPool(DecodePool):
    """Takes a minute for each archive with the word `slow` in it."""

    def __init__(self) -> None:
        super().__init__(1, modules=["tests.support.hostile_files"])

    def submit(self, function: Callable[..., Any], *args: Any, seconds: float | None = None) -> Future[Any]:
        if function is expand_archive and b"slow" in args[0].read_bytes():
            return super().submit(hostile_files.sleep, 60.0, seconds=seconds)
        return super().submit(function, *args, seconds=seconds)


def is_leased(library: Library, job: Job) -> bool:
    sql = "SELECT 1 FROM sources WHERE job_id = ? AND lease_owner IS NOT NULL"
    return bool(library.database.read(lambda c: fetch_all(c, sql, (job.id,))))


def test_cancelling_a_job_ends_the_expansion_of_its_archive_at_once(library: Library) -> None:
    slow = add_bulk(library, [], [("slow.zip", archive({"slow.png": picture()}))])
    with SlowPool() as pool, importing(importer(library, pool)):
        wait_until(lambda: is_leased(library, slow), WAIT)
        JobService(library).cancel(slow.id)
        other = add_bulk(library, [], [("a.zip", archive({"a.png": picture("blue")}))])
        wait_until(lambda: job_of(library.database, other.id).total == 1 and not is_leased(library, other), WAIT)
        wait_until(lambda: not list(library.blobs.incoming.iterdir()), WAIT)
    assert job_of(library.database, slow.id).state is JobState.CANCELLED


def test_an_importer_without_patience_leaves_slow_archives_to_another_while_jobs_wait(library: Library) -> None:
    slow = add_bulk(library, [], [("slow.zip", archive({"slow.png": picture()}))])
    with SlowPool() as pool:
        quick = Importer(library, pool, ArchiveLimits(), 60.0, 60.0, 3, patience=0.2)
        with importing(quick):
            wait_until(lambda: is_leased(library, slow), WAIT)
            other = add_bulk(library, [], [("a.zip", archive({"a.png": picture("blue")}))])
            wait_until(lambda: job_of(library.database, other.id).total == 1, WAIT)
            wait_until(lambda: not is_leased(library, slow) and not is_leased(library, other), WAIT)
    upload = library.database.write(lambda c: work_queue.claim_upload(c, "patient", 1e12))
    assert upload is not None
    assert (upload.job_id, upload.attempts) == (slow.id, 1)


def test_an_importer_without_patience_goes_on_while_nobody_waits(library: Library) -> None:
    slow = add_bulk(library, [], [("slow.zip", archive({"slow.png": picture()}))])
    with SlowPool() as pool:
        quick = Importer(library, pool, ArchiveLimits(), 60.0, 60.0, 3, patience=0.0)
        with importing(quick):
            wait_until(lambda: is_leased(library, slow), WAIT)
            time.sleep(1.0)
            assert is_leased(library, slow)
