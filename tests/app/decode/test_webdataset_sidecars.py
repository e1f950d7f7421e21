from __future__ import annotations

import json

import pytest

from app.core.types import ItemError
from app.decode.webdataset_sidecars import merge_sidecars, parse_sidecar, split_key


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [("a/001.left.JPG", "a/001", "left.jpg"), ("001.txt", "001", "txt"), ("a.b/c", "a.b/c", ""), (".x", "", "x")],
)
def test_a_key_ends_at_the_first_dot_of_the_name(name: str, key: str, extension: str) -> None:
    assert split_key(name) == (key, extension)


def test_facts_become_caption_tags_and_metadata_and_what_is_empty_or_private_is_left_out() -> None:
    facts = {
        "caption": " a cat ",
        "tags": ["x", "y"],
        "url": "http://a/",
        "width": 3,
        "similarity": float("nan"),
        "error_message": None,
        "status": "success",
        "exif": '{"GPS": 1}',
    }
    said = parse_sidecar("json", b"\xef\xbb\xbf" + json.dumps(facts).encode())
    assert said == {"caption": "a cat", "tags": ["x", "y"], "metadata": {"url": "http://a/", "width": 3}}
    assert merge_sidecars({"json": said, "txt": {"caption": "a dog"}})["caption"] == "a dog"  # type: ignore[index]
    assert merge_sidecars({"txt": {"caption": ""}, "json": said})["caption"] == "a cat"  # type: ignore[index]
    assert merge_sidecars({}) == {}


@pytest.mark.parametrize(
    ("extension", "data", "told"),
    [
        ("txt", b"\xff\xfe", "not UTF-8"),
        ("json", b"[1]", "not an object"),
        ("json", b"{", "not JSON"),
        ("json", b"[" * 100_000, "not JSON"),
        ("json", b'{"a": 1e999}', "cannot be stored|not JSON"),
        ("json", b'{"a": "\\ud800"}', "not JSON that can be stored"),
    ],
)
def test_a_sidecar_that_cannot_be_read_says_why(extension: str, data: bytes, told: str) -> None:
    import re

    said = parse_sidecar(extension, data)
    assert isinstance(said, ItemError)
    assert re.search(told, said.detail)
    assert merge_sidecars({extension: said, "x": {}}) == said
