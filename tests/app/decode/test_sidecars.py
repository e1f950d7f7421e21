from __future__ import annotations

import json
import re

import pytest

from app.decode.sidecars import MAX_SIDECAR_BYTES, match_sidecars, merge_sidecars, parse_sidecar, split_key
from tests.support.camera import make_xmp


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
        ("IMG_0.xmp", "IMG_0.JPG"),
        ("IMG_0.JPG.xmp", "IMG_0.JPG"),
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
    found = match_sidecars(["a-edited(1).jpg", "a(1).jpg"], ["a.jpg.supplemental-metadata(1).json"])
    assert set(found) == {"a(1).jpg", "a-edited(1).jpg"}


def test_google_takeout_gives_description_time_place_people_and_title() -> None:
    said = {
        "title": "IMG_1.JPG",
        "description": " Ann&#39;s note 1 ",
        "imageViews": "3",
        "photoTakenTime": {"timestamp": "1258375918", "formatted": "16 Nov 2009, 12:51:58 UTC"},
        "geoData": {"latitude": 47.1, "longitude": 8.5, "altitude": 400.0},
        "people": [{"name": "Ann &amp; Bo"}, {"name": "Cid"}, {}, "x", {"name": 1}],
    }
    assert parse_sidecar("json", json.dumps(said).encode()) == {
        "caption": "Ann's note 1",
        "tags": ["Ann & Bo", "Cid"],
        "metadata": {"title": "IMG_1.JPG", "taken": "2009-11-16T12:51:58.000Z"},
        "camera_data": {
            "taken_at": "2009-11-16T12:51:58.000",
            "taken_offset": 0,
            "latitude": 47.1,
            "longitude": 8.5,
        },
    }
    odd: dict[str, object] = {"photoTakenTime": {"timestamp": "never"}, "description": "", "people": {"name": "x"}}
    nowhere = {"geoData": {"latitude": 0.0, "longitude": 0.0}}
    for one in (odd, odd | nowhere, odd | {"geoData": {"latitude": "NaN", "longitude": 1}}, odd | {"geoData": [1]}):
        assert parse_sidecar("json", json.dumps(one).encode()) == {"metadata": {}}
    assert parse_sidecar("json", b'{"photoTakenTime": 7, "geoData": {"latitude": NaN, "longitude": 1e400}}') == {
        "metadata": {}
    }


def test_an_xmp_file_gives_words_time_and_place() -> None:
    packet = make_xmp(
        {"photoshop:DateCreated": "2019-07-04T12:00:00.25+02:00", "exif:GPSLatitude": "47,22.5N"},
        {"dc:title": ["Lake"], "dc:description": ["at dawn"], "dc:subject": ["water", "sky"]},
        {"exif:GPSLongitude": "8,30,36W"},
    )
    said = parse_sidecar("xmp", packet, "a.xmp")
    assert said == {
        "caption": "Lake\nat dawn",
        "tags": ["water", "sky"],
        "camera_data": {
            "taken_at": "2019-07-04T12:00:00.250",
            "taken_offset": 120,
            "latitude": 47.375,
            "longitude": -8.51,
        },
    }
    takeout = {"caption": "Takeout", "camera_data": {"taken_at": "2019-07-04T10:00:00.000", "camera": "X100"}}
    merged = merge_sidecars([("txt", {"caption": "mine"}), ("xmp", said), ("json", takeout)])
    assert merged["caption"] == "mine"
    assert merged["camera_data"] == said["camera_data"] | {"camera": "X100"}
    for bad, told in ((b"no xml", "no XML"), (b"<!DOCTYPE a []><a/>", "no XML"), (b" " * 2_000_000, "more than")):
        (warning,) = parse_sidecar("xmp", bad, "a.xmp")["warnings"]
        assert re.search(told, warning["detail"])
