from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as changed
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from app.core.errors import (
    BlobMissing,
    IdConflict,
    NotFound,
    QueueFull,
    SightlineError,
    StorageFull,
    UnsupportedMediaType,
)
from app.core.types import ItemError, ItemStatus, JobState, Status
from app.decode.limits import PictureLimits
from app.storage.address import open_database
from app.storage.attributes import ImageAttributes
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.filters.parser import parse_filter
from app.storage.jobs import JobService
from app.storage.library import DELETE_BATCH, Library, default_text_id
from app.storage.tables import embeddings, jobs
from tests.app.conftest import SmallDisk
from tests.support.makers import (
    COLLECTION,
    FINGERPRINT,
    SPACE,
    VECTOR,
    add,
    add_bulk,
    claim,
    count_waiting,
    finish,
    image_of,
    job_of,
)
from tests.support.pictures import picture

RED, BLUE = picture("red"), picture("blue")


def vectors(library: Library) -> list[embeddings.LogEntry]:
    return library.database.read(lambda c: embeddings.list_after(c, "default", FINGERPRINT, "images", 0, 100))


def make_ready(library: Library) -> None:
    for lease in claim(library.database):
        finish(library.database, lease)


def stored_files(library: Library) -> set[str]:
    return {path.name for path in library.blobs.iter_files()}


def test_add_keeps_the_bytes_the_size_and_what_was_said(library: Library) -> None:
    added = add(library, RED, id="one", caption="a red thing", tags=("a",), metadata={"n": 1}, source="x.png")
    image = library.get("default", "one")
    assert added.image == image
    assert (image.width, image.height, image.format, image.bytes) == (64, 48, "png", len(RED))
    assert (image.caption, image.tags, image.metadata, image.source) == ("a red thing", ("a",), {"n": 1}, "x.png")
    with library.open_file("default", "one")[1] as file:
        assert file.read() == RED
    assert list(library.blobs.incoming.iterdir()) == []


def test_the_same_bytes_get_the_same_id(library: Library) -> None:
    first = add(library, RED)
    second = add(library, RED, id="another")
    assert (second.duplicate, second.image.id) == (True, first.image.id)
    assert len(library.list_images("default", 10, None)) == 1


def test_the_same_bytes_at_the_same_time_get_the_same_id(library: Library) -> None:
    ids: set[str] = set()
    threads = [threading.Thread(target=lambda: ids.add(add(library, RED).image.id)) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 1
    assert len(library.list_images("default", 10, None)) == 1
    assert library.blobs.has_digest(image_of(library.database, ids.pop()).sha256)


def test_an_id_with_other_bytes_is_a_conflict_that_leaves_everything_as_it_was(library: Library) -> None:
    add(library, RED, id="one")
    with pytest.raises(IdConflict):
        add(library, BLUE, id="one")
    with library.open_file("default", "one")[1] as file:
        assert file.read() == RED
    assert len(stored_files(library)) == 1


def test_replace_drops_the_old_vector_and_the_old_file(library: Library) -> None:
    old = add(library, RED, id="one").image
    make_ready(library)
    library.blobs.thumbnail_path(old.sha256, old.format).parent.mkdir(parents=True)
    library.blobs.thumbnail_path(old.sha256, old.format).touch()
    added = add(library, BLUE, id="one", replace=True)
    assert added.image.status is Status.QUEUED
    assert [entry[1:3] for entry in vectors(library)] == [("remove", old.key)]
    assert stored_files(library) == {added.image.sha256}
    assert not library.blobs.thumbnail_path(old.sha256, old.format).exists()
    with library.open_file("default", "one")[1] as file:
        assert file.read() == BLUE


def test_what_is_no_picture_is_refused_and_not_kept(library: Library) -> None:
    with pytest.raises(UnsupportedMediaType):
        add(library, b"just some words, called .jpg")
    assert library.list_images("default", 10, None) == []
    assert stored_files(library) == set()


def test_an_unknown_collection_is_refused_before_anything_is_kept(library: Library, tmp_path: Path) -> None:
    path = library.create_upload_dir() / "x"
    path.write_bytes(RED)
    with pytest.raises(NotFound, match="no collection 'other'"):
        library.add("other", path, ImageAttributes())
    assert stored_files(library) == set()
    with pytest.raises(NotFound):
        JobService(library).add_files("other", [])


def test_a_failed_picture_is_queued_again_when_it_is_uploaded_again(library: Library) -> None:
    add(library, RED, id="one")
    library.database.write(lambda c: c.execute("UPDATE images SET status = 'failed', error_code = 'x'") and None)
    again = add(library, RED)
    assert (again.duplicate, again.image.id, again.image.status, again.image.error) == (False, "one", "queued", None)


def test_a_duplicate_heals_a_file_that_was_lost(library: Library) -> None:
    image = add(library, RED, id="one").image
    library.blobs.path(image.sha256).unlink()
    with pytest.raises(BlobMissing, match="sightline verify"):
        library.open_file("default", "one")
    assert add(library, RED).duplicate
    with library.open_file("default", "one")[1] as file:
        assert file.read() == RED


class ChangingBlobs(BlobStore):
    """Files that change between the look at a row and the opening of its file, as another client may do it."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.changes: list[Callable[[], object]] = []

    def open(self, sha256: str) -> BinaryIO:
        self._change()
        try:
            return super().open(sha256)
        except BlobMissing:
            self._change()
            raise

    def _change(self) -> None:
        if self.changes:
            with ThreadPoolExecutor(1) as other_client:
                other_client.submit(self.changes.pop(0)).result()


@pytest.fixture
def changing(database: Database, tmp_path: Path) -> Library:
    return Library(database, ChangingBlobs(tmp_path), PictureLimits(), max_queue=1_000)


def test_a_picture_that_is_replaced_while_it_is_opened_has_its_new_bytes(changing: Library) -> None:
    assert isinstance(changing.blobs, ChangingBlobs)
    add(changing, RED, id="one")
    changing.blobs.changes = [lambda: add(changing, BLUE, replace=True, id="one")]
    image, file = changing.open_file("default", "one")
    with file:
        assert file.read() == BLUE
    assert image.sha256 == hashlib.sha256(BLUE).hexdigest()


def test_a_picture_that_is_replaced_and_comes_back_while_it_is_opened_is_not_missing(changing: Library) -> None:
    assert isinstance(changing.blobs, ChangingBlobs)
    add(changing, RED, id="one")
    changing.blobs.changes = [partial(add, changing, content, replace=True, id="one") for content in (BLUE, RED)]
    with changing.open_file("default", "one")[1] as file:
        assert file.read() == RED


def test_a_picture_that_is_deleted_while_it_is_opened_is_not_found(changing: Library) -> None:
    assert isinstance(changing.blobs, ChangingBlobs)
    add(changing, RED, id="one")
    changing.blobs.changes = [lambda: changing.delete("default", "one")]
    with pytest.raises(NotFound) as raised:
        changing.open_file("default", "one")
    assert raised.value.status == 404


def test_an_open_file_keeps_its_bytes_when_its_picture_is_deleted(library: Library) -> None:
    add(library, RED, id="one")
    with library.open_file("default", "one")[1] as file:
        library.delete("default", "one")
        assert not stored_files(library)
        assert file.read() == RED


def test_deleting_leaves_no_row_no_file_and_a_note_in_the_log(library: Library) -> None:
    image = add(library, RED, id="one").image
    make_ready(library)
    library.delete("default", "one")
    with pytest.raises(NotFound):
        library.get("default", "one")
    assert stored_files(library) == set()
    assert [entry[1:3] for entry in vectors(library)] == [("remove", image.key)]
    with pytest.raises(NotFound):
        library.delete("default", "one")


def test_deleting_a_waiting_picture_ends_its_item(library: Library) -> None:
    image = add(library, RED).image

    def with_item(c: object) -> str:
        id = jobs.create(c, "default", "bulk")  # type: ignore[arg-type]
        jobs.add_item(c, id, "x", ItemStatus.QUEUED, image=(image.key, image.id))  # type: ignore[arg-type]
        return id

    id = library.database.write(with_item)
    library.delete("default", image.id)
    assert (job_of(library.database, id).state, job_of(library.database, id).failed) == (JobState.SUCCEEDED, 1)
    ((_, item),) = JobService(library).list_items(id, None, 0, 10)
    assert item.error == ItemError("not_found", "deleted before it was processed")


def test_a_delete_never_takes_the_file_of_an_upload_of_the_same_bytes(library: Library) -> None:
    """Whichever comes last: a row has its file, and a file has its row."""
    for _ in range(40):
        id = add(library, RED).image.id
        barrier = threading.Barrier(3)

        def upload(wait: threading.Barrier = barrier) -> None:
            wait.wait()
            add(library, RED)

        def delete(wait: threading.Barrier = barrier, id: str = id) -> None:
            wait.wait()
            library.delete("default", id)

        threads = [threading.Thread(target=work) for work in (upload, delete, upload)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows = {image.sha256 for image in library.list_images("default", 10, None)}
        assert stored_files(library) == rows


@pytest.mark.sqlite  # which both of them open
def test_two_services_on_one_directory_keep_file_and_row_together(library: Library, tmp_path: Path) -> None:
    database = open_database(tmp_path / "sightline.db")
    other = Library(database, BlobStore(tmp_path), PictureLimits(), 1_000)

    def churn(mine: Library) -> None:
        for _ in range(25):
            image = add(mine, RED).image
            try:
                mine.delete("default", image.id)
            except NotFound:  # the other was faster
                continue

    threads = [threading.Thread(target=churn, args=(one,)) for one in (library, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored_files(library) == {image.sha256 for image in library.list_images("default", 10, None)}
    database.close()


def test_uploads_are_refused_while_too_many_pictures_wait(library: Library) -> None:
    library.max_queue = 2
    add(library, RED)
    add(library, BLUE)
    with pytest.raises(QueueFull, match="2 pictures are waiting already"):
        add(library, picture("green"))
    with pytest.raises(QueueFull):
        add_bulk(library, [("a.png", picture("green"))])
    assert len(library.list_images("default", 10, None)) == 2
    make_ready(library)
    add(library, picture("green"))


def test_uploads_are_refused_while_too_many_bytes_wait_and_uploads_that_are_not_taken_in_count(
    library: Library,
) -> None:
    library.max_queue_bytes = len(RED) + len(BLUE)
    job = add_bulk(library, [("a.png", RED)])
    add(library, BLUE)
    with pytest.raises(QueueFull, match="MiB of pictures are waiting already"):
        add(library, picture("green"))
    with pytest.raises(QueueFull):
        add_bulk(library, [("a.png", picture("green"))])
    with pytest.raises(QueueFull):
        JobService(library).retry(job.id)
    JobService(library).cancel(job.id)
    add(library, picture("green"))


def test_update_changes_the_words_and_returns_the_new_row(library: Library) -> None:
    before = add(library, RED, id="one", caption="old", tags=("a",)).image
    after = library.update("default", "one", lambda image: ImageAttributes(caption="new", tags=image.tags))
    assert after == changed(before, caption="new")
    with pytest.raises(NotFound):
        library.update("default", "two", lambda _: ImageAttributes())


def put(library: Library, *items: tuple[str | None, str]) -> list[str]:
    library.database.write(lambda c: embeddings.save_space(c, SPACE))
    stored, _ = library.put_texts("default", FINGERPRINT, [(id, text, {}) for id, text in items], [VECTOR] * len(items))
    return [text.id for text in stored]


def test_texts_are_stored_with_their_vectors_and_the_same_words_get_the_same_id(library: Library) -> None:
    first = put(library, (None, "a red car"), ("mine", "a blue car"))
    assert first == [default_text_id("a red car"), "mine"]
    assert put(library, (None, "a red car")) == first[:1]
    assert library.get_text("default", "mine").text == "a blue car"
    held = library.get_collection("default")
    assert (held.texts, held.space) == (2, SPACE)


def test_put_texts_tells_the_last_log_number(library: Library) -> None:
    library.database.write(lambda c: embeddings.save_space(c, SPACE))
    items: list[tuple[str | None, str, dict[str, object]]] = [("a", "a", {}), ("b", "b", {})]
    _, seq = library.put_texts("default", FINGERPRINT, items, [VECTOR, VECTOR])
    assert seq == library.database.read(lambda c: embeddings.get_last_seq(c, "default", FINGERPRINT, "texts"))


def test_texts_with_a_vector_too_few_are_not_stored_at_all(library: Library) -> None:
    library.database.write(lambda c: embeddings.save_space(c, SPACE))
    with pytest.raises(ValueError, match="shorter"):
        library.put_texts("default", FINGERPRINT, [("a", "a", {}), ("b", "b", {})], [VECTOR])
    with pytest.raises(NotFound):
        library.get_text("default", "a")


def test_a_deleted_text_is_gone_from_rows_and_log(library: Library) -> None:
    put(library, ("one", "a red car"))
    library.delete_text("default", "one")
    with pytest.raises(NotFound):
        library.get_text("default", "one")
    with pytest.raises(NotFound):
        library.delete_text("default", "one")
    (entry,) = library.database.read(lambda c: embeddings.list_after(c, "default", FINGERPRINT, "texts", 0, 10))
    assert entry[1] == "remove"


def test_collections_say_what_they_hold(library: Library) -> None:
    add(library, RED)
    (held,) = library.list_collections()
    assert (held.name, held.images, held.texts, held.space) == ("default", 1, 0, None)
    with pytest.raises(NotFound):
        library.get_collection("other")


def test_a_full_disk_refuses_uploads_keeps_what_was_there_and_recovers_by_itself(small_disk: SmallDisk) -> None:
    database = open_database(small_disk.folder / "sightline.db")
    library = Library(database, BlobStore(small_disk.folder), PictureLimits(), 1_000)
    add(library, RED, id="kept")
    folder = library.create_upload_dir()
    (folder / "waiting").write_bytes(BLUE)
    small_disk.fill()
    with pytest.raises(StorageFull):
        library.add("default", folder / "waiting", ImageAttributes(id="refused"))
    assert [image.id for image in library.list_images("default", 10, None)] == ["kept"]
    small_disk.free()
    library.add("default", folder / "waiting", ImageAttributes(id="taken"))
    with library.open_file("default", "kept")[1] as file:
        assert file.read() == RED
    with library.open_file("default", "taken")[1] as file:
        assert file.read() == BLUE
    database.close()


def test_every_refusal_is_an_error_of_ours(library: Library) -> None:
    with pytest.raises(SightlineError):
        library.get("default", "\x00")
    assert count_waiting(library.database) == 0


def test_pictures_are_deleted_by_a_filter_as_it_stands_at_their_turn(library: Library) -> None:
    """More than one transaction's worth; what is changed or added meanwhile is judged by what it is then."""
    count = DELETE_BATCH + 20
    pictures = [add(library, picture("red", seed=n), tags=("x",), id=f"p{n}").image for n in range(count)]
    kept = add(library, picture("blue", seed=1), id="kept").image
    tagged = parse_filter({"key": "tags", "match": {"value": "x"}}, "images")
    keys, examples = library.find_matching(COLLECTION, tagged)
    assert keys == [image.key for image in pictures]
    assert [image.id for image in examples] == [f"p{n}" for n in range(count - 1, count - 6, -1)]
    library.update(COLLECTION, "p110", lambda image: ImageAttributes())
    add(library, picture("green", seed=1), tags=("x",), id="late")
    assert library.delete_matching(COLLECTION, tagged, keys) == count - 1
    assert {image.id for image in library.list_images(COLLECTION, 1000, None)} == {"p110", "kept", "late"}
    assert stored_files(library) == {pictures[110].sha256, kept.sha256, library.get(COLLECTION, "late").sha256}
    everything = parse_filter({}, "images")
    keys, _ = library.find_matching(COLLECTION, everything)
    assert library.delete_matching(COLLECTION, everything, keys) == 3
    assert stored_files(library) == set()
    with pytest.raises(NotFound):
        library.find_matching("other", everything)


def test_pages_of_a_filter_end_where_a_page_without_one_would(library: Library) -> None:
    for n in range(10):
        add(library, picture("red", seed=n), tags=("even",) if n % 2 == 0 else (), id=f"p{n}")
    even = parse_filter({"key": "tags", "match": {"value": "even"}}, "images")
    first = library.list_images(COLLECTION, 3, None, even)
    assert [image.id for image in first] == ["p8", "p6", "p4"]
    assert [image.id for image in library.list_images(COLLECTION, 3, first[-1].key, even)] == ["p2", "p0"]


def test_bytes_are_known_where_their_file_is_here_too(library: Library) -> None:
    first, second = add(library, RED).image.sha256, add(library, BLUE, tags=("blue",)).image.sha256
    known = library.find_known("default", [second, "0" * 64, first])
    lacks = [(second, ["caption", "metadata"]), (first, ["caption", "tags", "metadata"])]
    assert list(known.items()) == lacks
    library.blobs.path(first).unlink()
    assert library.find_known("default", [first, second]) == {second: ["caption", "metadata"]}
    with pytest.raises(NotFound):
        library.find_known("nothing", [first])
