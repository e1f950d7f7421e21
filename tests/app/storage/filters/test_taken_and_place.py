"""Filters by when and where pictures were taken."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from app.core.errors import Validation
from app.storage.database import Database
from app.storage.filters.parser import parse_filter, parse_taken_bound
from app.storage.filters.sql import select_keys
from app.storage.tables import images
from tests.support.makers import insert

EARTH = 6_371_008.8


def select(database: Database, filter: Any) -> list[str]:
    keys = database.read(lambda c: select_keys(c, "default", parse_filter(filter, "images")))
    rows = database.read(lambda c: images.get_by_keys(c, keys))
    return [rows[key].id for key in keys]


def carry(database: Database, n: int, id: str, **values: Any) -> None:
    key = insert(database, n, id).key
    database.write(lambda c: images.set_carried(c, key, values))


@pytest.mark.parametrize(
    ("written", "bound"),
    [
        ("2019-07-04", "2019-07-04T00:00:00.000"),
        ("2019:07:04 12:00:00", "2019-07-04T12:00:00.000"),
        ("2019-07-04T12:00:00.0005", "2019-07-04T12:00:00.001"),
        ("2019-07-04T12:00:00Z", "2019-07-04T12:00:00.000+00:00"),
        ("2019-07-04T12:00:00+0530", "2019-07-04T12:00:00.000+05:30"),
    ],
)
def test_a_bound_keeps_its_zone(written: str, bound: str) -> None:
    assert parse_taken_bound("gte", written) == bound


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00", "2019-02-30", "July"])
def test_a_bound_that_is_no_time_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_taken_bound("gte", written)


def test_a_bound_without_zone_is_of_the_clock_and_one_with_a_zone_of_the_moment(database: Database) -> None:
    carry(database, 1, "zurich", taken_at="2019-07-04T12:00:00.000", taken_offset=120)
    carry(database, 2, "unknown", taken_at="2019-07-04T12:00:00.000")
    carry(database, 3, "tokyo", taken_at="2019-07-04T12:00:00.250", taken_offset=540)
    carry(database, 4, "undated")
    for bounds, found in (
        ({"gte": "2019-07-04T12:00:00", "lt": "2019-07-05"}, ["zurich", "unknown", "tokyo"]),
        ({"gt": "2019-07-04T12:00:00"}, ["tokyo"]),
        ({"gte": "2019-07-04T10:00:00Z"}, ["zurich", "unknown"]),
        ({"gt": "2019-07-04T12:00:00+02:00"}, []),
        ({"gte": "2019-07-04T12:00:00+02:00", "lte": "2019-07-04T10:00:00Z"}, ["zurich"]),
        ({"gte": "2019-07-04T12:00:00+09:00", "lt": "2019-07-04T12:00:00.25+09:00"}, ["unknown"]),
        ({"lte": "2019-07-04T03:00:00.250Z"}, ["tokyo"]),
        ({"gte": "2019-07-04", "lt": "2019-07-04T08:00:00Z"}, ["tokyo"]),
    ):
        assert select(database, {"key": "taken_at", "range": bounds}) == found, bounds
        rest = {"must_not": [{"key": "taken_at", "range": bounds}]}
        assert set(select(database, rest)) == {"zurich", "unknown", "tokyo", "undated"} - set(found)


@pytest.mark.parametrize(
    ("taken", "is_inside"),
    [
        (1562241600, True),  # 2019-07-04T12:00:00Z
        (1562241600.5, True),
        (1562241600000, True),
        ("1562241600", True),
        ("1562241600000", True),
        (1559390400, False),
        ("1559390400000", False),
        (2019, False),
        ("2019", False),
        (True, False),
        (-1562241600, False),
        ("15622416", False),
        ("9562241600", False),
    ],
)
def test_seconds_and_milliseconds_since_1970_in_metadata_are_times(
    taken: Any, is_inside: bool, database: Database
) -> None:
    insert(database, 1, "a", metadata={"taken": taken})
    july = {"key": "metadata.taken", "range": {"gte": "2019-07-04T12:00:00Z", "lt": "2019-08-01"}}
    assert select(database, july) == ["a"] * is_inside


PLACES = {
    "zurich": (47.37, 8.54),
    "fiji": (-17.8, 178.0),
    "tonga": (-21.1, -175.2),
    "line": (0.0, 180.0),
    "pole": (90.0, 12.0),
    "south": (-90.0, 0.0),
    "svalbard": (78.2, 15.6),
}


@pytest.fixture
def world(database: Database) -> Database:
    for n, (id, (latitude, longitude)) in enumerate(PLACES.items()):
        carry(database, n, id, latitude=latitude, longitude=longitude)
    carry(database, 99, "nowhere")
    return database


def box(north: float, west: float, south: float, east: float) -> dict[str, Any]:
    corners = {"top_left": {"lat": north, "lon": west}, "bottom_right": {"lat": south, "lon": east}}
    return {"key": "location", "geo_bounding_box": corners}


def circle(latitude: float, longitude: float, radius: float) -> dict[str, Any]:
    return {"key": "location", "geo_radius": {"center": {"lat": latitude, "lon": longitude}, "radius": radius}}


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (box(48, 8, 47, 9), ["zurich"]),
        (box(0, 170, -30, -170), ["fiji", "tonga", "line"]),  # over the 180th meridian
        (box(0, -180, -30, -170), ["tonga", "line"]),
        (box(0, 170, -30, 180), ["fiji", "line"]),
        (box(90, 10, 70, 20), ["pole", "svalbard"]),
        (box(90, -20, 85, -10), ["pole"]),  # a pole has every longitude
        (box(-89, 100, -90, 101), ["south"]),
        (box(90, -180, -90, 180), [*PLACES]),
        (box(47.37, 8.54, 47.37, 8.54), ["zurich"]),
        (circle(47.37, 8.54, 0), ["zurich"]),
        (circle(47.0, 8.54, 42_000), ["zurich"]),
        (circle(47.0, 8.54, 41_000), []),
        (circle(-18.0, -179.0, 700_000), ["fiji", "tonga"]),
        (circle(89.5, -168.0, 60_000), ["pole"]),
        (circle(-90, 77, 1), ["south"]),
        (circle(0, 0, 20_100_000), [*PLACES]),
        ({"key": "location", "exists": True}, [*PLACES]),
        ({"is_null": {"key": "location"}}, ["nowhere"]),
        ({"must_not": [circle(0, 0, 20_100_000)]}, ["nowhere"]),
    ],
)
def test_places_are_found_in_boxes_and_circles(world: Database, filter: Any, found: list[str]) -> None:
    assert select(world, filter) == found


def test_circles_hold_what_is_near_on_a_sphere(database: Database) -> None:
    dice = random.Random(7)
    places = [(dice.uniform(-90, 90), dice.uniform(-180, 180)) for _ in range(60)]
    for n, (latitude, longitude) in enumerate(places):
        carry(database, n, f"p{n}", latitude=latitude, longitude=longitude)

    def to_vector(latitude: float, longitude: float) -> tuple[float, float, float]:
        a, b = math.radians(latitude), math.radians(longitude)
        return math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)

    for _ in range(40):
        centre, radius = (dice.uniform(-90, 90), dice.uniform(-180, 180)), dice.uniform(0, 2e7)
        near = [
            f"p{n}"
            for n, place in enumerate(places)
            if EARTH * 2 * math.asin(math.dist(to_vector(*centre), to_vector(*place)) / 2) <= radius
        ]
        assert select(database, circle(*centre, radius)) == near


@pytest.mark.parametrize(
    ("filter", "why"),
    [
        (box(47, 8, 48, 9), r"filter\.geo_bounding_box \(location\): top_left lies south of bottom_right"),
        (box(91, 8, 48, 9), r"top_left\.lat \(location\): a latitude is a number from -90 to 90, got 91"),
        (box(47, 181, 46, 9), r"lon .* a longitude is a number from -180 to 180"),
        (circle(0, 0, -1), "a radius is a number from 0 to 20,100,000"),
        (circle(0, 0, 1e9), "a radius is a number"),
        (circle(float("nan"), 0, 1), "finite"),
        ({"key": "location", "geo_radius": {"center": {"lat": 1}, "radius": 5}}, "expected lat and lon, got lat"),
        (
            {"key": "location", "geo_radius": {"center": {"lat": 1, "lng": 2}, "radius": 5}},
            "no 'lng'; did you mean lon",
        ),
        ({"key": "location", "geo_radius": {"center": {"lat": "1", "lon": 2}, "radius": 5}}, "a number, got '1'"),
        ({"key": "location", "match": {"value": 1}}, "no 'match'; there are .* geo_bounding_box and geo_radius"),
        ({"key": "caption", "geo_radius": {}}, "no 'geo_radius'"),
        ({"geo_radius": {}}, "there is no .geo_radius."),
        ({"key": "taken_at", "range": {"gte": 1562241600}}, "a time is written"),
        ({"key": "taken_at", "match": {"value": "2019-07-04"}}, "no 'match'"),
    ],
)
def test_what_is_wrong_is_named(filter: Any, why: str) -> None:
    with pytest.raises(Validation, match=why):
        parse_filter(filter, "images")
