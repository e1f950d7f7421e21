from __future__ import annotations

import base64
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from app.core.errors import Validation
from app.decode.column_mapping import content, found, is_url, plain, said_of


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
    columns = found(names, given)
    assert (columns.picture, columns.caption, columns.rest) == (picture, caption, rest)


@pytest.mark.parametrize(
    ("names", "given", "told"),
    [
        (["label", "text"], {}, "no column holds pictures or URLs, among label, text"),
        ([], {}, "among no columns"),
        (["url"], {"caption": "alt"}, "no column 'alt' for the caption; there are url"),
        ([f"column{n}" for n in range(500)], {}, "column19, …"),
    ],
)
def test_columns_that_are_not_there_are_told(names: list[str], given: dict[str, str], told: str) -> None:
    with pytest.raises(Validation, match=told):
        found(names, given)


def test_a_row_says_caption_id_tags_and_metadata() -> None:
    columns = found(["url", "caption", "id", "tags", "n", "when", "price", "nothing", "odd"], {})
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
    assert said_of(row, columns) == {
        "caption": "a cat",
        "id": "7",
        "tags": ["red", "green"],
        "metadata": {"when": "2026-01-02", "price": "1.50"},
    }
    assert said_of({"caption": " ", "tags": ["x", None, ""], "id": ""}, columns) == {"tags": ["x"]}
    assert said_of({}, columns) == {}


def test_formulas_are_text_like_any_other() -> None:
    formula = '=HYPERLINK("http://x/?"&A1,"click")'
    assert said_of({"caption": formula, "a": "@SUM(A1)"}, found(["url", "caption", "a"], {})) == {
        "caption": formula,
        "metadata": {"a": "@SUM(A1)"},
    }


def test_what_json_cannot_say_is_left_out() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert plain(deep) is None
    assert plain("\ud800") is None
    assert plain({1: [1.5, float("inf"), b"x"]}) == {"1": [1.5, None, None]}
    assert plain(True) is True


def test_a_picture_is_bytes_nested_bytes_or_base64() -> None:
    text = base64.b64encode(b"picture").decode()
    for value in (b"picture", {"bytes": b"picture", "path": "a"}, text, f"data:image/png;base64,{text}"):
        assert content(value) == b"picture"
    for wrong in (None, "", 5, {"bytes": None, "path": "/etc/passwd"}, "not base64!", "ü"):
        with pytest.raises(Validation):
            content(wrong)
    assert is_url("HTTPS://a/")
    assert not is_url("ftp://a/")
    assert not is_url(None)
