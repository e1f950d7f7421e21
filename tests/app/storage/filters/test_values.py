from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import Validation
from app.core.types import Target
from app.storage.database import Database
from app.storage.filters.model import Field
from app.storage.filters.parser import parse_filter
from app.storage.filters.values import (
    MAX_CHARS,
    Order,
    Place,
    Use,
    field_name,
    parse_field,
    parse_order,
    read_value,
    select_ordered,
    sort_by_value,
)
from app.storage.tables import images, texts
from tests.support.makers import insert

MIXED: list[Any] = [2, "b", True, 1.5, None, "a", False, [1], {"a": 1}, -3, "é", "z" * 300, "z" * 300 + "a", 1, 1.0, ""]


@pytest.mark.parametrize(
    ("text", "target", "use", "field"),
    [
        ("created_at", "images", "order_by", Field("created_at")),
        ("score", "texts", "order_by", Field("score")),
        ("metadata.a.b", "images", "order_by", Field("metadata", ("a", "b"))),
        ('metadata."a.b"', "texts", "group_by", Field("metadata", ("a.b",))),
        ("job_id", "images", "group_by", Field("job_id")),
        ("tags", "images", "facets", Field("tags")),
    ],
)
def test_fields_are_read(text: str, target: Target, use: Use, field: Field) -> None:
    assert parse_field(text, target, use) == field
    assert field_name(field) == text


@pytest.mark.parametrize(
    ("text", "target", "use", "message"),
    [
        ("creted_at", "images", "order_by", "there is no field 'creted_at'; did you mean created_at?"),
        ("", "images", "order_by", "there is no field ''"),
        ("width", "texts", "order_by", "there is no field 'width'; there are score, created_at and metadata"),
        ("jobid", "images", "group_by", "did you mean job_id?"),
        ("tag", "images", "facets", "did you mean tags?"),
        ("metadata", "images", "facets", "name an entry of metadata"),
        ("metadata.", "images", "facets", "is no path"),
        ("taken_at", "texts", "order_by", "there is no field 'taken_at'"),
        ("lense", "images", "facets", "did you mean lens?"),
        ("x" * 1000, "images", "facets", "there is no field"),
    ],
)
def test_unknown_fields_are_refused_with_the_nearest_name(text: str, target: Target, use: Use, message: str) -> None:
    with pytest.raises(Validation, match=re.escape(message)) as caught:
        parse_field(text, target, use)
    assert caught.value.detail.startswith(f"{use}: ")
    assert len(caught.value.detail) < 200


def test_a_minus_descends() -> None:
    assert parse_order("-width", "images") == Order(Field("width"), is_descending=True)
    assert parse_order("-metadata.a", "images").text == "-metadata.a"


def test_values_of_many_types_have_one_order() -> None:
    rising = [MIXED[n] for n in sort_by_value(MIXED[:7], is_descending=False)]
    assert rising == [1.5, 2, "a", "b", False, True, None]
    falling = [MIXED[n] for n in sort_by_value(MIXED[:7], is_descending=True)]
    assert falling == [True, False, "b", "a", 2, 1.5, None]
    assert sort_by_value([1, None, 1.0, "x", 1], is_descending=True) == [3, 0, 2, 4, 1]


def test_values_of_records_are_read(database: Database) -> None:
    image = insert(database, 1, job="job", metadata={"a": {"b": 1}, "list": [1]})
    image = replace(image, created_at="2026-03-04T05:06:07.000Z")
    expected = {
        ("created_at",): image.created_at,
        ("day",): "2026-03-04",
        ("month",): "2026-03",
        ("job_id",): "job",
        ("width",): 4,
        ("metadata", "a", "b"): 1,
        ("metadata", "a", "b", "c"): None,
        ("metadata", "list"): None,
        ("metadata", "none"): None,
    }
    found = {(name, *path): read_value(image, Field(name, tuple(path))) for name, *path in expected}
    assert found == expected
    text = database.write(lambda c: texts.put(c, "default", "a", "words", {"n": True}))
    assert read_value(text, Field("metadata", ("n",))) is True


@pytest.fixture
def mixed_rows(database: Database) -> Database:
    for n, value in enumerate(MIXED * 2):
        insert(database, n, f"id-{n}", metadata={"n": value}, tags=("odd",) if n % 2 else ())
    return database


def list_all(database: Database, order: Order, limit: int, filter: Any = None) -> list[Place]:
    """Every place, page by page."""
    parsed = None if filter is None else parse_filter(filter, "images")
    found: list[Place] = []
    after = None
    while page := database.read(lambda c, after=after: select_ordered(c, "default", parsed, order, limit, after)):  # type: ignore[misc]
        found += page
        after = page[-1]
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 40), is_descending=st.booleans(), name=st.sampled_from(["n", "width", "bytes"]))
def test_pages_of_an_ordered_list_are_those_of_the_whole(
    mixed_rows: Database, limit: int, is_descending: bool, name: str
) -> None:
    field = Field("metadata", ("n",)) if name == "n" else Field(name)
    order = Order(field, is_descending)
    rows = mixed_rows.read(lambda c: images.list_page(c, "default", 1000, None))
    whole = [rows[n].key for n in sort_by_value([read_value(row, field) for row in rows], is_descending)]
    assert [place.key for place in list_all(mixed_rows, order, limit)] == whole


def test_a_filter_is_kept_and_long_texts_are_cut(mixed_rows: Database) -> None:
    odd = {"key": "tags", "match": {"value": "odd"}}
    found = list_all(mixed_rows, parse_order("-metadata.n", "images"), 3, odd)
    assert len(found) == len(MIXED)
    assert max(len(place.value) for place in found if isinstance(place.value, str)) <= MAX_CHARS
