"""An archive's metadata.jsonl: good lines join their pictures, bad ones are named and harm nobody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.decode.metadata_files import MAX_STEPS, normalise_name
from tests.support.archives import PNG, ExpandedArchive, make_tar, make_zip


def captions(*lines: Any) -> bytes:
    return b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)


def test_a_name_of_thousands_of_steps_is_cut_to_its_end() -> None:
    assert normalise_name("../" * 1_000 + "a.png") == "../" * (MAX_STEPS - 1) + "a.png"
    assert normalise_name(".\\a//./b.png") == "a/b.png"


def test_a_picture_far_below_gets_its_line(tmp_path: Path) -> None:
    name = "a/" * 500 + "b.png"
    members = {name: PNG, "metadata.jsonl": captions({"file": name, "caption": "deep"})}
    (item,) = ExpandedArchive(make_zip(members), tmp_path).items
    assert item["caption"] == "deep"


def test_metadata_lines_join_their_members(tmp_path: Path) -> None:
    full = {"file": "b/2.png", "id": "two", "caption": "笑", "tags": ["x", "y"], "metadata": {"k": [1, None]}}
    members = {"b/2.png": PNG, "1.png": PNG, "3.png": PNG}
    lines = captions({"file": "./1.png", "caption": "old"}, full, {"file": "1.png", "caption": "new", "other": 1}, b"")
    for number, pack in enumerate((make_zip, make_tar)):
        for top in ("", "gallery/"):
            folder = tmp_path / f"{number}{bool(top)}"
            folder.mkdir()
            packed = {top + name: data for name, data in (members | {"metadata.jsonl": lines}).items()}
            two, one, three = ExpandedArchive(pack(packed), folder).items
            assert {name: two[name] for name in ("id", "caption", "tags", "metadata")} == {
                name: full[name] for name in ("id", "caption", "tags", "metadata")
            }
            assert (one["caption"], one["id"], three["caption"]) == ("new", None, None)


BAD_LINES: list[Any] = [
    {"file": "a.png", "caption": {}},
    {"file": "a.png", "id": ["x"]},
    {"file": "a.png", "tags": {"x": 1}},
    {"file": "a.png", "metadata": {"x": "\ud800"}},
    b'{"file": "a.png", "metadata": {"x": 1e999}}',
]


@pytest.mark.parametrize("line", BAD_LINES, ids=repr)
def test_what_a_line_says_wrongly_costs_that_field_alone(line: Any, tmp_path: Path) -> None:
    found = ExpandedArchive(make_zip({"a.png": PNG, "metadata.jsonl": captions(line)}), tmp_path)
    (item,) = found.items
    assert item["error"] is item["caption"] is item["id"] is item["tags"] is item["metadata"] is None
    assert "line 1 of metadata.jsonl" in item["warnings"][0]["detail"]


def test_values_of_other_types_are_read_as_tables_do(tmp_path: Path) -> None:
    lines = captions({"file": "a.png", "caption": 5, "id": 12.0, "tags": "x, y", "metadata": [1], "licence": "cc0"})
    (item,) = ExpandedArchive(make_zip({"a.png": PNG, "metadata.jsonl": lines}), tmp_path).items
    assert (item["caption"], item["id"], item["tags"]) == ("5", "12", ["x", "y"])
    assert item["metadata"] == {"metadata": [1], "licence": "cc0"}


HUGGING_FACE = b"".join(
    json.dumps({"file_name": f"{n}.png", "text": f"caption {n}", "license": "cc0"}).encode() + b"\n" for n in range(3)
)


@pytest.mark.parametrize("top", ["", "train/", "data/train/"])
def test_an_imagefolder_of_hugging_face_has_captions_and_metadata(top: str, tmp_path: Path) -> None:
    members = {f"{top}{n}.png": PNG + bytes([n]) for n in range(3)} | {f"{top}metadata.jsonl": HUGGING_FACE}
    found = ExpandedArchive(make_zip(members), tmp_path)
    assert [item["caption"] for item in found.items] == ["caption 0", "caption 1", "caption 2"]
    assert all(item["metadata"] == {"license": "cc0"} for item in found.items)


def test_a_metadata_csv_is_read_like_a_table(tmp_path: Path) -> None:
    table = "file_name;text;stars;zip\r\n0.png;grün;4.5;01230\r\n".encode("cp1252")
    found = ExpandedArchive(make_zip({"train/0.png": PNG, "train/metadata.csv": table}), tmp_path)
    assert found.items[0]["caption"] == "grün"
    assert found.items[0]["metadata"] == {"stars": 4.5, "zip": "01230"}
    other = make_zip({"0.png": PNG, "metadata.csv": b"a,b\n1,2\n"})
    (tmp_path / "other").mkdir()
    assert ExpandedArchive(other, tmp_path / "other").left_out.kinds == {".csv": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"{not json",
        b"\xff\xfa\xfb\xfc",
        b"[1]",
        b"5",
        b"{}",
        b'{"file": 5}',
        b'{"file": ""}',
        b"[" * 100_000,
        b'{"file": "gone.png"}',
    ],
    ids=lambda line: repr(line[:16]),
)
def test_an_unreadable_metadata_line_is_an_item_of_its_own(line: bytes, tmp_path: Path) -> None:
    found = ExpandedArchive(
        make_zip({"metadata.jsonl": captions(line, {"file": "a.png", "id": "x"}), "a.png": PNG}), tmp_path
    )
    assert found.items[0]["id"] == "x"
    assert found.items[1]["name"] == "metadata.jsonl"
    assert found.items[1]["error"]["code"] in ("validation", "not_found")


def test_thousands_of_bad_lines_become_a_few_items(tmp_path: Path) -> None:
    lines = captions(*[b"x"] * 3_000, *({"file": f"{n}.png"} for n in range(3_000)))
    found = ExpandedArchive(make_zip({"a.png": PNG, "metadata.jsonl": lines}), tmp_path)
    assert len(found.items) < 30
    assert "5,980 more" in found.items[-1]["error"]["detail"]
