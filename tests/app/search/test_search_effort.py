from __future__ import annotations

from pathlib import Path

import pytest

from app.search.recall import FILE_NAME, SearchEffortStore


def test_what_was_found_is_there_after_a_restart_for_the_same_space_alone(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    efforts = SearchEffortStore(folder, "space")
    assert efforts.get("default", "images") is None
    efforts.put("default", "images", 2)
    efforts.put("default", "images", 3)
    efforts.put("birds", "texts", 1)
    again = SearchEffortStore(folder, "space")
    assert (again.get("default", "images"), again.get("birds", "texts"), again.get("birds", "images")) == (3, 1, None)
    assert SearchEffortStore(folder, "other").get("default", "images") is None
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]


def test_a_dropped_collection_leaves_nothing(tmp_path: Path) -> None:
    efforts = SearchEffortStore(tmp_path, "space")
    for collection in ("birds", "birds-of-prey"):
        efforts.put(collection, "images", 2)
    efforts.forget_collection("birds")
    again = SearchEffortStore(tmp_path, "space")
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
    (tmp_path / FILE_NAME).write_text(said)
    efforts = SearchEffortStore(tmp_path, "space")
    assert efforts.get("default", "images") is None
    efforts.put("default", "images", 4)
    assert SearchEffortStore(tmp_path, "space").get("default", "images") == 4


def test_a_folder_that_cannot_be_written_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    efforts = SearchEffortStore(tmp_path / "file", "space")
    efforts.put("default", "images", 4)
    assert efforts.get("default", "images") == 4
