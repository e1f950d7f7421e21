from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Validation
from app.core.types import Target
from app.storage.filters.model import Exists, Field, FieldKind, Group, HasWords, IsNull, Match, Range
from app.storage.filters.parser import MAX_CONDITIONS, MAX_DEPTH, MAX_VALUES, parse_filter, parse_filter_json

TAGS = Field("tags", FieldKind.TAGS)
WIDTH = Field("width", FieldKind.NUMBER)
RED = {"key": "tags", "match": {"value": "red"}}


def metadata(*path: str) -> Field:
    return Field("metadata", FieldKind.JSON, path)


@pytest.mark.parametrize(
    ("written", "tree"),
    [
        ({}, Group()),
        (RED, Match(TAGS, ("red",))),
        ({"must": RED}, Group(must=(Match(TAGS, ("red",)),))),
        (
            {"must": [RED], "should": [], "must_not": [{"should": [RED]}]},
            Group((Match(TAGS, ("red",)),), (), (Group(should=(Match(TAGS, ("red",)),)),)),
        ),
        ({"key": "tags", "match": {"any": ["a", "b"]}}, Match(TAGS, ("a", "b"))),
        ({"key": "tags", "match": {"except": ["a"]}}, Match(TAGS, ("a",), outside=True)),
        ({"key": "caption", "match": {"text": "a b"}}, HasWords(Field("caption", FieldKind.TEXT), "a b")),
        ({"key": "width", "range": {"gte": 1, "lt": 2.5, "gt": None}}, Range(WIDTH, (("gte", 1), ("lt", 2.5)))),
        (
            {"key": "created_at", "range": {"lt": "2026-01-31"}},
            Range(Field("created_at", FieldKind.TIME), (("lt", "2026-01-31T00:00:00.000Z"),)),
        ),
        ({"key": "metadata.a.b", "match": {"value": True}}, Match(metadata("a", "b"), (True,))),
        ({"key": 'metadata."a.b".c', "exists": True}, Exists(metadata("a.b", "c"))),
        ({"key": "metadata.a", "exists": False}, Group(must_not=(Exists(metadata("a")),))),
        ({"key": "metadata.a", "is_empty": True}, Group(must_not=(Exists(metadata("a")),))),
        ({"is_empty": {"key": "tags"}}, Group(must_not=(Exists(TAGS),))),
        ({"exists": {"key": "tags"}}, Exists(TAGS)),
        ({"is_null": {"key": "metadata.a"}}, IsNull(metadata("a"))),
        ({"key": "metadata.a", "is_null": False}, Group(must_not=(IsNull(metadata("a")),))),
        ({"has_id": ["x", "y"]}, Match(Field("id", FieldKind.TEXT), ("x", "y"))),
        ({"key": "animated", "match": {"value": True}}, Match(Field("animated", FieldKind.FLAG), (True,))),
    ],
)
def test_a_filter_is_read(written: Any, tree: Any) -> None:
    assert parse_filter_json(json.dumps(written), "images").tree == tree


def deep(n: int) -> Any:
    filter: Any = RED
    for _ in range(n):
        filter = {"must": [filter]}
    return filter


REFUSED: list[tuple[Any, str]] = [
    ({"key": "tag", "match": {"value": "x"}}, r"filter\.key: there is no field 'tag'; did you mean tags\?"),
    ({"must": [RED, {"key": "Width", "range": {}}]}, r"filter\.must\[1\]\.key: .*'Width'; did you mean width\?"),
    ({"key": "camera", "match": {"value": "x"}}, r"no field 'camera'; .*metadata\.NAME"),
    ({"key": "text", "match": {"value": "x"}}, "no field 'text'"),  # of texts, not of pictures
    ({"key": "metadata", "match": {"value": "x"}}, r"which entry of metadata"),
    ({"key": "tags.a", "match": {"value": "x"}}, "tags is a list of texts"),
    ({"key": "metadata..a", "exists": True}, "no path"),
    ({"key": "metadata.a.", "exists": True}, "no path"),
    ({"key": "metadata.a[0]", "exists": True}, "no path"),
    ({"key": 'metadata."a"b', "exists": True}, "no path"),
    ({"key": "metadata." + ".".join("a" * 9), "exists": True}, "no path"),
    ({"key": "metadata.a\\b", "exists": True}, "backslash"),
    ({"key": 5, "exists": True}, "name of a field, got 5"),
    ({"key": "width", "match": {"value": "640"}}, r"filter\.match\.value: width is compared with a number, got '640'"),
    ({"key": "width", "match": {"value": True}}, "width is compared with a number, got True"),
    ({"key": "width", "match": {"value": 2**63}}, "width is compared with a finite number"),
    ({"key": "width", "range": {"gte": math.nan}}, "width is compared with a finite number"),
    ({"key": "width", "range": {"gte": "5"}}, "width is compared with a number, got '5'"),
    ({"key": "metadata.a", "match": {"value": math.inf}}, "finite number"),
    ({"key": "metadata.a", "match": {"value": None}}, r"metadata\.a is compared with a text, a number, true or false"),
    ({"key": "metadata.a", "match": {"value": [1]}}, "got a list of 1"),
    ({"key": "metadata.a", "range": {"gte": "2026-01-01", "lt": 5}}, r"metadata\.a: a time is written"),
    ({"key": "format", "match": {"value": "jpg"}}, "format is one of avif, gif, jpeg, png and webp, got 'jpg'"),
    ({"key": "format", "match": {"value": []}}, "format is one of"),
    ({"key": "animated", "match": {"value": 1}}, "animated is true or false, got 1"),
    ({"key": "created_at", "match": {"value": "2026-01-01"}}, "created_at is a time; compare it by range"),
    ({"key": "created_at", "range": {"gte": "yesterday"}}, "created_at: a time is written 2026-01-31 or"),
    ({"key": "created_at", "range": {"gte": 1700000000}}, "created_at: a time is written"),
    ({"key": "caption", "range": {"gte": 1}}, "caption is text; ranges are for numbers and times"),
    ({"key": "width", "match": {"text": "x"}}, "words are looked for in texts"),
    ({"key": "caption", "match": {"text": " .,- "}}, "there is no word in"),
    ({"key": "caption", "match": {"value": 5}}, "caption is compared with a text, got 5"),
    ({"key": "caption", "match": {"value": "\ud800"}}, "not valid Unicode"),
    ({"key": "caption", "match": {"value": "a\0"}}, "NUL"),
    ({"key": "caption", "match": {"value": "x" * 20_000}}, "may have 16384 characters, this has 20000"),
    ({"key": "tags", "match": {"vlaue": "x"}}, "no match 'vlaue'; did you mean value"),
    ({"key": "tags", "match": {}}, "expected one of value, any, except and text"),
    ({"key": "tags", "match": {"value": "x", "any": ["x"]}}, "expected one of"),
    ({"key": "tags", "match": {"any": "x"}}, "expected a list, got 'x'"),
    ({"key": "tags", "macth": {"value": "x"}}, "no operator 'macth'; did you mean match"),
    ({"key": "tags"}, "a condition on tags has one of"),
    ({"key": "width", "match": {"value": 1}, "range": {"gte": 1}}, "a condition on width has one of"),
    ({"key": "width", "range": {"ge": 1}}, "no comparison 'ge'; did you mean gte"),
    ({"key": "width", "range": {}}, "a range needs one of"),
    ({"key": "width", "range": {"gte": None}}, "a range needs one of"),
    ({"key": "width", "range": 5}, "expected an object like"),
    ({"key": "tags", "exists": 1}, "expected true or false, got 1"),
    ({"is_empty": "tags"}, "expected {'key': ...}, got 'tags'"),
    ({"is_empty": {"key": "tga"}}, "did you mean tags"),
    ({"match": {"value": "x"}}, "no condition 'match'"),
    ({"match": {"value": "x"}, "range": {}}, "a condition needs a key"),
    ({"has_id": "x"}, "expected a list"),
    ({"has_id": [5]}, "id is compared with a text, got 5"),
    ({"must": "x"}, r"filter\.must: expected a list of conditions, got 'x'"),
    ({"must": [5]}, r"filter\.must\[0\]: expected an object"),
    ({"must": [], "shuold": []}, "no clause 'shuold'; did you mean should"),
    ([RED], "filter: expected an object, .* got a list of 1"),
    ("x", "expected an object"),
    (None, "expected an object"),
    (deep(100), f"may be nested {MAX_DEPTH} deep"),
    ({"should": [RED] * 10_000}, rf"filter\.should\[{MAX_CONDITIONS}\]: a filter may have {MAX_CONDITIONS} conditions"),
    ({"key": "tags", "match": {"any": ["x"] * 10_000}}, rf"any\[{MAX_VALUES}\]: a filter may list {MAX_VALUES} values"),
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
    parse_filter(deep(MAX_DEPTH - 1), "images")
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
