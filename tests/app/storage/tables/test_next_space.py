from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.core.settings import Settings
from app.core.types import EmbeddingSpace, Status, Target
from app.storage.database import Database
from app.storage.library import Library
from app.storage.model_check import find_model_name, find_precision, tell_change
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings, images, jobs, next_space, precomputed_vectors
from app.storage.tables.next_space import Superseded
from tests.support.makers import FINGERPRINT, SPACE, VECTOR, add, claim, finish, image_of, insert
from tests.support.pictures import picture

OTHER = EmbeddingSpace("other", "2" * 64, 2, "3" * 64)
NEW = np.array([0, 1], "<f4").tobytes()
GOLDEN = b"golden"


@pytest.fixture
def filled_library(library: Library) -> Library:
    """Two ready pictures and a text, in the space of the model `small`, which serves."""
    for name, colour in {"one": "red", "two": "blue"}.items():
        add(library, picture(colour), id=name)
    for lease in claim(library.database):
        finish(library.database, lease)
    library.put_texts("default", FINGERPRINT, [("t", "something blue", {})], [VECTOR])
    library.database.write(lambda c: embeddings.save_golden(c, FINGERPRINT, GOLDEN))
    return library


def begin(database: Database, kind: str = "reembed") -> str:
    """A job that has begun to fill the space of `other`."""

    def work(c: Connection) -> str:
        id = jobs.create(c, "default", kind)
        next_space.begin(c, id, OTHER, "fp32")
        return id

    return database.write(work)


def fill(database: Database, job: str, failed: Sequence[int] = ()) -> list[int]:
    """Give everything that lacks one a vector, except the keys in `failed`; returns the keys."""

    def work(c: Connection) -> list[int]:
        last, tried = embeddings.get_last_seq_of_all(c), []
        for part in next_space.list_parts(c):
            entries = next_space.list_lacking(c, part, OTHER.fingerprint, 0, 100)
            made = [(entry, NEW) for entry in entries if entry.key not in failed]
            next_space.add_vectors(c, job, part, made, len(entries) - len(made))
            tried += [entry.key for entry in entries]
        next_space.finish_round(c, job, last)
        return tried

    return database.write(work)


def change(database: Database, job: str, names: Sequence[str] = ("small",), most: int = 8) -> int | None:
    def work(c: Connection) -> int | None:
        return next_space.change_places(c, job, GOLDEN, names, lambda keys: [NEW for _ in keys], most)

    return database.write(work)


def vectors(database: Database, target: Target, space: str | None = None) -> set[bytes]:
    return set(database.read(lambda c: embeddings.get_vectors(c, target, range(100), space)).values())


def count(database: Database, space: EmbeddingSpace) -> int:
    return database.read(
        lambda c: sum(
            embeddings.count_vectors(c, "default", space.fingerprint, target) for target in next_space.TARGETS
        )
    )


def row(database: Database) -> Any:
    return database.read(next_space.get)


def test_the_spaces_change_places_when_everything_has_two_vectors(filled_library: Library) -> None:
    database = filled_library.database
    job = begin(database)
    assert (row(database).total, row(database).done, row(database).seq) == (3, 0, -1)
    assert change(database, job) is None  # not everything was tried
    assert len(fill(database, job)) == 3
    assert vectors(database, "images") == {VECTOR}  # the old space serves
    assert count(database, SPACE) == count(database, OTHER) == 3
    assert (row(database).done, row(database).failed) == (3, 0)
    assert change(database, job) == 0
    assert vectors(database, "images") == vectors(database, "texts") == {NEW}
    assert vectors(database, "images", FINGERPRINT) == {VECTOR}  # for searches that are under way
    assert row(database) is None
    assert filled_library.get_collection("default").space == OTHER
    assert database.read(lambda c: embeddings.get_other_served(c, OTHER.fingerprint)) is None
    assert database.read(lambda c: embeddings.get_other_served(c, FINGERPRINT)) == OTHER
    assert database.read(lambda c: next_space.get_precision(c, "other")) == "fp32"
    while filled_library.delete_unused_vectors(2):
        pass
    assert (count(database, SPACE), count(database, OTHER)) == (0, 3)


def test_what_is_replaced_or_deleted_meanwhile_is_so_in_both_spaces(filled_library: Library) -> None:
    database = filled_library.database
    job = begin(database)
    (part,) = [part for part in database.read(next_space.list_parts) if part.target == "images"]
    entries = database.read(lambda c: next_space.list_lacking(c, part, OTHER.fingerprint, 0, 100))
    filled_library.delete("default", "one")  # while its vector is being made
    database.write(lambda c: next_space.add_vectors(c, job, part, [(entry, NEW) for entry in entries], 0))
    assert len(vectors(database, "images", OTHER.fingerprint)) == 1
    fill(database, job)
    add(filled_library, picture("green"), id="two", replace=True)
    filled_library.put_texts("default", FINGERPRINT, [("t", "something red", {})], [VECTOR])
    assert count(database, OTHER) == 0
    (lease,) = claim(database)
    finish(database, lease)
    assert fill(database, job) == [image_of(database, "two").key, filled_library.get_text("default", "t").key]
    filled_library.delete_text("default", "t")
    assert change(database, job) == 0
    assert (len(vectors(database, "images")), vectors(database, "texts")) == (1, set())


def test_late_texts_are_encoded_by_the_change_and_late_pictures_wait_for_it(filled_library: Library) -> None:
    database = filled_library.database
    job = begin(database)
    fill(database, job)
    filled_library.put_texts(
        "default", FINGERPRINT, [("late", "a text", {}), ("later", "a text", {})], [VECTOR, VECTOR]
    )
    assert change(database, job, most=1) is None
    insert(database, 7)
    finish(database, claim(database)[0])
    assert change(database, job) is None
    fill(database, job)
    filled_library.put_texts("default", FINGERPRINT, [("last", "a text", {})], [VECTOR])
    assert change(database, job) == 0
    assert count(database, OTHER) == 7
    assert vectors(database, "texts") == {NEW}


def test_a_picture_of_which_no_vector_can_be_made_waits_for_a_worker(filled_library: Library) -> None:
    database = filled_library.database
    key = image_of(database, "two").key
    job = begin(database)
    fill(database, job, failed=[key])
    assert row(database).failed == 1
    assert change(database, job) == 1
    assert image_of(database, "two").status is Status.QUEUED
    assert image_of(database, "one").status is Status.READY


def test_while_workers_are_held_the_row_says_so(filled_library: Library) -> None:
    database = filled_library.database
    job = begin(database)
    assert not database.read(next_space.are_workers_held)
    database.write(lambda c: next_space.hold_workers(c, job, held=True))
    assert database.read(next_space.are_workers_held)
    database.write(lambda c: next_space.hold_workers(c, job, held=False))
    assert not database.read(next_space.are_workers_held)


def test_a_cancelled_job_adds_nothing_more_and_leaves_nothing(filled_library: Library) -> None:
    database = filled_library.database
    job = begin(database)
    fill(database, job)
    filled_library.drop_ended_space()
    assert row(database) is not None
    database.write(lambda c: c.execute("UPDATE jobs SET state = 'cancelled' WHERE id = ?", (job,)) and None)
    filled_library.drop_ended_space()
    assert row(database) is None
    for work in (lambda: fill(database, job), lambda: change(database, job)):
        with pytest.raises(Superseded):
            work()
    with pytest.raises(Superseded):
        database.write(lambda c: next_space.begin(c, job, OTHER, None))
    while filled_library.delete_unused_vectors(100):
        pass
    assert (count(database, SPACE), count(database, OTHER)) == (3, 0)
    assert filled_library.get_collection("default").space == SPACE


def test_a_restart_goes_on_and_another_job_begins_anew(filled_library: Library) -> None:
    database = filled_library.database
    job = begin(database)
    fill(database, job)
    insert(database, 7)
    finish(database, claim(database)[0])
    database.write(lambda c: next_space.begin(c, job, OTHER, None))
    assert (row(database).total, row(database).done, row(database).seq) == (4, 3, -1)
    assert len(fill(database, job)) == 1
    other = begin(database)
    assert row(database).job_id == other


def test_a_name_of_the_old_model_means_the_new_one(filled_library: Library) -> None:
    database = filled_library.database
    job = begin(database)
    fill(database, job)
    assert tell_change(database, "small") is None
    assert change(database, job, ["small", "photos"]) == 0
    assert find_model_name(database, "small") == find_model_name(database, "PHOTOS") == "other"
    assert find_model_name(database, "other") == "other"
    assert find_model_name(database, "third") == "third"
    assert find_precision(database, Settings(), "other") == "fp32"  # that of the job
    assert find_precision(database, Settings(precision="bf16"), "other") == "bf16"
    assert find_precision(database, Settings(), "small") == "auto"
    assert "has belonged to other since" in (tell_change(database, "small") or "")
    database.write(embeddings.delete_all)
    assert find_model_name(database, "small") == "small"


def test_vectors_that_came_with_waiting_pictures_go_with_their_space(filled_library: Library) -> None:
    database = filled_library.database
    waiting = insert(database, 9)
    database.write(lambda c: precomputed_vectors.store(c, waiting.key, FINGERPRINT, VECTOR))
    assert database.read(next_space.count_given) == 1
    assert database.read(next_space.count_work) == {"images": 2, "texts": 1}
    job = begin(database)
    fill(database, job)
    assert change(database, job) == 0
    assert database.read(next_space.count_given) == 0


def test_an_empty_directory_changes_at_once(library: Library) -> None:
    database = library.database
    database.write(lambda c: embeddings.mark_served(c, SPACE))
    database.write(lambda c: embeddings.save_golden(c, FINGERPRINT, GOLDEN))
    job = begin(database)
    assert fill(database, job) == []
    assert change(database, job) == 0
    assert database.read(lambda c: embeddings.get_other_served(c, FINGERPRINT)) == OTHER
    assert library.get_collection("default").space is None
    assert not library.delete_unused_vectors(10)
    assert database.read(collections.list_all)[0].space is None
    assert database.read(lambda c: images.count_by_status(c, "default"))["ready"] == 0
