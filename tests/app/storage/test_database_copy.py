from __future__ import annotations

from pathlib import Path

from app.core.types import JobState
from app.storage import database_copy
from app.storage.database import Database
from app.storage.tables import embeddings, work_queue
from tests.support.makers import FINGERPRINT, add_upload, claim, finish, insert, job_of, new_job, sha256


def test_a_copy_is_whole_though_nothing_was_checkpointed(database: Database, tmp_path: Path) -> None:
    for n in range(3):
        insert(database, n)
    database_copy.copy_database(database.path, tmp_path / "copy.db")
    insert(database, 3)
    faults, pictures = database_copy.check_copy(tmp_path / "copy.db")
    assert (faults, pictures) == ([], sorted(sha256(n) for n in range(3)))
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]


def test_a_copy_that_was_altered_says_so(database: Database, tmp_path: Path) -> None:
    insert(database)
    database_copy.copy_database(database.path, tmp_path / "copy.db")
    bytes = bytearray((tmp_path / "copy.db").read_bytes())
    bytes[4096 + 3 : 4096 + 5] = b"\xff\xff"
    (tmp_path / "copy.db").write_bytes(bytes)
    assert database_copy.check_copy(tmp_path / "copy.db")[0]


def test_pictures_that_are_forgotten_leave_the_log_and_their_jobs(database: Database) -> None:
    id = new_job(database, [1, 2])
    finish(database, claim(database)[0])
    assert database.read(database_copy.list_digests) == sorted([sha256(1), sha256(2)])
    assert database_copy.delete_missing(database, [sha256(1), sha256(2), sha256(3)]) == 2
    assert database.read(database_copy.list_digests) == []
    assert database.read(lambda c: embeddings.count_vectors(c, "default", FINGERPRINT, "images")) == 0
    job = job_of(database, id)
    assert (job.state, job.done, job.failed) == (JobState.SUCCEEDED, 1, 1)


def test_uploads_that_wait_are_told_with_whether_they_have_files(database: Database) -> None:
    id = new_job(database)
    add_upload(database, id)
    database.write(lambda c: work_queue.add_upload(c, id, 2, "named", "/photos", 0, "folder"))
    database.write(lambda c: work_queue.add_upload(c, id, 3, "folder", "", 5, "urls"))
    assert database_copy.list_pending_uploads(database) == [(id, 1, True), (id, 2, False), (id, 3, True)]
