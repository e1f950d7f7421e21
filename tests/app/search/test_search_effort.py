from __future__ import annotations

from pathlib import Path

import pytest

from app.search.recall import NAME, Efforts


def test_what_was_found_is_there_after_a_restart_for_the_same_space_alone(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    efforts = Efforts(folder, "space")
    assert efforts.get("default", "images") is None
    efforts.put("default", "images", 2)
    efforts.put("default", "images", 3)
    efforts.put("birds", "texts", 1)
    again = Efforts(folder, "space")
    assert (again.get("default", "images"), again.get("birds", "texts"), again.get("birds", "images")) == (3, 1, None)
    assert Efforts(folder, "other").get("default", "images") is None
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_a_dropped_collection_leaves_nothing(tmp_path: Path) -> None:
    efforts = Efforts(tmp_path, "space")
    for collection in ("birds", "birds-of-prey"):
        efforts.put(collection, "images", 2)
    efforts.forget("birds")
    again = Efforts(tmp_path, "space")
    assert (again.get("birds", "images"), again.get("birds-of-prey", "images")) == (None, 2)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "[]",
        "{",
        '{"space": "space"}',
        '{"space": "space", "efforts": [1]}',
        '{"space": "space", "efforts": {"default/images": "2"}}',
        '{"space": "space", "efforts": {"default/images": 65}}',
        '{"space": "space", "efforts": {"default/images": -1}}',
        '{"space": "space", "efforts": {"default/images": true}}',
        "[" * 100_000,
    ],
)
def test_a_file_that_says_nothing_of_use_is_left_alone(said: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(said)
    efforts = Efforts(tmp_path, "space")
    assert efforts.get("default", "images") is None
    efforts.put("default", "images", 4)
    assert Efforts(tmp_path, "space").get("default", "images") == 4


def test_a_folder_that_cannot_be_written_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    efforts = Efforts(tmp_path / "file", "space")
    efforts.put("default", "images", 4)
    assert efforts.get("default", "images") == 4
