from __future__ import annotations

from app.core.types import ItemError
from app.storage.database import Database
from app.storage.tables import images, jobs, queue_depth
from tests.support.makers import claim, finish, insert, new_image, new_job


def load(database: Database) -> tuple[int, int]:
    return database.read(queue_depth.read_depth)


def test_pictures_count_until_they_are_ready_failed_or_gone(database: Database) -> None:
    assert load(database) == (0, 0)
    for n in range(4):
        insert(database, n, f"i{n}")  # of 10 + n bytes
    assert load(database) == (4, 46)
    first, second, third, _ = claim(database)
    assert load(database) == (4, 46)
    finish(database, first)
    database.write(lambda c: images.fail(c, second.image.key, ItemError("image_corrupt", "cut off")))
    assert load(database) == (2, 25)
    database.write(lambda c: images.delete(c, third.image.key))
    assert load(database) == (1, 13)
    database.write(lambda c: images.add(c, "default", new_image(20, "i3"), None, True))
    assert load(database) == (1, 30)
    database.write(lambda c: images.requeue_all(c) and None)
    assert load(database) == (3, 10 + 11 + 30)


def test_uploads_count_until_they_are_taken_in(database: Database) -> None:
    id = new_job(database)
    database.write(lambda c: jobs.add_upload(c, id, 0, "folder", "", 10, size=1000))
    database.write(lambda c: jobs.add_upload(c, id, 1, "archive", "a.zip", 0, size=500))
    assert load(database) == (11, 1500)
    source = database.write(lambda c: jobs.claim_upload(c, "a", 1e12))
    assert source is not None
    database.write(lambda c: jobs.record_progress(c, source, 4, 6, 0))
    assert load(database) == (7, 1100)
    database.write(lambda c: jobs.finish_upload(c, source))
    assert load(database) == (1, 500)
