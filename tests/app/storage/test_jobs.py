from __future__ import annotations

import pytest

from app.core.errors import NotFound, Validation
from app.core.types import ItemStatus, JobState, Priority, SourceSpec
from app.storage.idempotency import ResponseSlot, find_response
from app.storage.jobs import JobOptions, JobService
from app.storage.library import Library
from app.storage.tables import images, jobs, work_queue
from tests.support.makers import add, add_bulk, claim, finish
from tests.support.pictures import picture

RED, BLUE = picture("red"), picture("blue")


def test_a_bulk_waits_as_a_folder_with_a_manifest_and_archives_beside_it(library: Library) -> None:
    job_service = JobService(library)
    job = add_bulk(library, [("a.png", RED), ("b.png", BLUE)], [("c.zip", b"PK not read here")])
    assert (job.state, job.total, job.kind) == (JobState.QUEUED, 2, "bulk")
    assert library.database.read(work_queue.list_uploads) == {(job.id, 0), (job.id, 1)}
    assert library.blobs.upload_path(job.id, 1).read_bytes() == b"PK not read here"
    folder = library.blobs.upload_path(job.id, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["000000", "000001", "manifest.jsonl"]
    assert job_service.get(job.id) == job
    assert [one.id for one in job_service.list_recent(5)] == [job.id]
    with pytest.raises(NotFound):
        job_service.get("unknown")


def test_a_cancelled_job_leaves_no_uploads_and_a_retry_takes_its_pictures_up(library: Library) -> None:
    job_service = JobService(library)
    job = add_bulk(library, [("a.png", RED)], [("b.zip", b"an archive, to be")])
    added = add(library, BLUE)
    library.database.write(lambda c: images.requeue(c, added.image.key, job.id))
    pair = (added.image.key, added.image.id)
    library.database.write(lambda c: jobs.add_item(c, job.id, "x.png", ItemStatus.QUEUED, image=pair))
    cancelled = job_service.cancel(job.id)
    assert (cancelled.state, cancelled.total, cancelled.failed) == (JobState.CANCELLED, 1, 1)
    assert list(library.blobs.incoming.iterdir()) == []
    assert job_service.cancel(job.id) == cancelled
    with library.open_file("default", added.image.id)[1] as file:
        assert file.read() == BLUE
    assert job_service.retry(job.id).state is JobState.QUEUED
    for lease in claim(library.database):
        finish(library.database, lease)
    assert job_service.get(job.id).state is JobState.SUCCEEDED
    for change in (job_service.cancel, job_service.retry):
        with pytest.raises(NotFound):
            change("unknown")


def test_only_waiting_items_of_cancelled_jobs_fail(library: Library) -> None:
    job_service = JobService(library)
    job = add_bulk(library, [("a.png", RED)])
    job_service.fail_waiting_items(job.id)
    assert job_service.get(job.id).state is JobState.QUEUED


def test_a_paused_job_gives_no_uploads_until_it_is_resumed(library: Library) -> None:
    job_service = JobService(library)
    job = add_bulk(library, [("a.png", RED)])
    other = add_bulk(library, [("b.png", BLUE)])
    assert job_service.pause(job.id).state is JobState.PAUSED

    def claim_and_finish() -> str | None:
        source = library.database.write(lambda c: work_queue.claim_upload(c, "a", 1e12))
        if source is None:
            return None
        library.database.write(lambda c: work_queue.finish_upload(c, source))
        return source.job_id

    assert [claim_and_finish(), claim_and_finish()] == [other.id, None]
    assert job_service.resume(job.id).state is JobState.QUEUED
    assert claim_and_finish() == job.id
    assert job_service.pause(job.id).state is JobState.SUCCEEDED
    again = add_bulk(library, [("a.png", RED)])
    job_service.pause(again.id)
    assert job_service.cancel(again.id).state is JobState.CANCELLED
    for change in (job_service.pause, job_service.resume):
        with pytest.raises(NotFound):
            change("unknown")


def test_an_upload_yields_to_a_new_job_at_once_and_to_a_running_one_that_is_far_behind(library: Library) -> None:
    def claim_upload(owner: str) -> work_queue.Upload:
        source = library.database.write(lambda c: work_queue.claim_upload(c, owner, 1e12))
        assert source is not None
        return source

    def gives_way(source: work_queue.Upload) -> bool:
        return library.database.read(lambda c: work_queue.must_yield(c, source))

    def record_members(source: work_queue.Upload, members: int) -> None:
        library.database.write(lambda c: work_queue.record_progress(c, source, members, 99, 0))

    add_bulk(library, [("a.png", RED)])
    big = claim_upload("a")
    record_members(big, 64)
    assert not gives_way(big)
    add_bulk(library, [("b.png", BLUE)])
    record_members(big, 128)
    assert gives_way(big)
    library.database.write(lambda c: work_queue.release_upload(c, big))
    small = claim_upload("a")
    assert small.job_id != big.job_id
    record_members(small, 64 + work_queue.MAX_LEAD)
    assert not gives_way(small)
    record_members(small, 64 + work_queue.MAX_LEAD + 1)
    assert gives_way(small)


def test_uploads_are_added_to_a_job_that_goes_on_and_have_numbers_of_their_own(library: Library) -> None:
    job_service = JobService(library)
    job = add_bulk(library, [("a.png", RED)])
    source = library.database.write(lambda c: work_queue.claim_upload(c, "a", 1e12))
    assert source is not None
    library.database.write(lambda c: work_queue.finish_upload(c, source))
    assert job_service.get(job.id).state is JobState.SUCCEEDED
    same = add_bulk(library, [("b.png", BLUE)], [("c.zip", b"PK not read here")], options=JobOptions(job=job.id))
    assert (same.id, same.state, same.total, same.finished_at) == (job.id, JobState.QUEUED, 1, None)
    library.blobs.delete_upload(source.job_id, source.n)  # by the worker that ended the first one, late
    (_, folder), (_, archive) = sorted(library.database.read(work_queue.list_uploads))
    assert library.blobs.upload_path(job.id, folder).is_dir()
    assert library.blobs.upload_path(job.id, archive).is_file()
    job_service.cancel(job.id)
    with pytest.raises(Validation, match="cancelled"):
        add_bulk(library, [("d.png", BLUE)], options=JobOptions(job=job.id))
    with pytest.raises(NotFound):
        add_bulk(library, [("d.png", BLUE)], options=JobOptions(job="unknown"))


def test_jobs_that_ended_long_ago_are_deleted(library: Library) -> None:
    job_service = JobService(library)
    old, running = add_bulk(library, [("a.png", RED)]), add_bulk(library, [("b.png", BLUE)])
    job_service.cancel(old.id)
    assert job_service.delete_ended("2000-01-01", lambda: False) == 0
    assert job_service.delete_ended("2999-01-01", lambda: True) == 0
    assert job_service.delete_ended("2999-01-01", lambda: False) == 1
    assert [job.id for job in job_service.list_recent(10)] == [running.id]


def test_a_job_has_its_priority_and_is_recorded_with_it(library: Library) -> None:
    slot = ResponseSlot(library.database, "", "key", "digest")
    job = JobService(library).add_source("default", SourceSpec("folder", "/photos"), JobOptions(Priority.LOW, slot))
    assert job.priority is Priority.LOW
    recorded = library.database.read(lambda c: find_response(c, "", "key", "2000-01-01"))
    assert recorded is not None
    assert job.id in recorded.body
