from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from app.storage.database import Database
from app.storage.tables import collection_deletion, collections, enrichments, images
from app.storage.tables.enrichments import Enrichment, EnrichmentClaim, EnrichmentCounts
from tests.support.makers import claim, finish, image_of, insert, new

FOUND = Enrichment({"ocr_text": "harbour"}, {"lines": [{"text": "harbour"}]})


def switch(database: Database, *kinds: str) -> None:
    database.write(lambda c: enrichments.switch(c, kinds))


def make_ready(database: Database, *numbers: int) -> None:
    """Pictures of these numbers, embedded; the id of each is its number."""
    for n in numbers:
        insert(database, n, id=str(n))
    for lease in claim(database, limit=len(numbers)):
        finish(database, lease)


def take(database: Database, kind: str = "ocr", owner: str = "a") -> EnrichmentClaim | None:
    return database.write(lambda c: enrichments.claim(c, kind, owner))


def take_id(database: Database) -> str | None:
    claimed = take(database)
    return claimed.image.id if claimed else None


def require(database: Database) -> EnrichmentClaim:
    claimed = take(database)
    assert claimed is not None
    return claimed


def state_of(database: Database, id: str, kind: str = "ocr") -> Any:
    key = image_of(database, id).key
    return database.read(lambda c: enrichments.get_states(c, key)).get(kind)


def counts(database: Database) -> EnrichmentCounts | None:
    return database.read(enrichments.count_all).get("ocr")


def test_a_picture_waits_for_each_kind_that_is_on_once_it_is_ready(database: Database) -> None:
    make_ready(database, 1)
    assert database.read(enrichments.list_on) == []
    switch(database, "ocr", "caption")
    make_ready(database, 2)
    assert take(database, "caption") is not None
    assert take_id(database) == "2"
    assert take_id(database) is None
    assert state_of(database, "1") is None


def test_the_newest_picture_is_first_and_one_that_failed_goes_behind_others(database: Database) -> None:
    switch(database, "ocr")
    make_ready(database, 1, 2, 3)
    failed = require(database)
    assert failed.image.id == "3"
    database.write(lambda c: enrichments.retry(c, failed))
    assert [take_id(database) for _ in range(3)] == ["2", "1", "3"]


def test_older_pictures_wait_a_few_at_a_time_when_a_kind_is_switched_on(database: Database) -> None:
    make_ready(database, 1, 2, 3)
    insert(database, 4, id="4")  # it waits for a worker
    switch(database, "ocr")
    assert counts(database) == EnrichmentCounts(3, 0, 0)
    assert take_id(database) is None
    assert database.write(lambda c: enrichments.add_backlog(c, "ocr", 2))
    assert take_id(database) == "3"
    assert take_id(database) is None
    assert database.write(lambda c: enrichments.add_backlog(c, "ocr", 2))
    assert [take_id(database) for _ in range(3)] == ["2", "1", None]
    assert not database.write(lambda c: enrichments.add_backlog(c, "ocr", 2))
    assert not database.write(lambda c: enrichments.add_backlog(c, "ocr", 2))


def test_a_kind_that_is_switched_on_again_takes_only_what_came_meanwhile(database: Database) -> None:
    switch(database, "ocr")
    make_ready(database, 1)
    claimed = require(database)
    assert database.write(lambda c: enrichments.finish(c, claimed, FOUND))
    switch(database)
    make_ready(database, 2)
    switch(database, "ocr")
    switch(database, "ocr")  # a restart
    while database.write(lambda c: enrichments.add_backlog(c, "ocr", 1)):
        pass
    assert [take_id(database), take_id(database)] == ["2", None]


def test_what_is_found_is_stored_with_the_row(database: Database) -> None:
    switch(database, "ocr")
    make_ready(database, 1)
    claimed = require(database)
    assert database.write(lambda c: enrichments.finish(c, claimed, FOUND))
    found = state_of(database, "1")
    assert (found.state, found.detail, found.result) == ("done", None, {"lines": [{"text": "harbour"}]})
    assert counts(database) == EnrichmentCounts(0, 1, 0)
    assert image_of(database, "1").ocr_text == "harbour"
    assert not database.write(lambda c: enrichments.finish(c, claimed, FOUND))  # the claim has ended


def test_a_replaced_picture_gets_nothing_of_the_one_before(database: Database) -> None:
    switch(database, "ocr")
    make_ready(database, 1, 2)
    done = require(database)
    assert database.write(lambda c: enrichments.finish(c, done, FOUND))
    running = require(database)
    for n, id in ((7, done.image.id), (8, running.image.id)):
        database.write(partial(images.add, collection="default", new=new(n, id), job_id=None, replace=True))
    assert not database.write(lambda c: enrichments.finish(c, running, FOUND))
    for claimed in (done, running):
        assert state_of(database, claimed.image.id) is None
        assert image_of(database, claimed.image.id).ocr_text is None
    for lease in claim(database):
        finish(database, lease)
    assert {take_id(database), take_id(database)} == {"1", "2"}


def test_a_deleted_picture_or_collection_gets_nothing(database: Database) -> None:
    database.write(lambda c: collections.create(c, "birds", ""))
    switch(database, "ocr")
    make_ready(database, 1, 2)
    claimed = require(database)
    database.write(lambda c: images.delete(c, claimed.image.key))
    assert not database.write(lambda c: enrichments.finish(c, claimed, FOUND))
    database.write(lambda c: enrichments.fail(c, claimed, "gone"))
    other = require(database)
    database.write(lambda c: images.add(c, "birds", new(3, "3"), None, False))
    for lease in claim(database):
        finish(database, lease)
    bird = require(database)
    database.write(lambda c: enrichments.retry(c, bird))
    label, _ = database.write(lambda c: collection_deletion.begin(c, "birds"))
    assert take(database) is None
    while database.write(lambda c: collection_deletion.delete_batch(c, label, 10, lambda _: None)):
        pass
    assert database.read(lambda c: enrichments.count(c, label, 0))["ocr"] == EnrichmentCounts(0, 0, 0)
    assert database.write(lambda c: enrichments.finish(c, other, FOUND))


def test_a_kill_of_the_process_counts_an_attempt_and_one_of_the_server_does_not(database: Database) -> None:
    switch(database, "ocr")
    make_ready(database, 1)
    release = partial(enrichments.release, kind="ocr", was_killed=True, max_attempts=2)
    for _ in range(5):
        assert require(database).attempts == 1
        database.write(enrichments.release_all)
    assert require(database).attempts == 1
    assert database.write(release) == 0
    assert require(database).attempts == 2
    assert database.write(release) == 1
    assert take(database) is None
    assert state_of(database, "1").detail == "the process that worked at this picture died 2 times"
    assert counts(database) == EnrichmentCounts(0, 0, 1)


def test_a_picture_that_the_machine_kept_from_being_done_keeps_its_attempts(database: Database) -> None:
    switch(database, "ocr")
    make_ready(database, 1)
    for _ in range(4):
        claimed = require(database)
        assert claimed.attempts == 1
        database.write(partial(enrichments.put_back, claimed=claimed))


@pytest.mark.parametrize("outcome", ["done", "failed", "running", "never"])
def test_a_picture_is_done_again_on_request_before_all_others(database: Database, outcome: str) -> None:
    make_ready(database, 1)
    switch(database, "ocr")
    while outcome != "never" and database.write(lambda c: enrichments.add_backlog(c, "ocr", 10)):
        pass
    claimed = take(database)
    if claimed and outcome == "done":
        database.write(lambda c: enrichments.finish(c, claimed, FOUND))
    if claimed and outcome == "failed":
        database.write(lambda c: enrichments.fail(c, claimed, "it hangs"))
        label = database.read(lambda c: collections.require(c, "default").label)
        assert database.read(lambda c: enrichments.list_failed(c, label, "ocr")) == {claimed.image.key}
    make_ready(database, 2)
    key = image_of(database, "1").key
    assert database.write(lambda c: enrichments.request(c, "ocr", [key, 999])) == 1
    if claimed:
        assert not database.write(lambda c: enrichments.finish(c, claimed, FOUND))
    again = require(database)
    assert (again.image.id, again.attempts) == ("1", 1)
    assert (image_of(database, "1").ocr_text == "harbour") == (outcome == "done")  # until the pass has ended


def test_a_process_that_was_stopped_past_its_lease_stores_nothing(database: Database) -> None:
    switch(database, "ocr")
    make_ready(database, 1)
    (before,) = database.write(lambda c: enrichments.claim_some(c, "ocr", "a", 5, -1.0))
    release = partial(enrichments.release, kind="ocr", was_killed=True, max_attempts=3, expired_only=True)
    assert database.write(release) == 0
    (again,) = database.write(lambda c: enrichments.claim_some(c, "ocr", "a", 5, 100.0))
    assert again.attempts == 2
    assert database.write(release) == 0
    assert not database.write(lambda c: enrichments.finish(c, before, FOUND))
    assert database.write(lambda c: enrichments.finish(c, again, FOUND))
