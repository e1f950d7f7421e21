from __future__ import annotations

import base64
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from app.core.errors import Validation
from app.decode.column_mapping import is_url, map_columns, read_attributes, read_path, read_picture_cell, to_json_value


@pytest.mark.parametrize(
    ("names", "given", "picture", "caption", "rest"),
    [
        (["URL", "TEXT", "WIDTH", "similarity"], {}, "URL", "TEXT", ("WIDTH", "similarity")),
        (["url", "jpg", "caption", "exif", "status"], {}, "jpg", "caption", ("url",)),
        (["image", "label"], {}, "image", None, ("label",)),
        (["image", "url", "text"], {"url": "url"}, "url", "text", ("image",)),
        (["photo", "text", "alt"], {"image": "photo", "caption": "alt"}, "photo", "alt", ("text",)),
        (["a", "b", "url"], {"caption": "url", "image": "a"}, "a", "url", ("b",)),
    ],
)
def test_columns_are_found_by_their_usual_names_or_those_given(
    names: list[str], given: dict[str, str], picture: str, caption: str | None, rest: tuple[str, ...]
) -> None:
    columns = map_columns(names, given)
    assert (columns.picture, columns.caption, columns.rest) == (picture, caption, rest)


@pytest.mark.parametrize(
    ("names", "given", "told"),
    [
        (["label", "text"], {}, "no column holds pictures, URLs or paths, among label, text"),
        ([], {}, "among no columns"),
        (["http://a/1.jpg", "a cat"], {}, "the first line is no header"),
        (["url"], {"caption": "alt"}, "no column 'alt' for the caption; there are url"),
        ([f"column{n}" for n in range(500)], {}, "column19, …"),
    ],
)
def test_columns_that_are_not_there_are_told(names: list[str], given: dict[str, str], told: str) -> None:
    with pytest.raises(Validation, match=told):
        map_columns(names, given)


def test_a_row_says_caption_id_tags_and_metadata() -> None:
    columns = map_columns(["url", "caption", "id", "tags", "n", "when", "price", "nothing", "odd"], {})
    row: dict[str, Any] = {
        "url": "http://a/",
        "caption": [None, " a cat "],
        "id": 7,
        "tags": "red, green,,",
        "n": float("nan"),
        "when": date(2026, 1, 2),
        "price": Decimal("1.50"),
        "nothing": None,
        "odd": b"bytes",
    }
    assert read_attributes(row, columns) == {
        "caption": "a cat",
        "id": "7",
        "tags": ["red", "green"],
        "metadata": {"when": "2026-01-02", "price": 1.5},
    }
    assert read_attributes({"caption": " ", "tags": ["x", None, ""], "id": ""}, columns) == {"tags": ["x"]}
    assert read_attributes({}, columns) == {}
    for text in ('["red", "light green"]', "['red', 'light green']", "red, light green"):
        assert read_attributes({"tags": text}, columns) == {"tags": ["red", "light green"]}
    assert read_attributes({"tags": "[red"}, columns) == {"tags": ["[red"]}


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ("images/0.jpg", "images/0.jpg"),
        (" images\\0.JPG ", "images/0.JPG"),
        ("file:///data/a%20b.png", "/data/a b.png"),
        ({"bytes": None, "path": "0.png"}, "0.png"),
        ({"bytes": b"x", "path": "0.png"}, None),
        ("data:image/png;name=a.png", None),
        ("/9j/4AAQSkZJRg==", None),
        ("a.txt", None),
        (5, None),
        (None, None),
    ],
)
def test_a_cell_may_hold_the_path_of_a_picture(cell: Any, path: str | None) -> None:
    assert read_path(cell) == path


def test_formulas_are_text_like_any_other() -> None:
    formula = '=HYPERLINK("http://x/?"&A1,"click")'
    assert read_attributes({"caption": formula, "a": "@SUM(A1)"}, map_columns(["url", "caption", "a"], {})) == {
        "caption": formula,
        "metadata": {"a": "@SUM(A1)"},
    }


def test_what_json_cannot_say_is_left_out() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert to_json_value(deep) is None
    assert to_json_value("\ud800") is None
    assert to_json_value({1: [1.5, float("inf"), b"x"]}) == {"1": [1.5, None, None]}
    assert to_json_value(True) is True


def test_a_picture_is_bytes_nested_bytes_or_base64() -> None:
    text = base64.b64encode(b"picture").decode()
    for value in (b"picture", {"bytes": b"picture", "path": "a"}, text, f"data:image/png;base64,{text}"):
        assert read_picture_cell(value) == b"picture"
    for wrong in (None, "", 5, {"bytes": None, "path": "/etc/passwd"}, "not base64!", "ü"):
        with pytest.raises(Validation):
            read_picture_cell(wrong)
    assert is_url("HTTPS://a/")
    assert not is_url("ftp://a/")
    assert not is_url(None)
