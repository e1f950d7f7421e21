"""What a row keeps of its picture's camera data: what a client sent stays, and the words of a picture come once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.types import CameraData, Image, ItemStatus, NewImage
from app.decode.limits import PictureLimits
from app.storage.blobs import BlobStore
from app.storage.camera_data import CameraDataPolicy, read_sidecar_data
from app.storage.database import Database
from app.storage.library import Library
from app.storage.tables import images, jobs
from tests.support.makers import image_of, new

SAID = CameraData(
    taken_at="2019-07-04T12:00:00.000",
    camera="Fuji X100",
    lens="23 mm",
    latitude=47.5,
    longitude=8.5,
    caption="a lake",
    tags=("water",),
    exposure={"iso": 400},
)
TAKEOUT = CameraData(taken_at="2019-07-04T10:00:00.000", taken_offset=0, latitude=1.0, longitude=2.0)
EVERYTHING = CameraDataPolicy(keep_exposure=True, keep_location=True)


def make_library(database: Database, tmp_path: Path, policy: CameraDataPolicy) -> Library:
    return Library(database, BlobStore(tmp_path), PictureLimits(), 100, camera_policy=policy)


def add(database: Database, seed: int, **said: Any) -> tuple[Image, tuple[str, ...], tuple[str, ...]]:
    row: NewImage = replace(new(seed), **said)
    added = database.write(lambda c: images.add(c, "default", row, None, False))
    return added.image, added.filled, added.kept


def record(library: Library, image: Image, data: CameraData = SAID, *, again: bool = False) -> Image:
    library.database.write(lambda c: library.record_camera_data(c, image.key, data, again=again))
    return library.database.read(lambda c: images.get_by_keys(c, [image.key]))[image.key]


def test_a_picture_gets_its_data_without_place_and_exposure(database: Database, tmp_path: Path) -> None:
    library = make_library(database, tmp_path, CameraDataPolicy())
    found = record(library, add(database, 1)[0])
    assert (found.taken_at, found.taken_offset, found.camera, found.lens) == (SAID.taken_at, None, "Fuji X100", "23 mm")
    assert (found.caption, found.tags, found.metadata) == ("a lake", ("water",), {})
    assert (found.latitude, found.longitude) == (None, None)


def test_place_and_exposure_are_kept_where_asked_and_go_where_not(database: Database, tmp_path: Path) -> None:
    image = add(database, 1)[0]
    everything = make_library(database, tmp_path, EVERYTHING)
    found = record(everything, image)
    assert (found.latitude, found.longitude, found.metadata) == (47.5, 8.5, {"exif": {"iso": 400}})
    library = make_library(database, tmp_path, CameraDataPolicy())
    assert record(library, image).latitude is None  # when it is read again
    later = add(database, 2)[0]
    assert record(library, later).metadata == {}
    assert record(everything, later).metadata == {}
    assert record(everything, later, again=True).metadata == {"exif": {"iso": 400}}


def test_what_a_client_sent_stays(database: Database, tmp_path: Path) -> None:
    library = make_library(database, tmp_path, EVERYTHING)
    mine = {"caption": "mine", "tags": ("a",), "metadata": {"exif": "mine", "x": 1}}
    found = record(library, add(database, 1, **mine)[0])
    assert {name: getattr(found, name) for name in mine} == mine
    library.database.write(lambda c: images.update(c, found.key, None, (), {}))
    cleared = record(library, found)  # the words come once: what a person took away stays away
    assert (cleared.caption, cleared.tags, cleared.metadata) == (None, (), {})


def test_a_deleted_picture_gets_nothing(database: Database, tmp_path: Path) -> None:
    library = make_library(database, tmp_path, EVERYTHING)
    library.database.write(lambda c: library.record_camera_data(c, 999, SAID))
    assert database.read(lambda c: images.get_by_keys(c, [999])) == {}


def test_the_time_of_a_sidecar_is_told_on_the_clock_of_the_camera(database: Database, tmp_path: Path) -> None:
    library = make_library(database, tmp_path, EVERYTHING)
    image = add(database, 1, camera_data=TAKEOUT)[0]
    assert (image.taken_at, image.taken_offset, image.latitude) == (TAKEOUT.taken_at, 0, 1.0)
    for _ in range(2):
        found = record(library, image)
        assert (found.taken_at, found.taken_offset, found.latitude) == (SAID.taken_at, 120, 1.0)
    corrected = add(database, 2, camera_data=replace(TAKEOUT, taken_at="1999-01-01T00:00:00.000"))[0]
    assert record(library, corrected).taken_at == "1999-01-01T00:00:00.000"


def test_a_duplicate_brings_the_time_and_place_that_its_picture_lacks(database: Database, tmp_path: Path) -> None:
    library = make_library(database, tmp_path, EVERYTHING)
    add(database, 1)
    image, filled, _ = add(database, 1, camera_data=TAKEOUT)
    assert filled == ("taken_at", "location")
    assert (image.taken_at, image.latitude) == (TAKEOUT.taken_at, 1.0)
    other = record(library, add(database, 2)[0])
    image, filled, _ = add(database, 2, camera_data=TAKEOUT)
    assert filled == ()
    assert (image.taken_at, image.taken_offset, image.latitude) == (SAID.taken_at, None, other.latitude)
    assert (
        add(database, 2, camera_data=replace(TAKEOUT, taken_at="1999-01-01T00:00:00.000"))[0].taken_at == SAID.taken_at
    )


def test_other_bytes_are_read_anew(database: Database, tmp_path: Path) -> None:
    library = make_library(database, tmp_path, EVERYTHING)
    record(library, add(database, 1, id="one")[0])
    row = replace(new(2), id="one", camera_data=TAKEOUT)
    replaced = database.write(lambda c: images.add(c, "default", row, None, True)).image
    assert (replaced.taken_at, replaced.camera, replaced.caption) == (TAKEOUT.taken_at, None, None)
    assert record(library, replaced).caption == "a lake"


def test_items_are_told_what_does_not_fit(database: Database, tmp_path: Path) -> None:
    library = make_library(database, tmp_path, EVERYTHING)
    job = database.write(lambda c: jobs.create(c, "default", "bulk"))
    image = add(database, 1, metadata={"x": "y" * 16_370})[0]
    place = (image.key, image.id)
    database.write(lambda c: jobs.add_item(c, job, "a.jpg", ItemStatus.QUEUED, image=place))
    found = record(library, image, replace(SAID, caption="x" * 3_000, tags=tuple(f"t{n}" for n in range(500))))
    assert found.caption is not None
    assert (len(found.caption), len(found.tags), set(found.metadata)) == (2_000, 100, {"x"})
    ((_, item),) = database.read(lambda c: jobs.list_items(c, job, None, 0, 10, warned=True))
    assert [(one.code, one.field) for one in item.warnings] == [
        ("cut", "caption"),
        ("cut", "tags"),
        ("left_out", "metadata"),
    ]
    told = database.read(lambda c: jobs.get(c, job))
    assert told is not None
    assert told.warned == 1


@pytest.mark.parametrize("line", [None, "x", {"odd": 1}, {"taken_at": "never"}])
def test_a_line_without_camera_data_has_none(line: Any) -> None:
    assert read_sidecar_data(line) is None


def test_a_row_is_as_a_client_finds_it(database: Database, tmp_path: Path) -> None:
    library = make_library(database, tmp_path, EVERYTHING)
    image = add(database, 1, id="one")[0]
    record(library, image)
    assert image_of(database, "one").camera == "Fuji X100"
