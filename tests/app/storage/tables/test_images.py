from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import IdConflict
from app.core.types import Image, ItemError, Status
from app.storage import keywords
from app.storage.database import Database
from app.storage.filters.model import Field
from app.storage.filters.parser import parse_filter
from app.storage.filters.sql import select_keys
from app.storage.filters.values import parse_order, select_ordered, select_values
from app.storage.tables import images, work_queue
from tests.support.makers import claim, finish, image_of, insert, new, sha256


def add(
    database: Database, n: int, id: str | None = None, *, replace: bool = False, job: str | None = None, **said: Any
) -> images.AddResult:
    return database.write(lambda c: images.add(c, "default", new(n, id, **said), job, replace))


def fail(database: Database) -> Image:
    (lease,) = claim(database)
    database.write(lambda c: work_queue.fail_image(c, lease, ItemError("image_corrupt", "cut off")))
    return image_of(database, lease.image.id)


def test_a_new_picture_is_queued_with_everything_that_was_said(database: Database) -> None:
    image = insert(database, 1, "one", caption="a cat", tags=("a", "ü"), metadata={"page": {"n": 1}}, source="x/y.png")
    assert (image.status, image.error, image.embedded_seq) == (Status.QUEUED, None, None)
    assert (image.caption, image.tags, image.metadata) == ("a cat", ("a", "ü"), {"page": {"n": 1}})
    assert (image.source, image.width, image.height, image.format, image.animated) == ("x/y.png", 4, 3, "png", False)
    assert image_of(database, "one") == image


def test_a_picture_without_an_id_gets_one_of_its_own(database: Database) -> None:
    ids = {insert(database, n).id for n in range(3)}
    assert len(ids) == 3
    assert all(len(id) == 32 for id in ids)


def test_the_same_bytes_are_the_same_picture_whatever_id_they_come_with(database: Database) -> None:
    first = add(database, 1, "one")
    second = add(database, 1, "two")
    assert (first.duplicate, second.duplicate) == (False, True)
    assert second.image == first.image
    assert database.read(lambda c: images.get(c, "default", "two")) is None


def test_a_duplicate_fills_what_the_picture_lacks_and_keeps_what_it_has(database: Database) -> None:
    add(database, 1, "one", tags=("a",))
    again = add(database, 1, "two", caption="a cat", tags=("b",), metadata={"n": 1})
    assert (again.filled, again.kept) == (("caption", "metadata"), ("tags", "id"))
    assert image_of(database, "one") == again.image
    assert (again.image.caption, again.image.tags, again.image.metadata) == ("a cat", ("a",), {"n": 1})
    third = add(database, 1, "one", caption="a cat", tags=("a",), metadata={"n": 2})
    assert (third.filled, third.kept, third.image) == ((), ("metadata",), again.image)


def test_bytes_that_failed_before_bring_their_attributes_too(database: Database) -> None:
    add(database, 1, "one")
    fail(database)
    again = add(database, 1, None, caption="a cat")
    assert (again.image.status, again.image.caption, again.filled) == (Status.QUEUED, "a cat", ("caption",))


def test_an_id_with_other_bytes_is_a_conflict(database: Database) -> None:
    add(database, 1, "one")
    with pytest.raises(IdConflict, match="one belongs to other bytes; send replace=true"):
        add(database, 2, "one")
    assert image_of(database, "one").sha256 == sha256(1)


def test_replacing_keeps_id_and_key_and_queues_the_new_bytes(database: Database) -> None:
    before = add(database, 1, "one").image
    (lease,) = claim(database)
    finish(database, lease)
    added = add(database, 2, "one", replace=True)
    assert added.replaced_sha256 == sha256(1)
    assert (added.image.key, added.image.sha256) == (before.key, sha256(2))
    assert (added.image.status, added.image.embedded_seq) == (Status.QUEUED, None)
    assert [lease.attempts for lease in claim(database)] == [1]


def test_replacing_by_the_same_bytes_changes_nothing(database: Database) -> None:
    first = add(database, 1, "one").image
    again = add(database, 1, "one", replace=True)
    assert (again.duplicate, again.replaced_sha256, again.image) == (True, None, first)


def test_a_failed_picture_is_queued_again_with_all_attempts_when_its_bytes_come_again(database: Database) -> None:
    add(database, 1, "one")
    assert fail(database).status is Status.FAILED
    again = add(database, 1, "one", job="j")
    assert (again.duplicate, again.image.status, again.image.error) == (False, Status.QUEUED, None)
    assert again.image.job_id == "j"
    assert [lease.attempts for lease in claim(database)] == [1]


def test_requeue_all_puts_every_picture_back_whatever_became_of_it(database: Database) -> None:
    insert(database, 1, "failed")
    fail(database)
    insert(database, 2, "ready")
    finish(database, claim(database)[0])
    insert(database, 3, "processing")
    claim(database)
    insert(database, 4, "queued")
    assert database.write(images.requeue_all) == 4
    assert {image_of(database, id).status for id in ("failed", "ready", "processing", "queued")} == {Status.QUEUED}
    assert [lease.attempts for lease in claim(database)] == [1, 1, 1, 1]


def test_pages_go_from_the_newest_back_without_gap_or_repeat(database: Database) -> None:
    for n in range(7):
        insert(database, n, f"i{n}")
    pages, before = [], None
    while page := database.read(lambda c, before=before: images.list_page(c, "default", 3, before)):  # type: ignore[misc]
        pages.append([image.id for image in page])
        before = page[-1].key
    assert pages == [["i6", "i5", "i4"], ["i3", "i2", "i1"], ["i0"]]
    assert database.read(lambda c: images.list_page(c, "other", 3, None)) == []


def test_update_changes_what_a_person_says_and_nothing_else(database: Database) -> None:
    before = insert(database, 1, "one", caption="old", tags=("a",))
    database.write(lambda c: images.update(c, before.key, None, ["b", "c"], {"n": 1}))
    after = image_of(database, "one")
    assert (after.caption, after.tags, after.metadata) == (None, ("b", "c"), {"n": 1})
    assert (after.sha256, after.status, after.created_at) == (before.sha256, before.status, before.created_at)


def test_deleted_pictures_are_absent_and_their_keys_never_come_again(database: Database) -> None:
    one, two = insert(database, 1), insert(database, 2)
    database.write(lambda c: images.delete(c, two.key))
    three = insert(database, 3)
    assert three.key > two.key
    assert set(database.read(lambda c: images.get_by_keys(c, [one.key, two.key, three.key]))) == {one.key, three.key}
    assert database.read(lambda c: images.count_uses(c, sha256(2))) == 0
    assert database.read(lambda c: images.count_uses(c, sha256(1))) == 1


def test_pictures_are_counted_by_status(database: Database) -> None:
    assert database.read(lambda c: images.count_by_status(c, "default")) == dict.fromkeys(
        ("queued", "processing", "ready", "failed"), 0
    )
    for n in range(4):
        insert(database, n)
    finish(database, claim(database, limit=1)[0])
    claim(database, limit=2)
    assert database.read(lambda c: images.count_by_status(c, "default")) == {
        "queued": 1,
        "processing": 2,
        "ready": 1,
        "failed": 0,
    }


def test_bytes_are_known_unless_their_picture_failed(database: Database) -> None:
    kept, failed = insert(database, 1), insert(database, 2)
    database.write(lambda c: images.fail(c, failed.key, ItemError("image_corrupt", "x")))
    asked = [sha256(1), sha256(2), sha256(3)]
    assert database.read(lambda c: images.filter_stored(c, "default", asked)) == {
        kept.sha256: ["caption", "tags", "metadata"]
    }
    assert database.read(lambda c: images.filter_stored(c, "other", asked)) == {}


def test_what_a_picture_carries_is_found_filtered_and_counted(database: Database) -> None:
    image, other = insert(database, 1, "one"), insert(database, 2, "two")
    carried = {"taken_at": "2019-07-04T12:00:00.000", "taken_offset": 120, "camera": "Fuji X100", "lens": "23 mm"}
    carried |= {"latitude": 47.5, "longitude": 8.5, "ocr_text": "OPEN 24h", "generated_caption": "a shop at night"}
    for key, values in ((image.key, carried), (other.key, {"taken_at": "2021-01-01T00:00:00.000"})):
        database.write(lambda c, key=key, values=values: images.set_carried(c, key, values))  # type: ignore[misc]
    database.write(lambda c: c.execute("UPDATE images SET status = 'ready'"))
    found = image_of(database, "one")
    assert {name: getattr(found, name) for name in carried} == carried
    for query in ("shop night", "open 24h", "24h"):
        terms = keywords.split_query(query)
        assert database.read(lambda c, terms=terms: set(keywords.find(c, "default", terms))) == {image.key}  # type: ignore[misc]

    def select(filter: Any) -> list[int]:
        return database.read(lambda c: select_keys(c, "default", parse_filter(filter, "images")))

    assert select({"key": "taken_at", "range": {"gte": "2019-07-04T12:00:00", "lt": "2021-01-01"}}) == [image.key]
    assert select({"key": "taken_at", "range": {"gt": "2019-07-04T12:00:00"}}) == [other.key]
    assert select({"key": "camera", "match": {"text": "fuji"}}) == [image.key]
    assert select({"is_null": {"key": "ocr_text"}}) == [other.key]
    years = database.read(lambda c: select_values(c, "images", "default", Field("year")))
    assert years == [(image.key, 2019), (other.key, 2021)]
    cameras = database.read(lambda c: select_values(c, "images", "default", Field("camera")))
    assert cameras == [(image.key, "Fuji X100")]
    places = database.read(lambda c: select_ordered(c, "default", None, parse_order("-taken_at", "images"), 5, None))
    assert [place.key for place in places] == [other.key, image.key]


def test_other_bytes_carry_nothing_of_those_before(database: Database) -> None:
    image = insert(database, 1, "one")
    database.write(lambda c: images.set_carried(c, image.key, {"camera": "Fuji X100", "ocr_text": "OPEN"}))
    replaced = add(database, 2, "one", replace=True).image
    assert (replaced.key, replaced.camera, replaced.ocr_text) == (image.key, None, None)
