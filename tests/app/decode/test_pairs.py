from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ArchiveCorrupt, SightlineError, Validation
from app.decode import pairs
from app.decode.pairs import list_pairs


def read(path: Path, content: str | bytes, split: str = "test") -> list[Any]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = path.with_name("out")
    list_pairs(path, path.suffix, out, split)
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_tables_of_every_form_are_the_same_pairs(tmp_path: Path) -> None:
    expected = [["a.jpg", ["a red car"]], ["b.jpg", ["一只青蛙"]]]
    assert read(tmp_path / "set.csv", "picture,text\na.jpg,a  red car\nb.jpg,一只青蛙\n") == expected
    assert read(tmp_path / "set.tsv", "Text\tImage\na red car\ta.jpg\n一只青蛙\tb.jpg\n") == expected
    flickr = "image_name| comment_number| comment\na.jpg| 0| a red car\nb.jpg| 0| 一只青蛙\n"
    assert read(tmp_path / "results.csv", flickr) == expected
    rows = [{"picture": "a.jpg", "text": "a red car"}, {"id": "b.jpg", "captions": ["一只青蛙", " "]}]
    assert read(tmp_path / "set.jsonl", "".join(json.dumps(row) + "\n" for row in rows)) == expected
    assert read(tmp_path / "set.json", json.dumps(rows)) == expected


def karpathy(*splits: str) -> dict[str, Any]:
    images = [
        {
            "filepath": "val2014",
            "sentids": [n],
            "filename": f"{n}.jpg",
            "split": split,
            "sentences": [{"tokens": ["a"], "raw": f"a car {n}"}, {"raw": "a ] , { red"}],
        }
        for n, split in enumerate(splits)
    ]
    return {"images": images, "dataset": "coco"}


def test_karpathys_file_gives_the_pictures_of_one_split(tmp_path: Path) -> None:
    text = json.dumps(karpathy("train", "test", "restval", "test"), indent=1)
    assert read(tmp_path / "dataset_coco.json", text) == [
        ["val2014/1.jpg", ["a car 1", "a ] , { red"]],
        ["val2014/3.jpg", ["a car 3", "a ] , { red"]],
    ]
    path = tmp_path / "dataset_coco.json"
    assert list_pairs(path, ".json", tmp_path / "out", "val") == {"train": 1, "test": 2, "restval": 1}
    assert (tmp_path / "out").read_text() == ""


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("set.csv", "colour,size\nred,3\n", "no column of the set names pictures, among colour, size"),
        ("set.csv", "picture,size\na.jpg,3\n", "no column of the set names texts"),
        ("set.txt", "a.jpg a car\n", "a set of pairs is one of .csv"),
        ("set.json", '{"annotations": []}', "neither a list of pairs"),
        ("set.json", b"\xff\xfe\x00", "not JSON in UTF-8"),
        ("set.jsonl", '[{"picture": "a", "text": "b"}]', "one JSON list"),
    ],
)
def test_what_is_no_set_is_refused(tmp_path: Path, name: str, content: str | bytes, error: str) -> None:
    with pytest.raises(Validation, match=error):
        read(tmp_path / name, content)


@pytest.mark.parametrize("content", ['{"images": [{"split": "te', '{"images": [', '[{"picture": "a"} x'])
def test_json_that_is_cut_off_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ArchiveCorrupt, match="cut off or damaged"):
        read(tmp_path / "set.json", content)


def test_rows_without_picture_or_text_are_named(tmp_path: Path) -> None:
    rows = [
        '{"picture": "", "text": "a"}',
        '{"picture": "a.jpg", "text": ""}',
        "no json",
        '{"picture": [1], "text": "b"}',
    ]
    lines = read(tmp_path / "set.jsonl", "\n".join([*rows, '{"picture": 7, "text": 3.5}', '{"picture": true}']))
    assert lines == [
        {"error": "row 1: it names no picture"},
        {"error": "row 2: a.jpg has no text"},
        {"error": "row 3: the row is not JSON in UTF-8"},
        {"error": "row 4: it names no picture"},
        ["7", ["3.5"]],
        {"error": "row 6: it names no picture"},
    ]
    assert read(tmp_path / "set.json", "[3]") == [{"error": "row 1: it is no JSON object"}]


def test_the_limits_of_a_set_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Validation, match="more than 30,000 pairs, which is the limit"):
        read(tmp_path / "set.csv", "id,text\n" + "".join(f"{n},a car\n" for n in range(30_001)))
    monkeypatch.setattr(pairs, "MAX_JSON_BYTES", 5)
    with pytest.raises(SightlineError, match="may have 5 bytes"):
        read(tmp_path / "set.json", "[      ]")
    ((_, (text,)),) = read(tmp_path / "set.jsonl", json.dumps({"id": 1, "text": "x" * 2_000}))
    assert len(text) == pairs.MAX_TEXT_CHARS
