from __future__ import annotations

import json
import math
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Validation
from app.core.types import Target
from app.storage.filters import sql
from app.storage.filters.model import Field
from app.storage.filters.parser import (
    FILTER_ADAPTER,
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    parse_filter,
    parse_filter_json,
)
from app.storage.sql import Clause
from tests.app.storage.filters.test_sql import nest_conditions, of_images

TAGS = Field("tags")
WIDTH = Field("width")
RED = {"key": "tags", "match": {"value": "red"}}


def metadata(*path: str) -> Field:
    return Field("metadata", path)


@pytest.mark.parametrize(
    ("written", "condition"),
    [
        ({}, sql.ALL),
        (RED, sql.match_values(TAGS, ("red",))),
        ({"must": RED}, sql.match_values(TAGS, ("red",))),
        (
            {"must": [RED], "should": [], "must_not": [{"should": [RED]}]},
            sql.combine([sql.match_values(TAGS, ("red",))], [], [sql.match_values(TAGS, ("red",))]),
        ),
        ({"key": "tags", "match": {"any": ["a", "b"]}}, sql.match_values(TAGS, ("a", "b"))),
        ({"key": "tags", "match": {"except": ["a"]}}, sql.match_values(TAGS, ("a",), negated=True)),
        ({"key": "caption", "match": {"text": "a b"}}, sql.match_words(Field("caption"), "a b")),
        (
            {"key": "width", "range": {"gte": 1, "lt": 2.5, "gt": None}},
            sql.match_range(WIDTH, (("gte", 1), ("lt", 2.5))),
        ),
        (
            {"key": "created_at", "range": {"lt": "2026-01-31"}},
            sql.match_range(Field("created_at"), (("lt", "2026-01-31T00:00:00.000Z"),)),
        ),
        ({"key": "metadata.a.b", "match": {"value": True}}, sql.match_values(metadata("a", "b"), (True,))),
        ({"key": 'metadata."a.b".c', "exists": True}, sql.match_present(metadata("a.b", "c"))),
        ({"key": "metadata.a", "exists": False}, sql.NOT + sql.match_present(metadata("a"))),
        ({"key": "metadata.a", "is_empty": True}, sql.NOT + sql.match_present(metadata("a"))),
        ({"is_empty": {"key": "tags"}}, sql.NOT + sql.match_present(TAGS)),
        ({"exists": {"key": "tags"}}, sql.match_present(TAGS)),
        ({"is_null": {"key": "metadata.a"}}, sql.match_null(metadata("a"))),
        ({"key": "metadata.a", "is_null": False}, sql.NOT + sql.match_null(metadata("a"))),
        ({"has_id": ["x", "y"]}, sql.match_values(Field("id"), ("x", "y"))),
        ({"key": "animated", "match": {"value": True}}, sql.match_values(Field("animated"), (True,))),
    ],
)
def test_a_filter_is_read(written: Any, condition: Clause) -> None:
    assert parse_filter_json(json.dumps(written), "images").condition == condition


def nest_filter(n: int) -> Any:
    filter: Any = RED
    for _ in range(n):
        filter = {"must": [filter]}
    return filter


REFUSED: list[tuple[Any, str]] = [
    ({"key": "tag", "match": {"value": "x"}}, r"filter\.key: there is no field 'tag'; did you mean tags\?"),
    ({"must": [RED, {"key": "Width", "range": {}}]}, r"filter\.must\[1\]\.key: .*'Width'; did you mean width\?"),
    ({"key": "shutter", "match": {"value": "x"}}, r"no field 'shutter'; .*metadata\.NAME"),
    ({"key": "text", "match": {"value": "x"}}, "no field 'text'"),  # of texts, not of pictures
    ({"key": "metadata", "match": {"value": "x"}}, r"name an entry of metadata"),
    ({"key": "tags.a", "match": {"value": "x"}}, "tags has no parts"),
    ({"key": "metadata..a", "exists": True}, "no path"),
    ({"key": "metadata.a.", "exists": True}, "no path"),
    ({"key": "metadata.a[0]", "exists": True}, "no path"),
    ({"key": 'metadata."a"b', "exists": True}, "no path"),
    ({"key": "metadata." + ".".join("a" * 9), "exists": True}, "no path"),
    ({"key": "metadata.a\\b", "exists": True}, "backslash"),
    ({"key": 5, "exists": True}, "name of a field, got 5"),
    ({"key": "width", "match": {"value": "640"}}, r"^filter\.match\.value \(width\): expected a number, got '640'"),
    ({"key": "width", "match": {"value": True}}, "expected a number, got true"),
    ({"key": "width", "match": {"value": 2**63}}, r"match\.value \(.*\): .* less than or equal to 9223372036854775807"),
    ({"key": "width", "range": {"gte": math.nan}}, r"filter\.range\.gte \(.*\): .* finite number"),
    ({"key": "width", "range": {"gte": "5"}}, r"filter\.range\.gte \(.*\): expected a number, got '5'"),
    ({"key": "metadata.a", "match": {"value": math.inf}}, "finite number"),
    (
        {"key": "metadata.a", "match": {"value": None}},
        r"match\.value \(.*\): expected a text, a number, true or false, got null",
    ),
    ({"key": "metadata.a", "match": {"value": [1]}}, "got a list of 1"),
    ({"key": "metadata.a", "range": {"gte": "2026-01-01", "lt": 5}}, r"filter\.range\.lt \(.*\): a time is written"),
    ({"key": "format", "match": {"value": "jpg"}}, "should be 'avif', 'gif', 'jpeg', 'png' or 'webp', got 'jpg'"),
    ({"key": "format", "match": {"value": []}}, "should be 'avif', .* got a list of 0"),
    ({"key": "animated", "match": {"value": 1}}, "valid boolean, got 1"),
    (
        {"key": "created_at", "match": {"value": "2026-01-01"}},
        r"^filter \(created_at\): there is no 'match'; there are .* and range",
    ),
    (
        {"key": "created_at", "range": {"gte": "yesterday"}},
        r"filter\.range\.gte \(.*\): a time is written 2026-01-31 or",
    ),
    ({"key": "created_at", "range": {"gte": 1700000000}}, r"filter\.range\.gte \(.*\): a time is written"),
    ({"key": "caption", "range": {"gte": 1}}, r"^filter \(caption\): there is no 'range'; there are"),
    ({"key": "width", "match": {"text": "x"}}, "no 'text'; there are value, any and except"),
    ({"key": "caption", "match": {"text": " .,- "}}, "there is no word in"),
    ({"key": "caption", "match": {"value": 5}}, "valid string, got 5"),
    ({"key": "caption", "match": {"value": "\ud800"}}, "unable to parse raw data as a unicode string"),
    ({"key": "caption", "match": {"value": "a\0"}}, "NUL"),
    ({"key": "caption", "match": {"value": "x" * 20_000}}, "at most 16384 characters"),
    ({"key": "tags", "match": {"vlaue": "x"}}, r"filter\.match \(tags\): there is no 'vlaue'; did you mean value"),
    ({"key": "tags", "match": {}}, "expected one of value, any, except or text, got nothing"),
    ({"key": "tags", "match": {"value": "x", "any": ["x"]}}, "expected one of .*, got value and any"),
    ({"key": "tags", "match": {"any": "x"}}, r"match\.any \(tags\): .* valid list, got 'x'"),
    ({"key": "tags", "macth": {"value": "x"}}, r"^filter \(tags\): there is no 'macth'; did you mean match"),
    ({"key": "tags"}, "expected key and one of .*, got key$"),
    (
        {"key": "width", "match": {"value": 1}, "range": {"gte": 1}},
        "expected key and one of .*, got key, match and range",
    ),
    ({"key": "width", "range": {"ge": 1}}, "no 'ge'; did you mean gte"),
    ({"key": "width", "range": {}}, r"filter\.range \(width\): expected one of gt, gte, lt or lte, got nothing"),
    ({"key": "width", "range": {"gte": None}}, "a bound that is not null"),
    ({"key": "width", "range": 5}, "expected an object with gt, gte, lt or lte, got 5"),
    ({"key": "tags", "exists": 1}, r"filter\.exists \(tags\): .* valid boolean, got 1"),
    ({"is_empty": "tags"}, r"filter\.is_empty: expected an object with key, got 'tags'"),
    ({"is_empty": {"key": "tga"}}, "did you mean tags"),
    ({"match": {"value": "x"}}, "expected key and one of .*, got match"),
    ({"match": {"value": "x"}, "range": {}}, r"filter\.key: field required"),
    ({"has_id": "x"}, r"filter\.has_id: .* valid list"),
    ({"has_id": [5]}, r"filter\.has_id\[0\]: .* valid string, got 5"),
    ({"must": "x"}, r"filter\.must: .* valid list, got 'x'"),
    ({"must": [5]}, r"filter\.must\[0\]: expected an object"),
    ({"must": [], "shuold": []}, "no 'shuold'; did you mean should"),
    ([RED], "filter: expected an object, .* got a list of 1"),
    ("x", "expected an object"),
    (None, "expected an object"),
    (nest_filter(100), f"may be nested {MAX_DEPTH} deep"),
    (
        {"should": [RED] * 10_000},
        rf"filter\.should\[{MAX_CONDITIONS}\] \(tags\): a filter may have {MAX_CONDITIONS} conditions",
    ),
    (
        {"key": "tags", "match": {"any": ["x"] * 10_000}},
        rf"filter\.match\.any \(tags\): a filter may list {MAX_VALUES} values",
    ),
]


@pytest.mark.parametrize(("written", "why"), REFUSED)
def test_what_is_wrong_is_named(written: Any, why: str) -> None:
    with pytest.raises(Validation, match=why) as caught:
        parse_filter(written, "images")
    assert len(caught.value.detail) < 400


@pytest.mark.parametrize("text", ["", "x", "{", "[" * 100_000, '{"key": "tags"'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(Validation, match="filter"):
        parse_filter_json(text, "images")


def test_the_bounds_themselves_are_allowed() -> None:
    parse_filter(nest_filter(MAX_DEPTH - 1), "images")
    parse_filter({"should": [RED] * MAX_CONDITIONS}, "images")
    parse_filter({"key": "tags", "match": {"any": ["x"] * MAX_VALUES}}, "images")


def test_texts_have_fields_of_their_own() -> None:
    parse_filter({"must": [{"key": "text", "match": {"text": "x"}}, {"has_id": ["a"]}]}, "texts")
    for key in ("tags", "caption", "width"):
        with pytest.raises(Validation, match=f"no field '{key}'"):
            parse_filter({"key": key, "exists": True}, "texts")


def test_filters_are_the_same_when_they_say_the_same_and_1_is_not_true() -> None:
    def filter(value: Any, target: Target = "images") -> object:
        return parse_filter({"key": "metadata.a", "match": {"value": value}}, target)

    assert filter("x") == filter("x")
    assert parse_filter({"match": {"value": "x"}, "key": "metadata.a"}, "images") == filter("x")
    assert len({filter(1), filter(True), filter(1.0), filter("1"), filter(1, "texts")}) == 5


@pytest.mark.parametrize(
    ("written", "everything"),
    [({}, True), ({"must": []}, True), ({"must": [{"should": []}], "must_not": []}, True), ({"must_not": RED}, False)],
)
def test_a_filter_without_conditions_is_known(written: Any, everything: bool) -> None:
    assert parse_filter(written, "images").matches_everything is everything


keys = st.sampled_from(
    ["must", "should", "must_not", "key", "match", "range", "value", "any", "is_null", "has_id", "gte"]
)
fields = st.sampled_from(["tags", "width", "metadata.a", "created_at", "nothing"])
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), fields),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=20,
)


@given(values)
def test_whatever_is_sent_is_read_or_refused(written: Any) -> None:
    refusal = "filter"
    try:
        parse_filter(written, "images")
    except Validation as error:
        refusal = error.detail
    assert refusal.startswith("filter")


SCHEMA = jsonschema_rs.validator_for(FILTER_ADAPTER.json_schema())


@given(nest_conditions(of_images))
def test_the_schema_of_the_openapi_document_accepts_what_the_parser_accepts(written: Any) -> None:
    parse_filter(written, "images")
    assert SCHEMA.is_valid(written)


@pytest.mark.parametrize(
    "written",
    [
        {"key": "tag", "match": {"value": "x"}},
        {"key": "width", "match": {"value": "640"}},
        {"key": "tags", "match": {"value": "x", "any": ["x"]}},
        {"key": "caption", "range": {"gte": 1}},
        {"must": [{"key": "tags"}]},
        {"must": [], "shuold": []},
        {"is_empty": "tags"},
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(written: Any) -> None:
    assert not SCHEMA.is_valid(written)
    with pytest.raises(Validation):
        parse_filter(written, "images")
