from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import Validation
from app.storage.attributes import (
    ImageAttributes,
    MetadataLimits,
    check_attributes,
    check_id,
    check_metadata,
    check_text,
    fit_attributes,
    nesting_depth,
)

BOUNDS = MetadataLimits(metadata_bytes=100, metadata_depth=3)


def nest_metadata(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "said",
    [
        ImageAttributes(),
        ImageAttributes(id="a-Z_9", caption="笑脸", tags=("x", "y" * 100), metadata={"a": [1, {"b": None}]}),
        ImageAttributes(id="x" * 64, caption="c" * 2000, tags=("t",) * 100, metadata=nest_metadata(3)),
    ],
)
def test_what_is_within_the_bounds_is_taken(said: ImageAttributes) -> None:
    check_attributes(said, BOUNDS)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (ImageAttributes(id=""), "an id has 1 to 64"),
        (ImageAttributes(id="x" * 65), "an id has 1 to 64"),
        (ImageAttributes(id="../etc"), "an id has 1 to 64"),
        (ImageAttributes(id="line\n"), "an id has 1 to 64"),
        (ImageAttributes(id="ä"), "an id has 1 to 64"),
        (ImageAttributes(caption="c" * 2001), "2000 characters, this has 2001"),
        (ImageAttributes(caption="\ud800"), "not valid Unicode"),
        (ImageAttributes(tags=("t",) * 101), "100 tags, this has 101"),
        (ImageAttributes(tags=("",)), "a tag is empty"),
        (ImageAttributes(tags=("t" * 101,)), "100 characters, this has 101"),
        (ImageAttributes(metadata={"a": "b" * 100}), "100 bytes as JSON"),
        (ImageAttributes(metadata={"a": float("nan")}), "plain JSON"),
        (ImageAttributes(metadata={"a": "\ud800"}), "plain JSON"),
        (ImageAttributes(metadata=nest_metadata(4)), "nested 3 deep"),
    ],
)
def test_what_is_not_is_refused_with_the_reason(said: ImageAttributes, why: str) -> None:
    with pytest.raises(Validation, match=why):
        check_attributes(said, BOUNDS)


def test_metadata_nested_without_end_is_refused_and_not_followed() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    for value in (endless, nest_metadata(5000)):
        with pytest.raises(Validation):
            check_metadata(value, BOUNDS)


def test_bytes_are_counted_not_characters() -> None:
    check_metadata({"a": "b" * 90}, BOUNDS)
    with pytest.raises(Validation):
        check_metadata({"a": "笑" * 40}, BOUNDS)


def test_depth_counts_objects_and_lists() -> None:
    assert nesting_depth(1) == nesting_depth("x") == 0
    assert nesting_depth({}) == nesting_depth([]) == 1
    assert nesting_depth({"a": [{"b": 1}], "c": 2}) == 3


def test_single_checks_name_what_they_check() -> None:
    check_id("ok")
    check_text("caption", "fine", 4)
    with pytest.raises(Validation, match="a tag may have 3 characters"):
        check_text("tag", "long", 3)


@pytest.mark.parametrize(
    ("said", "fitted", "warned"),
    [
        (ImageAttributes(id="a", caption="x", tags=("t",)), ImageAttributes(id="a", caption="x", tags=("t",)), []),
        (ImageAttributes(id="AB.12/3"), ImageAttributes(metadata={"id": "AB.12/3"}), ["id"]),
        (ImageAttributes(id="a b", metadata={"id": 7}), ImageAttributes(metadata={"id": 7}), ["id"]),
        (ImageAttributes(caption="c" * 2001), ImageAttributes(caption="c" * 2000), ["caption"]),
        (ImageAttributes(caption="\ud800"), ImageAttributes(), ["caption"]),
        (ImageAttributes(tags=("t" * 101, "x", "", "x")), ImageAttributes(tags=("x",)), ["tags"]),
        (
            ImageAttributes(tags=tuple(f"t{n}" for n in range(101))),
            ImageAttributes(tags=tuple(f"t{n}" for n in range(100))),
            ["tags"],
        ),
        (ImageAttributes(metadata={"a": "b" * 100, "c": 1}), ImageAttributes(metadata={"c": 1}), ["metadata"]),
        (ImageAttributes(metadata={"a": float("nan")}), ImageAttributes(), ["metadata"]),
        (ImageAttributes(metadata={"a": nest_metadata(3), "b": "\ud800"}), ImageAttributes(), ["metadata"]),
        (
            ImageAttributes(metadata={f"k{n}": "v" * n * 9 for n in range(5)}),
            ImageAttributes(metadata={f"k{n}": "v" * n * 9 for n in range(4)}),
            ["metadata"],
        ),
    ],
)
def test_what_does_not_fit_is_cut_or_left_out_with_a_warning(
    said: ImageAttributes, fitted: ImageAttributes, warned: list[str]
) -> None:
    result, warnings = fit_attributes(said, BOUNDS)
    assert result == fitted
    assert [warning.field for warning in warnings] == warned
    check_attributes(result, BOUNDS)
