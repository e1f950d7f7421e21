from __future__ import annotations

from pathlib import Path

from app.service.snapshots import list_folders, remove_other_snapshots, snapshot_folder

OLD, NEW, GONE = "0" * 16, "1" * 16, "2" * 16


def make(folder: Path) -> Path:
    (folder / "default" / "images").mkdir(parents=True)
    (folder / "efforts.json").write_text("{}")
    return folder


def test_only_the_spaces_that_serve_and_fill_keep_their_snapshots(tmp_path: Path) -> None:
    root = make(tmp_path / "snapshots")
    new, gone = (make(snapshot_folder(root, space)) for space in (NEW, GONE))
    assert remove_other_snapshots(root, OLD, NEW) == root
    assert sorted(list_folders(root)) == [root, new]
    assert (root / "default").is_dir()
    assert not gone.exists()
    assert remove_other_snapshots(root, NEW, None) == new
    assert [path.name for path in root.iterdir()] == [new.name]
    assert (new / "default").is_dir()


def test_a_new_data_directory_has_its_snapshots_at_the_top(tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    assert remove_other_snapshots(root, OLD, None) == root
    assert not root.exists()
