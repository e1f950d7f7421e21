"""The demo's files as they ship."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from training.gallery import DEMO, order_members
from training.hands import HANDS


@pytest.fixture(scope="module")
def gallery() -> zipfile.ZipFile:
    return zipfile.ZipFile(DEMO / "gallery.zip")


def test_gallery_is_large_in_number_and_small_in_bytes(gallery: zipfile.ZipFile) -> None:
    assert len(gallery.namelist()) > 1_500
    assert (DEMO / "gallery.zip").stat().st_size <= 12_000_000


def test_every_picture_has_one_row_of_metadata(gallery: zipfile.ZipFile) -> None:
    rows = [json.loads(line) for line in gallery.read("metadata.jsonl").splitlines()]
    names = [name for name in gallery.namelist() if name != "metadata.jsonl"]
    assert sorted(row["file"] for row in rows) == sorted(names)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["caption"]
        assert row["tags"]
        assert row["metadata"]["emoji"]


def test_clean_pictures_come_last_so_that_the_page_lists_them_first(gallery: zipfile.ZipFile) -> None:
    rows = [json.loads(line) for line in gallery.read("metadata.jsonl").splitlines()]
    names = [name for name in gallery.namelist() if name != "metadata.jsonl"]
    assert names == order_members(rows)
    styles = {row["file"]: row["metadata"]["style"] for row in rows}
    assert {styles[name] for name in names[-240:]} == {"none"}


def test_pictures_open_and_are_different(gallery: zipfile.ZipFile) -> None:
    names = [name for name in gallery.namelist() if name.endswith(".webp")]
    assert len({gallery.getinfo(name).CRC for name in names}) == len(names)
    for name in names[::100]:
        picture = Image.open(io.BytesIO(gallery.read(name)))
        picture.load()
        assert picture.size == (256, 256)


def test_searches_shown_to_visitors_have_pictures(gallery: zipfile.ZipFile) -> None:
    captions = " | ".join(json.loads(line)["caption"] for line in gallery.read("metadata.jsonl").splitlines())
    assert "a red car" in captions
    assert "a cat next to a birthday cake" in captions


def test_other_hands_draw_a_quarter_and_none_of_them_is_held_out(gallery: zipfile.ZipFile) -> None:
    rows = [json.loads(line)["metadata"] for line in gallery.read("metadata.jsonl").splitlines()]
    hands = Counter(hand for row in rows for hand in row["drawn_by"])
    assert hands.keys() == {"noto", *(hand.name for hand in HANDS if hand.is_emoji and not hand.is_held_out)}
    alone = [row["drawn_by"] for row in rows if row["kind"] == "single"]
    assert 0.2 <= sum(hand != ["noto"] for hand in alone) / len(alone) <= 0.3
    assert all(row["drawn_by"] == ["noto"] for row in rows if row["kind"] == "wish")


def test_every_picture_shows_something(gallery: zipfile.ZipFile) -> None:
    for name in gallery.namelist():
        if name.endswith(".webp"):
            pixels = np.asarray(Image.open(io.BytesIO(gallery.read(name))).convert("RGB"))
            assert pixels.std(axis=(0, 1)).max() > 7, name


def test_texts_are_distinct_and_in_both_languages() -> None:
    rows = [json.loads(line) for line in (DEMO / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 500
    assert len({row["text"] for row in rows}) == len(rows) == len({row["id"] for row in rows})
    assert {row["metadata"]["language"] for row in rows} == {"en", "zh"}
