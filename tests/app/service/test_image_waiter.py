"""Waiting for pictures: callers share the reads, and each gets its own picture."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from app.core.errors import NotFound
from app.core.types import Image, ItemError, Status
from app.service.image_waiter import ImageWaiter
from app.storage.library import Library
from app.storage.tables import work_queue
from tests.support.makers import add, claim, finish
from tests.support.pictures import picture

WAIT = 20.0
CALLERS = 200


@pytest.fixture
def waiter(library: Library) -> Iterator[ImageWaiter]:
    waiter = ImageWaiter(library.database)
    waiter.start()
    yield waiter
    waiter.close()


def embed_next(library: Library) -> None:
    """What a worker does with the oldest picture that waits."""
    (lease,) = claim(library.database, limit=1)
    finish(library.database, lease)


def test_many_callers_share_few_reads(library: Library, waiter: ImageWaiter, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = [add(library, picture(seed=n)).image for n in range(3)]
    reads = 0
    read = library.database.read

    def count_reads(work: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(work)

    futures: list[tuple[Image, Future[Image]]] = [
        (image, waiter.watch(image)) for _ in range(CALLERS) for image in waited
    ]
    monkeypatch.setattr(library.database, "read", count_reads)
    for _ in waited:
        embed_next(library)
    for image, future in futures:
        done = future.result(WAIT)
        assert (done.id, done.status) == (image.id, Status.READY)
    assert reads <= 20  # a commit costs one read, however many callers wait


def test_a_picture_that_is_ready_already_is_seen_without_a_commit(library: Library, waiter: ImageWaiter) -> None:
    image = add(library, picture()).image
    embed_next(library)
    assert waiter.watch(image).result(WAIT).status is Status.READY


def test_failed_and_deleted_pictures_end_the_wait(library: Library, waiter: ImageWaiter) -> None:
    failed, deleted = (add(library, picture(seed=n)).image for n in range(2))
    futures = waiter.watch(failed), waiter.watch(deleted)
    (lease,) = claim(library.database, limit=1)
    error = ItemError("image_corrupt", "it cannot be decoded")
    library.database.write(lambda c: work_queue.fail_image(c, lease, error))
    assert futures[0].result(WAIT).status is Status.FAILED
    library.delete("default", deleted.id)
    with pytest.raises(NotFound):
        futures[1].result(WAIT)


def test_a_cancelled_future_is_forgotten(library: Library, waiter: ImageWaiter) -> None:
    image = add(library, picture()).image
    assert waiter.watch(image).cancel()
    other = waiter.watch(image)
    embed_next(library)
    assert other.result(WAIT).status is Status.READY
    assert waiter.fault is None
