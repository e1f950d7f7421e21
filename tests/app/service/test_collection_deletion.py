from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from app.core.errors import NotFound, StorageFull, Validation
from app.core.types import Status
from app.decode.limits import ArchiveLimits
from app.decode.pool import DecodePool
from app.encoder.dummy import DummyEncoder
from app.service.maintenance import CollectionDeleter
from app.storage.library import Library
from app.storage.tables import collection_deletion
from app.worker.embed import EmbeddingWorker, WorkerOptions
from app.worker.importer import Importer
from tests.app.storage.tables.test_collection_deletion import count_leftovers
from tests.support.makers import Switched, add, add_bulk, count_waiting, job_of
from tests.support.pictures import picture
from tests.support.servers import wait_until

WAIT = 20.0
RACES = 50


@pytest.fixture
def deleter(library: Library, tmp_path: Path) -> Iterator[CollectionDeleter]:
    deleter = CollectionDeleter(library, tmp_path / "snapshots", lambda _: None)
    deleter.start()
    yield deleter
    deleter.close()


def files(library: Library) -> list[str]:
    """Every file of pictures, thumbnails and uploads."""
    media = library.blobs
    return sorted(
        str(path.relative_to(root))
        for root in (media.root, media.thumbnails)
        for path in root.rglob("*")
        if path.is_file()
    )


def test_nothing_is_left_of_a_dropped_collection(library: Library, deleter: CollectionDeleter, tmp_path: Path) -> None:
    library.create_collection("birds", "")
    add(library, picture(), collection="birds")
    job = add_bulk(library, [("a.png", picture("blue"))], collection="birds")
    (label,) = [one for one in library.list_collections() if one.name == "birds"]
    assert label.images == 1
    deleter.delete("birds", WAIT)
    assert (files(library), count_leftovers(library.database)) == ([], {})
    assert job_of(library.database, job.id).state == "cancelled"
    with pytest.raises(NotFound):
        library.get_collection("birds")
    with pytest.raises(NotFound):
        deleter.delete("birds", WAIT)
    with pytest.raises(Validation, match="always there"):
        deleter.delete("default", WAIT)


def test_the_same_picture_in_two_collections_is_one_file_until_both_are_gone(
    library: Library, deleter: CollectionDeleter
) -> None:
    for name in ("birds", "cats"):
        library.create_collection(name, "")
        assert not add(library, picture(), collection=name, id="same").duplicate
    (file,) = files(library)
    deleter.delete("birds", WAIT)
    assert files(library) == [file]
    with library.open_file("cats", "same")[1] as held:
        assert held.read() == picture()
    library.delete("cats", "same")
    assert files(library) == []


def test_what_a_kill_left_is_swept_away_at_the_next_start(library: Library, tmp_path: Path) -> None:
    library.create_collection("birds", "")
    for n in range(5):
        add(library, picture(seed=n), collection="birds")
    label, _ = library.database.write(lambda c: collection_deletion.begin(c, "birds"))
    library.database.write(lambda c: collection_deletion.delete_batch(c, label, 2, library.blobs.delete))
    assert len(files(library)) == 3  # killed here
    for folder in (label, "gone~00000000", "default"):
        (tmp_path / "snapshots" / folder / "images").mkdir(parents=True)
    library.create_collection("birds", "made anew meanwhile")
    add(library, picture(seed=1), collection="birds")
    deleter = CollectionDeleter(library, tmp_path / "snapshots", lambda _: None)
    deleter.start()
    wait_until(lambda: library.database.read(collection_deletion.list_pending) == [], WAIT)
    deleter.close()
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["default"]
    assert [image.status for image in library.list_images("birds", 10, None)] == [Status.QUEUED]
    assert len(files(library)) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [(StorageFull("the disk is full"), "the disk is full"), (apsw.IOError("in /secret/place"), "IOError")],
)
def test_what_fails_is_told_and_waited_out(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    monkeypatch.setattr("app.service.maintenance.RETRY_SECONDS", 0.05)
    failing = threading.Event()
    failing.set()

    def close_indexes(_: str) -> None:
        if failing.is_set():
            raise error

    deleter = CollectionDeleter(library, tmp_path / "snapshots", close_indexes)
    deleter.start()
    library.create_collection("birds", "")
    add(library, picture(), collection="birds")
    deleter.delete("birds", 0.2)
    assert len(files(library)) == 1
    wait_until(lambda: deleter.fault, WAIT)
    assert deleter.fault == f"rows and files of deleted collections are still there: {told}"
    failing.clear()
    wait_until(lambda: files(library) == [] and deleter.fault is None, WAIT)
    deleter.close()


def test_dropping_while_a_bulk_load_fills_it_leaves_nothing(
    library: Library, deleter: CollectionDeleter, pool: DecodePool, tmp_path: Path
) -> None:
    importer = Importer(library, pool, ArchiveLimits(), 60.0, 60.0, 3)
    worker = EmbeddingWorker(
        library, DummyEncoder(), pool, importer, tmp_path / "workers", WorkerOptions(2, 60.0, 3, 32)
    )
    working = threading.Thread(target=worker.run)
    working.start()
    chance = random.Random(5)
    ended = []
    try:
        for race in range(RACES):
            library.create_collection("race", "")
            pictures = [(f"{n}.png", picture("red", seed=10 * race + n)) for n in range(5)]
            job = add_bulk(library, pictures, collection="race")
            time.sleep(chance.random() * 0.15)
            deleter.delete("race", WAIT)
            assert count_leftovers(library.database) == {}
            ended.append(job_of(library.database, job.id))
        add(library, picture("blue"), id="last")  # what the worker had claimed before this, it is done with after
        wait_until(lambda: library.get("default", "last").status is Status.READY, WAIT)
    finally:
        worker.stop()
        working.join(WAIT)
    assert not working.is_alive()
    assert count_leftovers(library.database) == {}
    assert len(files(library)) == 2, files(library)
    assert count_waiting(library.database) == 0
    assert {job.state for job in ended} <= {"cancelled", "succeeded"}
    assert sum(job.state == "cancelled" for job in ended) > RACES / 5
    assert all(job.done + job.failed + job.duplicates == job.total for job in ended)


def test_a_deletion_that_begins_while_a_follower_looks_is_waited_for(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The follower's look comes before the deletion, and what it does with the answer comes after it."""
    other = Switched()
    other.is_leader = False
    closed: list[str] = []
    deleter = CollectionDeleter(library, tmp_path / "snapshots", closed.append, membership=other)
    library.create_collection("birds", "")
    waiting = threading.Thread(target=deleter.delete, args=("birds", WAIT))
    look = library.list_deletions

    def look_then_let_a_deletion_begin() -> list[str]:
        labels = look()
        if not waiting.ident:
            waiting.start()
            wait_until(lambda: deleter._deleting, WAIT)
        return labels

    monkeypatch.setattr(library, "list_deletions", look_then_let_a_deletion_begin)
    try:
        deleter.start()
        wait_until(lambda: bool(closed), WAIT)
        assert waiting.is_alive()
    finally:
        deleter.close()
        waiting.join(WAIT)


def test_a_server_that_does_not_lead_closes_its_indexes_and_waits_for_the_one_that_does(
    library: Library, tmp_path: Path
) -> None:
    leader, other = Switched(), Switched()
    other.is_leader = False
    closed: list[str] = []
    deleters = [
        CollectionDeleter(library, tmp_path / "snapshots", closing, membership=one)
        for one, closing in ((leader, lambda _: None), (other, closed.append))
    ]
    try:
        library.create_collection("birds", "")
        add(library, picture(), collection="birds")
        deleters[1].start()
        waiting = threading.Thread(target=deleters[1].delete, args=("birds", WAIT))
        waiting.start()
        wait_until(lambda: bool(closed), WAIT)
        assert count_leftovers(library.database) != {}
        deleters[0].start()
        waiting.join(WAIT)
        assert not waiting.is_alive()
        assert count_leftovers(library.database) == {}
        assert len(closed) == 1
    finally:
        for deleter in deleters:
            deleter.close()
