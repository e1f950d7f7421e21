from __future__ import annotations

import pytest

from app.bulks import Bulks
from app.errors import NotFound
from app.library import Library
from app.store import images, jobs
from app.types import ItemStatus, JobState
from tests.app.makers import add, add_bulk, claim, finish
from tests.pictures import picture

RED, BLUE = picture("red"), picture("blue")


def test_a_bulk_waits_as_a_folder_with_a_manifest_and_archives_beside_it(library: Library) -> None:
    bulks = Bulks(library)
    job = add_bulk(library, [("a.png", RED), ("b.png", BLUE)], [("c.zip", b"PK not read here")])
    assert (job.state, job.total, job.kind) == (JobState.QUEUED, 2, "bulk")
    assert library.database.read(jobs.sources) == {(job.id, 0), (job.id, 1)}
    assert library.media.upload(job.id, 1).read_bytes() == b"PK not read here"
    folder = library.media.upload(job.id, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["000000", "000001", "manifest.jsonl"]
    assert bulks.get(job.id) == job
    assert [one.id for one in bulks.recent(5)] == [job.id]
    with pytest.raises(NotFound):
        bulks.get("unknown")


def test_a_cancelled_job_leaves_no_uploads_and_a_retry_takes_its_pictures_up(library: Library) -> None:
    bulks = Bulks(library)
    job = add_bulk(library, [("a.png", RED)], [("b.zip", b"an archive, to be")])
    added = add(library, BLUE)
    library.database.write(lambda c: images.requeue(c, added.image.key, job.id))
    pair = (added.image.key, added.image.id)
    library.database.write(lambda c: jobs.add_item(c, job.id, "x.png", ItemStatus.QUEUED, image=pair))
    cancelled = bulks.cancel(job.id)
    assert (cancelled.state, cancelled.total, cancelled.failed) == (JobState.CANCELLED, 1, 1)
    assert list(library.media.incoming.iterdir()) == []
    assert bulks.cancel(job.id) == cancelled
    assert library.file("default", added.image.id)[1].read_bytes() == BLUE
    assert bulks.retry(job.id).state is JobState.QUEUED
    for lease in claim(library.database):
        finish(library.database, lease)
    assert bulks.get(job.id).state is JobState.SUCCEEDED
    for change in (bulks.cancel, bulks.retry):
        with pytest.raises(NotFound):
            change("unknown")


def test_items_of_a_job_that_goes_on_are_not_dropped(library: Library) -> None:
    bulks = Bulks(library)
    job = add_bulk(library, [("a.png", RED)])
    bulks.drop_items(job.id)
    assert bulks.get(job.id).state is JobState.QUEUED
