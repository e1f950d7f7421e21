from __future__ import annotations

import json
import re

import pytest

from app.decode.sidecars import MAX_SIDECAR_BYTES, match_sidecars, merge_sidecars, parse_sidecar, split_key


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
        "metadata": {"camera": "X100"},
    }
    said = parse_sidecar("json", b"\xef\xbb\xbf" + json.dumps(facts).encode())
    assert said == {
        "caption": "a cat",
        "tags": ["x", "y"],
        "metadata": {"camera": "X100", "url": "http://a/", "width": 3},
    }
    assert parse_sidecar("json", b'{"caption": ["a cat", "b"], "tags": "x, y"}') == {
        "caption": "a cat",
        "tags": ["x", "y"],
    }
    assert merge_sidecars([("txt", {"caption": "a dog"}), ("json", said)])["caption"] == "a dog"
    assert merge_sidecars([("txt", {"caption": ""}), ("json", said)])["caption"] == "a cat"
    assert merge_sidecars([]) == {}


@pytest.mark.parametrize(
    ("extension", "data", "told"),
    [
        ("txt", b"gr\x81n", "not UTF-8"),
        ("txt", b"a cat\n" * 6, "no caption: it has 6 lines"),
        ("txt", b"x" * (MAX_SIDECAR_BYTES["txt"] + 1), "more than 65,536 bytes"),
        ("json", b"[1]", "not an object"),
        ("json", b"{", "not JSON"),
        ("json", b"[" * 100_000, "not JSON"),
        ("json", b'{"a": 1e999}', "cannot be stored|not JSON"),
        ("json", b'{"a": "\\ud800"}', "a.json: the value of 'a' cannot be stored"),
        ("json", b'{"caption": {"en": "cat"}}', "the value of 'caption' cannot be stored"),
        ("json", b'{"tags": 5}', "the value of 'tags' cannot be stored"),
    ],
)
def test_a_sidecar_that_cannot_be_read_says_why(extension: str, data: bytes, told: str) -> None:
    said = parse_sidecar(extension, data, f"a.{extension}")
    (warning,) = said.pop("warnings")
    assert said == {}
    assert warning["code"] == "left_out"
    assert re.search(told, warning["detail"])
    assert merge_sidecars([(extension, {"warnings": [warning]}), ("json", {"tags": ["x"]})]) == {
        "tags": ["x"],
        "warnings": [warning],
    }


def test_a_short_text_is_a_caption_whole() -> None:
    assert parse_sidecar("txt", b"\xef\xbb\xbfA red car\r\nbefore a house.\r\n\r\n") == {
        "caption": "A red car\r\nbefore a house."
    }
    assert parse_sidecar("txt", "ein Käfer".encode("utf-16")) == {"caption": "ein Käfer"}
    legacy = parse_sidecar("txt", "ein Käfer".encode("cp1252"))
    assert (legacy["caption"], legacy["warnings"][0]["code"]) == ("ein Käfer", "encoding")


@pytest.mark.parametrize(
    ("sidecar", "picture"),
    [
        ("IMG_0.JPG.supplemental-metadata.json", "IMG_0.JPG"),
        ("IMG_0.JPG.supplemental-metad.json", "IMG_0.JPG"),
        ("IMG_0.JPG.s.json", "IMG_0.JPG"),
        ("IMG_0.JPG..json", "IMG_0.JPG"),
        ("IMG_0.JPG.json", "IMG_0.JPG"),
        ("IMG_0.json", "IMG_0.JPG"),
        ("IMG_0.JPG.supplemental-metadata(1).json", "IMG_0(1).JPG"),
        ("IMG_0.JPG(1).json", "IMG_0(1).JPG"),
        ("IMG_0(1).JPG.json", "IMG_0(1).JPG"),
        (
            "a name that is longer than forty-six letters,.json",
            "a name that is longer than forty-six letters, and goes on.jpg",
        ),
        ("IMG_0.txt", "IMG_0.JPG"),
        ("IMG_0.JPG.TXT", "IMG_0.JPG"),
        ("003.json", "003.left.png"),
        ("metadata.json", None),
        ("IMG_0.JPG.other.json", None),
        ("IMG.json", None),
        ("IMG_7.JPG.json", None),
    ],
)
def test_a_sidecar_belongs_to_the_picture_that_its_name_says(sidecar: str, picture: str | None) -> None:
    pictures = [
        "IMG_0.JPG",
        "IMG_0(1).JPG",
        "003.left.png",
        "a name that is longer than forty-six letters, and goes on.jpg",
    ]
    assert match_sidecars(pictures, [sidecar]) == ({} if picture is None else {picture: [sidecar]})


def test_an_edited_photograph_has_the_sidecar_of_the_original() -> None:
    found = match_sidecars(["a-edited.jpg", "a.jpg", "b-edited.jpg"], ["a.jpg.supplemental-metadata.json"])
    assert set(found) == {"a.jpg", "a-edited.jpg"}


def test_google_takeout_gives_description_time_and_title_and_no_place() -> None:
    said = {
        "title": "IMG_1.JPG",
        "description": " Ann&#39;s note 1 ",
        "imageViews": "3",
        "photoTakenTime": {"timestamp": "1258375918", "formatted": "16 Nov 2009, 12:51:58 UTC"},
        "geoData": {"latitude": 47.1},
    }
    assert parse_sidecar("json", json.dumps(said).encode()) == {
        "caption": "Ann's note 1",
        "metadata": {"title": "IMG_1.JPG", "taken": "2009-11-16T12:51:58.000Z"},
    }
    odd = {"photoTakenTime": {"timestamp": "never"}, "description": ""}
    assert parse_sidecar("json", json.dumps(odd).encode()) == {"metadata": {}}
