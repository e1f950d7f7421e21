"""Backups beside a library that goes on changing; damaged ones are refused before anything is touched."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from app.core.errors import StartupError
from app.core.types import JobState
from app.decode.limits import PictureLimits
from app.storage import backup as module
from app.storage.address import open_database
from app.storage.backup import (
    MANIFEST_NAME,
    check_backup,
    create_backup,
    list_digests,
    read_last_backup,
    read_manifest,
    restore_backup,
)
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.tables import embeddings, images, jobs, work_queue
from tests.support.makers import FINGERPRINT, add, add_bulk, add_upload, claim, finish, insert, job_of, new_job
from tests.support.makers import sha256 as sha256_of
from tests.support.pictures import picture

RED, BLUE, GREEN = (picture(colour) for colour in ("red", "blue", "green"))


def read_pictures(data_dir: Path) -> dict[str, bytes]:
    """The pictures of a data directory by id, read through a library of its own."""
    database = open_database(data_dir / "sightline.db")
    try:
        library = Library(database, BlobStore(data_dir), PictureLimits(), 1_000)
        return {
            image.id: library.blobs.path(image.sha256).read_bytes()
            for image in library.list_images("default", 1_000, None)
        }
    finally:
        database.close()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def backup_dir(library: Library, tmp_path: Path) -> Path:
    """A backup of two pictures, one of them ready, and an upload that waits."""
    add(library, RED, id="red", caption="红")
    finish(library.database, claim(library.database)[0])
    add(library, BLUE, id="blue")
    add_bulk(library, [("g.png", GREEN)], [("a.zip", b"an archive, to be")])
    create_backup(tmp_path, tmp_path.with_name("kept"))
    return tmp_path.with_name("kept")


@pytest.fixture(autouse=True)
def clean_up(tmp_path: Path) -> object:
    yield
    for name in ("kept", "again", "other"):
        shutil.rmtree(tmp_path.with_name(name), ignore_errors=True)
    return None


def test_what_was_acknowledged_is_there_after_a_restore(backup_dir: Path, library: Library, tmp_path: Path) -> None:
    again = tmp_path.with_name("again")
    restore_backup(again, backup_dir)
    assert read_pictures(again) == {"red": RED, "blue": BLUE}
    assert read_last_backup(tmp_path).pictures == 2
    assert read_last_backup(again).at == 0  # nothing was backed up from there
    database = open_database(again / "sightline.db")
    try:
        assert database.read(lambda c: images.count_by_status(c, "default"))["ready"] == 1
        (job,) = JobService(library).list_recent(10)
        assert job_of(database, job.id) == job
        waiting = BlobStore(again)
        assert {name: waiting.upload_path(job.id, n).exists() for name, n in (("folder", 0), ("archive", 1))} == {
            "folder": True,
            "archive": True,
        }
        assert tree(waiting.upload_path(job.id, 0)) == tree(library.blobs.upload_path(job.id, 0))
        assert waiting.upload_path(job.id, 1).read_bytes() == b"an archive, to be"
    finally:
        database.close()


def test_a_second_backup_copies_what_is_new_and_drops_what_was_deleted(
    backup_dir: Path, library: Library, tmp_path: Path
) -> None:
    before = {sha256: module.blob_path(backup_dir, sha256).stat().st_ino for sha256 in list_digests(backup_dir)}
    library.delete("default", "blue")
    add(library, GREEN, id="green")
    killed = module.blob_path(backup_dir, "ab" * 32).with_name(f".{'ab' * 32}.1.tmp")  # by a backup that was killed
    killed.parent.mkdir(parents=True)
    killed.write_bytes(BLUE)
    (backup_dir / ".manifest.json.1.tmp").touch()
    create_backup(tmp_path, backup_dir)
    assert not killed.exists()
    assert read_manifest(backup_dir).number == 2
    after = {sha256: module.blob_path(backup_dir, sha256).stat().st_ino for sha256 in list_digests(backup_dir)}
    assert len(after) == 2
    assert len(after.items() & before.items()) == 1
    assert sorted(path.name for path in backup_dir.iterdir()) == [MANIFEST_NAME, "media", "sightline-2.db", "uploads-2"]
    restore_backup(tmp_path.with_name("again"), backup_dir)
    assert read_pictures(tmp_path.with_name("again")) == {"red": RED, "green": GREEN}


def test_every_damage_is_refused_before_anything_is_touched(backup_dir: Path, tmp_path: Path) -> None:
    whole, again = tree(backup_dir), tmp_path.with_name("again")
    chance = random.Random(1)
    for name, bytes in whole.items():
        path = backup_dir / name
        spots = [0, len(bytes) - 1, *(chance.randrange(len(bytes)) for _ in range(8))]
        damages = [bytes[:spot] + bytes[spot : spot + 1].translate(FLIP) + bytes[spot + 1 :] for spot in spots]
        for damaged in [*damages, b"", bytes[:-1], bytes + b"\0"]:
            path.write_bytes(damaged)
            with pytest.raises(StartupError, match=r"damaged|written by"):
                restore_backup(again, backup_dir)
        path.unlink()
        with pytest.raises(StartupError, match=r"damaged|no backup"):
            restore_backup(again, backup_dir)
        path.write_bytes(bytes)
    assert not again.exists()
    assert check_backup(backup_dir)[0].pictures == 2
    assert tree(backup_dir) == whole


FLIP = bytes(n ^ 1 for n in range(256))


def test_a_database_that_is_wrong_though_its_digest_is_right_is_refused(backup_dir: Path, tmp_path: Path) -> None:
    manifest = read_manifest(backup_dir)
    path = backup_dir / "sightline-1.db"
    damaged = bytearray(path.read_bytes())
    damaged[4096 + 3 : 4096 + 5] = b"\xff\xff"
    path.write_bytes(damaged)
    fields = {**manifest.files, path.name: module.sha256_or_empty(path)}
    module.write_manifest(backup_dir, module.BackupManifest(1, manifest.version, manifest.created_at, 1, 2, fields))
    with pytest.raises(StartupError, match="damaged"):
        restore_backup(tmp_path.with_name("again"), backup_dir)


def test_a_directory_that_holds_something_is_never_restored_into(backup_dir: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    with pytest.raises(StartupError, match="is not empty"):
        restore_backup(tmp_path, backup_dir)
    assert tree(tmp_path) == before
    other = tmp_path.with_name("other")
    (other / "models").mkdir(parents=True)
    restore_backup(other, backup_dir)
    assert read_pictures(other) == {"red": RED, "blue": BLUE}


def test_a_folder_that_is_no_backup_is_neither_written_to_nor_restored(library: Library, tmp_path: Path) -> None:
    other = tmp_path.with_name("other")
    other.mkdir()
    (other / "letters.txt").write_text("mine")
    with pytest.raises(StartupError, match="neither empty nor a backup"):
        create_backup(tmp_path, other)
    with pytest.raises(StartupError, match="there is no backup"):
        restore_backup(tmp_path.with_name("again"), other)
    with pytest.raises(StartupError, match="no data directory"):
        create_backup(other, tmp_path.with_name("kept"))
    assert tree(other) == {"letters.txt": b"mine"}


def test_a_backup_of_another_format_is_told(backup_dir: Path) -> None:
    fields = json.loads((backup_dir / MANIFEST_NAME).read_text()) | {"format": 2, "version": "9.9"}
    (backup_dir / MANIFEST_NAME).write_text(json.dumps(fields))
    with pytest.raises(StartupError, match=r"was written by Sightline 9\.9"):
        read_manifest(backup_dir)


def test_a_backup_that_fails_leaves_the_one_before(
    backup_dir: Path, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(library, GREEN, id="green")

    def raise_disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", raise_disk_full)
        with pytest.raises(Exception, match="disk is full"):
            create_backup(tmp_path, backup_dir)
    restore_backup(tmp_path.with_name("again"), backup_dir)
    assert read_pictures(tmp_path.with_name("again")) == {"red": RED, "blue": BLUE}
    create_backup(tmp_path, backup_dir)
    assert read_manifest(backup_dir).number == 2


def test_a_picture_deleted_during_the_copy_is_deleted_in_the_backup(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(library, RED, id="red")
    plain = module.copy_sqlite

    def copying(database: Path, target: Path) -> None:
        add(library, BLUE, id="late")  # after the first pass over the pictures
        plain(database, target)
        library.delete("default", "late")

    monkeypatch.setattr(module, "copy_sqlite", copying)
    kept = tmp_path.with_name("kept")
    create_backup(tmp_path, kept)
    restore_backup(tmp_path.with_name("again"), kept)
    assert read_pictures(tmp_path.with_name("again")) == {"red": RED}


def test_an_upload_that_is_taken_in_during_the_copy_makes_it_begin_anew(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_bulk(library, [], [("a.zip", b"archive")])
    plain, times = module.copy_sqlite, []

    def copying(database: Path, target: Path) -> None:
        plain(database, target)
        times.append(1)
        if len(times) == 1:
            JobService(library).cancel(job.id)

    monkeypatch.setattr(module, "copy_sqlite", copying)
    create_backup(tmp_path, tmp_path.with_name("kept"))
    assert len(times) == 2
    assert list(read_manifest(tmp_path.with_name("kept")).files) == ["sightline-1.db"]


def test_an_upload_whose_files_never_come_is_an_error(library: Library, tmp_path: Path) -> None:
    database = library.database
    id = database.write(lambda c: jobs.create(c, "default", "bulk"))
    database.write(lambda c: work_queue.add_upload(c, id, 1, "archive", "a.zip", 0))
    with pytest.raises(StartupError, match="try again"):
        create_backup(tmp_path, tmp_path.with_name("kept"))


def test_a_copy_is_whole_though_nothing_was_checkpointed(database: Database, tmp_path: Path) -> None:
    for n in range(3):
        insert(database, n)
    module.copy_sqlite(Path(database.address), tmp_path / "copy.db")
    insert(database, 3)
    faults, pictures = module.check_copy(tmp_path / "copy.db")
    assert (faults, pictures) == ([], sorted(sha256_of(n) for n in range(3)))
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]


def test_a_copy_that_was_altered_says_so(database: Database, tmp_path: Path) -> None:
    insert(database)
    module.copy_sqlite(Path(database.address), tmp_path / "copy.db")
    bytes = bytearray((tmp_path / "copy.db").read_bytes())
    bytes[4096 + 3 : 4096 + 5] = b"\xff\xff"
    (tmp_path / "copy.db").write_bytes(bytes)
    assert module.check_copy(tmp_path / "copy.db")[0]


def test_pictures_that_are_forgotten_leave_the_log_and_their_jobs(database: Database) -> None:
    id = new_job(database, [1, 2])
    finish(database, claim(database)[0])
    assert database.read(module.select_digests) == sorted([sha256_of(1), sha256_of(2)])
    module.delete_missing(database, [sha256_of(1), sha256_of(2), sha256_of(3)])
    assert database.read(module.select_digests) == []
    assert database.read(lambda c: embeddings.count_vectors(c, "default", FINGERPRINT, "images")) == 0
    job = job_of(database, id)
    assert (job.state, job.done, job.failed) == (JobState.SUCCEEDED, 1, 1)


def test_uploads_that_wait_are_told_with_whether_they_have_files(database: Database) -> None:
    id = new_job(database)
    add_upload(database, id)
    database.write(lambda c: work_queue.add_upload(c, id, 2, "named", "/photos", 0, "folder"))
    database.write(lambda c: work_queue.add_upload(c, id, 3, "folder", "", 5, "urls"))
    assert module.list_pending_uploads(database) == [(id, 1, True), (id, 2, False), (id, 3, True)]


def rewrite_manifest(folder: Path, number: object = 1, **files: str) -> None:
    """Change a manifest as somebody does who knows how: its digest is right."""
    before = read_manifest(folder)
    fields = {**before.files, **files}
    changed = module.BackupManifest(1, before.version, before.created_at, number, 2, fields)  # type: ignore[arg-type]
    module.write_manifest(folder, changed)


@pytest.mark.parametrize(
    "name",
    [
        "uploads-1/../../../pwned",
        "uploads-1/../pwned",
        "uploads-1/./pwned",
        "uploads-1//pwned",
        "uploads-1",
        "uploads-2/pwned",
        "../pwned",
        "media/pwned",
        "lock",
        "",
        "uploads-1/a\0",
        "{absolute}",
        "uploads-1/{absolute}",
        "uploads-1/link",
        "uploads-1/folder/pwned",
        "uploads-1/pipe",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(
    name: str, backup_dir: Path, tmp_path: Path
) -> None:
    outside = tmp_path.with_name("other")
    outside.mkdir()
    (outside / "pwned").write_bytes(b"x")
    for place in (backup_dir / "pwned", backup_dir / "media" / "pwned", tmp_path.with_name("pwned")):
        place.write_bytes(b"x")
    try:
        (backup_dir / "uploads-1" / "link").symlink_to(outside / "pwned")
        (backup_dir / "uploads-1" / "folder").symlink_to(outside)
        os.mkfifo(backup_dir / "uploads-1" / "pipe")
        rewrite_manifest(backup_dir, **{name.format(absolute=outside / "pwned"): hashlib.sha256(b"x").hexdigest()})
        with pytest.raises(StartupError, match="damaged"):
            restore_backup(tmp_path.with_name("again"), backup_dir)
        assert not tmp_path.with_name("again").exists()
    finally:
        tmp_path.with_name("pwned").unlink()


@pytest.mark.parametrize("number", ["1", "../../other/x", True, None, 2])
def test_a_number_that_is_none_is_refused(number: object, backup_dir: Path, tmp_path: Path) -> None:
    rewrite_manifest(backup_dir, number)
    with pytest.raises(StartupError, match="damaged"):
        restore_backup(tmp_path.with_name("again"), backup_dir)


def test_pictures_behind_a_link_are_refused(backup_dir: Path, tmp_path: Path) -> None:
    (backup_dir / "media").rename(tmp_path.with_name("other"))
    (backup_dir / "media").symlink_to(tmp_path.with_name("other"))
    with pytest.raises(StartupError, match=r"picture .* is missing, altered or no plain file"):
        restore_backup(tmp_path.with_name("again"), backup_dir)
    with pytest.raises(StartupError, match="is a link"):
        create_backup(tmp_path, backup_dir)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE images SET sha256 = '../../../../etc/passwd' WHERE id = 'red'",
        "UPDATE images SET sha256 = '' WHERE id = 'red'",
        "UPDATE sources SET job_id = '../../../victim'",
        "UPDATE collections SET label = '../victim'",
    ],
)
def test_a_database_that_names_files_elsewhere_is_refused(sql: str, backup_dir: Path, tmp_path: Path) -> None:
    copy = backup_dir / "sightline-1.db"
    connection = apsw.Connection(str(copy))
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(sql)
    connection.close()
    rewrite_manifest(backup_dir, **{copy.name: module.sha256_or_empty(copy)})
    with pytest.raises(StartupError, match=r"damaged: sightline-1\.db: .* holds '"):
        restore_backup(tmp_path.with_name("again"), backup_dir)
    assert not tmp_path.with_name("again").exists()


def test_a_backup_on_a_path_with_a_link_is_made_and_restored(library: Library, tmp_path: Path) -> None:
    add(library, RED, id="red")
    tmp_path.with_name("other").mkdir()
    tmp_path.with_name("kept").symlink_to(tmp_path.with_name("other"))
    try:
        create_backup(tmp_path, tmp_path.with_name("kept"))
        restore_backup(tmp_path.with_name("again"), tmp_path.with_name("kept"))
        assert read_pictures(tmp_path.with_name("again")) == {"red": RED}
    finally:
        tmp_path.with_name("kept").unlink()


def test_a_manifest_that_is_no_plain_file_or_too_deep_is_refused(backup_dir: Path, tmp_path: Path) -> None:
    manifest = backup_dir / MANIFEST_NAME
    content = manifest.read_bytes()
    (tmp_path / "elsewhere.json").write_bytes(content)
    manifest.write_bytes(b"[" * 100_000)
    with pytest.raises(StartupError, match="damaged"):
        restore_backup(tmp_path.with_name("again"), backup_dir)
    manifest.unlink()
    manifest.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(StartupError, match="damaged"):
        restore_backup(tmp_path.with_name("again"), backup_dir)
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(StartupError, match="damaged"):
        restore_backup(tmp_path.with_name("again"), backup_dir)


def test_a_database_with_other_tables_is_refused(backup_dir: Path, tmp_path: Path) -> None:
    copy = backup_dir / "sightline-1.db"
    copy.unlink()
    with closing(apsw.Connection(str(copy))) as connection:
        connection.execute("CREATE TABLE other (n)")
    rewrite_manifest(backup_dir, **{copy.name: module.sha256_or_empty(copy)})
    with pytest.raises(StartupError, match=r"damaged: sightline-1\.db: no such table"):
        restore_backup(tmp_path.with_name("again"), backup_dir)
