from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import Timeout
from app.core.types import Image, Text
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.filters import sql
from app.storage.filters.parser import MAX_CONDITIONS, MAX_DEPTH, parse_filter
from app.storage.sql import Connection
from app.storage.tables import images, texts
from tests.support.makers import claim, finish, insert, new
from tests.support.oracle import matches_filter

TAGS = ("red", "green", 'r"ed', ",", "red,", "grün", "猫")
CAPTIONS = (None, "", "A red car", "red-car, in snow", "Grüner Wald", "白い猫 sits", "100% red_car")
STRINGS = st.sampled_from(
    ["x100", "A red car", "d750", "Oslo", "", "true", "1", "2024-05-01", "2024-05-01T10:00:00+02:00", 'a"b\\']
)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, 1.0, 2.5, 1e300]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from(["a", "b.c"]), SCALARS))
NAMES = ("camera", "iso", "a", "odd name", "ü.x")
KEYS = (
    "metadata.camera",
    "metadata.iso",
    "metadata.a",
    'metadata."odd name"',
    'metadata."ü.x"',
    "metadata.iso.a",
    'metadata.iso."b.c"',
)
TIMES = ("2024-05-01", "2024-05-01T08:00:00Z", "2024-05-01T10:00:00.0005+02:00", "2030-01-01", "1970-01-01T00:00:00Z")

descriptions = st.fixed_dictionaries(
    {
        "tags": st.lists(st.sampled_from(TAGS), max_size=3, unique=True).map(tuple),
        "caption": st.sampled_from(CAPTIONS),
        "metadata": st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
        "source": st.sampled_from([None, "a.png", "holiday/img_1.jpg"]),
    }
)


def comparisons(bound: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), bound, min_size=1, max_size=2)


def matches(value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    listed = st.lists(value, max_size=12)
    return st.one_of(
        value.map(lambda v: {"value": v}), listed.map(lambda v: {"any": v}), listed.map(lambda v: {"except": v})
    )


def conditions_on(keys: Sequence[str], **operators: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    key = st.sampled_from(keys)
    return st.one_of(*(st.fixed_dictionaries({"key": key, name: what}) for name, what in operators.items()))


words = st.sampled_from(["red", "CAR red", "grüner", "猫", "100", "nothing"]).map(lambda text: {"text": text})
flags = st.booleans()
given_values = st.one_of(st.booleans(), NUMBERS, STRINGS)
anything = conditions_on(
    KEYS, match=st.one_of(matches(given_values), words), exists=flags, is_empty=flags, is_null=flags
)
ranges = conditions_on(KEYS, range=st.one_of(comparisons(NUMBERS), comparisons(st.sampled_from(TIMES))))
of_images = st.one_of(
    conditions_on(["tags"], match=st.one_of(matches(st.sampled_from(TAGS)), words), exists=flags, is_null=flags),
    conditions_on(["caption", "source"], match=words, exists=flags, is_empty=flags, is_null=flags),
    conditions_on(["caption", "source", "id"], match=matches(st.sampled_from(["A red car", "a.png", "id-1", "id-2"]))),
    conditions_on(["width", "bytes"], match=matches(st.integers(3, 12)), range=comparisons(st.integers(3, 12))),
    conditions_on(["format"], match=matches(st.sampled_from(["png", "jpeg"]))),
    conditions_on(["created_at"], range=comparisons(st.sampled_from(TIMES))),
    st.lists(st.sampled_from(["id-0", "id-1", "other"])).map(lambda ids: {"has_id": ids}),
    st.sampled_from(["tags", "caption", *KEYS]).flatmap(
        lambda key: st.sampled_from([{name: {"key": key}} for name in ("is_empty", "is_null", "exists")])
    ),
    anything,
    ranges,
)
of_texts = st.one_of(
    conditions_on(["text"], match=words),
    conditions_on(["created_at"], range=comparisons(st.sampled_from(TIMES))),
    anything,
)


def nest_conditions(conditions: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def group(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        entries = st.one_of(inner, st.lists(inner, max_size=3))
        return st.dictionaries(st.sampled_from(["must", "should", "must_not"]), entries, max_size=3)

    return st.recursive(conditions, group, max_leaves=6)


@pytest.fixture(scope="module")
def shared_rows() -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(Path(folder) / "sightline.db")
        yield database
        database.close()


def refill(database: Database, rows: Sequence[dict[str, Any]], target: str) -> list[Image] | list[Text]:
    """Nothing but these rows."""

    def work(c: Any) -> list[Any]:
        c.execute("DELETE FROM images; DELETE FROM texts")
        if target == "images":
            return [images.add(c, "default", new(n, f"id-{n}", **row), None, False).image for n, row in enumerate(rows)]
        return [
            texts.put(c, "default", f"id-{n}", row["caption"] or "none", row["metadata"]) for n, row in enumerate(rows)
        ]

    return database.write(work)


SETTINGS = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(rows=st.lists(descriptions, min_size=1, max_size=6), asked=nest_conditions(of_images))
def test_sql_lets_through_what_the_filter_means(shared_rows: Database, rows: list[Any], asked: dict[str, Any]) -> None:
    stored = refill(shared_rows, rows, "images")
    filter = parse_filter(asked, "images")
    expected = [row.key for row in stored if matches_filter(asked, row)]
    assert shared_rows.read(lambda c: sql.select_keys(c, "default", filter)) == expected
    assert (
        sorted(shared_rows.read(lambda c: sql.select_passing(c, "default", filter, [r.key for r in stored])))
        == expected
    )


@settings(SETTINGS, max_examples=150)
@given(rows=st.lists(descriptions, min_size=1, max_size=6), asked=nest_conditions(of_texts))
def test_texts_are_filtered_the_same_way(shared_rows: Database, rows: list[Any], asked: dict[str, Any]) -> None:
    stored = refill(shared_rows, rows, "texts")
    filter = parse_filter(asked, "texts")
    expected = [row.key for row in stored if matches_filter(asked, row)]
    assert shared_rows.read(lambda c: sql.select_keys(c, "default", filter)) == expected


def test_what_takes_too_long_is_ended(database: Database) -> None:
    for n in range(3):
        insert(database, n)
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def work(c: Connection) -> None:
        with pytest.raises(Timeout, match="make it simpler"), sql.time_limit(c, 0.05):
            list(c.execute(slow))

    database.read(work)
    tall = parse_filter({"has_id": ["x"]}, "images")
    assert database.read(lambda c: sql.select_keys(c, "default", tall)) == []  # the connection goes on as before


def test_the_largest_filter_that_is_taken_can_be_asked(database: Database) -> None:
    key = insert(database, id="a", tags=("t99",)).key
    conditions: list[Any] = [
        {"key": "metadata.a.b.c", "match": {"any": [n, str(n), True]}} for n in range(MAX_CONDITIONS - 1)
    ]
    asked: dict[str, Any] = {"should": [*conditions, {"key": "tags", "match": {"value": "t99"}}]}
    for _ in range(MAX_DEPTH - 2):
        asked = {"must": [asked]}
    assert database.read(lambda c: sql.select_keys(c, "default", parse_filter(asked, "images"))) == [key]


def test_collections_are_told_apart_and_so_is_what_is_true_1_and_1_0(database: Database) -> None:
    keys = [insert(database, n, metadata={"a": value}).key for n, value in enumerate([True, 1, 1.0, "1"])]

    def select_matching(value: Any, collection: str = "default") -> list[int]:
        filter = parse_filter({"key": "metadata.a", "match": {"value": value}}, "images")
        return database.read(lambda c: sql.select_keys(c, collection, filter))

    assert select_matching(True) == keys[:1]
    assert select_matching(1) == select_matching(1.0) == keys[1:3]
    assert select_matching("1") == keys[3:]
    assert select_matching(1, "another") == []


def test_changes_are_counted_and_the_steps_of_the_queue_are_none(database: Database) -> None:
    image = insert(database, id="a", tags=("x",))
    text = database.write(lambda c: texts.put(c, "default", "t", "words", {}))
    start = database.read(lambda c: sql.change_position(c, "images"))
    assert start == (image.key, 0)
    (lease,) = claim(database)
    finish(database, lease)
    database.write(lambda c: images.update(c, image.key, None, ["x"], {}))  # what it was
    assert database.read(lambda c: sql.change_position(c, "images")) == start
    database.write(lambda c: images.update(c, image.key, "words", ["x"], {}))
    database.write(lambda c: texts.put(c, "default", "t", "other words", {}))
    database.write(lambda c: images.delete(c, image.key))
    assert database.read(lambda c: sql.changed_keys(c, "images", 0)) == [image.key]
    assert database.read(lambda c: sql.changed_keys(c, "texts", 0)) == [text.key]
    assert database.read(lambda c: sql.changed_keys(c, "texts", 2)) == []


def test_changes_that_were_forgotten_are_told(database: Database) -> None:
    image = insert(database, id="a")
    database.write(lambda c: images.delete(c, image.key))
    database.write(lambda c: list(c.execute("INSERT INTO changes VALUES (100001, 'images', 7)")))
    assert database.read(lambda c: sql.changed_keys(c, "images", 0)) is None
    assert database.read(lambda c: sql.changed_keys(c, "images", 100000)) == [7]


TAKEN_IN_JULY = {"key": "metadata.taken", "range": {"gte": "2019-07-04T10:00:00Z", "lt": "2019-08-01"}}


def explain(database: Database, filter: dict[str, Any]) -> list[tuple[str, str]]:
    parsed = parse_filter(filter, "images")
    return [(one.code, one.detail) for one in database.read(lambda c: sql.explain_filter(c, "default", parsed))]


@pytest.mark.parametrize(
    ("written", "is_inside"),
    [
        ("2019:07:04 12:00:00", True),  # of a camera
        ("2019:07:04 09:00:00", False),
        ("2019/07/05", True),
        ("2019-07-04T12:00:00+0200", True),
        ("2019-07-04 11:59:59 +0200", False),
        ("2019-07-04 12:00:00 UTC", True),
        ("2019-07-04T12:00:00.123-0100", True),
        ("2019-07-04-1234", False),
        ("04.07.2019", False),
    ],
)
def test_times_of_metadata_are_compared_in_the_forms_of_cameras(
    written: str, is_inside: bool, database: Database
) -> None:
    key = insert(database, metadata={"taken": written}).key
    filter = parse_filter(TAKEN_IN_JULY, "images")
    assert database.read(lambda c: sql.select_keys(c, "default", filter)) == [key] * is_inside


def test_a_filter_says_which_values_its_range_cannot_compare(database: Database) -> None:
    for n, taken in enumerate(["2019:07:04 12:00:00", "04.07.2019", 5, None, ["July"]]):
        insert(database, n, metadata={"taken": taken, "price": f"{n}.99"})
    (code, detail), *rest = explain(database, {"must": [TAKEN_IN_JULY, {"key": "width", "range": {"gte": 1}}]})
    assert (code, rest) == ("filter_other_values", [])
    assert detail.startswith("3 of 4 values of metadata.taken are no times, like ")
    cheap = {"key": "metadata.price", "range": {"lt": 20}}
    assert "5 of 5 values of metadata.price are no numbers" in explain(database, cheap)[0][1]
    assert explain(database, {"must_not": [cheap]}) == []
    assert explain(database, {"key": "metadata.price", "match": {"value": "x"}}) == []


def test_a_filter_says_which_entry_no_row_has(database: Database) -> None:
    insert(database, metadata={"taken": "2019-07-04"})
    (code, detail), *rest = explain(database, {"should": [{"key": "metadata.takken", "match": {"value": 1}}]})
    assert (code, rest) == ("filter_no_value", [])
    assert "metadata.takken" in detail
