from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.core.errors import Overloaded, Validation
from app.decode.pool import DecodePool
from app.sources import pairs
from app.sources.local_files import AllowedFolders
from app.sources.pairs import PairSet, find_files, match_pairs, read_captions, read_pairs
from app.storage.database import Database
from tests.support.makers import claim, finish, insert, sha256


def fill(database: Database, *sources: str | None, caption: str | None = None) -> None:
    """Ready pictures p0, p1, … of these sources."""
    for n, source in enumerate(sources):
        insert(database, n, f"p{n}", source=source, caption=caption and caption.format(n))
    for lease in claim(database, limit=len(sources)):
        finish(database, lease)


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_a_set_is_read_in_a_child(pool: DecodePool, tmp_path: Path) -> None:
    lines = "picture,text\na.jpg,red\nb.jpg,green\na.jpg,blue\na.jpg,red\n,none\nc.jpg,red\n"
    found = read_pairs(pool, write(tmp_path / "set.csv", lines), ".csv")
    assert (found.pictures, found.texts) == (["a.jpg", "b.jpg", "c.jpg"], ["red", "green", "blue", "red", "red"])
    assert found.owners == [0, 1, 0, 0, 2]
    assert (found.bad_rows.count, found.bad_rows.names) == (1, ["row 5: it names no picture"])
    assert (found.repeated, found.shared_texts) == (1, 1)
    again = PairSet.from_json(json.loads(json.dumps(found.to_json())))
    assert again.to_json() == found.to_json()
    assert again.owners == [0, 0, 0, 1, 2]


def test_a_set_without_pairs_says_why(pool: DecodePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Validation, match=r"the set has no pairs$"):
        read_pairs(pool, write(tmp_path / "set.csv", "picture,text\n"), ".csv")
    with pytest.raises(Validation, match="no pairs: row 1: it names no picture"):
        read_pairs(pool, write(tmp_path / "set.csv", "picture,text\n,red\n"), ".csv")
    images = [{"filename": "a.jpg", "split": split, "sentences": [{"raw": "a"}]} for split in ("val", "train", "val")]
    path = write(tmp_path / "set.json", json.dumps({"images": images}))
    with pytest.raises(Validation, match=r"no pictures in the split 'test'; it has train \(1\), val \(2\)"):
        read_pairs(pool, path, ".json")
    with pytest.raises(Overloaded):
        read_pairs(pool, path, ".json", should_stop=lambda: True)
    monkeypatch.setattr(pairs, "MAX_SET_CHARS", 5)
    with pytest.raises(Validation, match="more than 5 characters"):
        read_pairs(pool, path, ".json", "val")


def test_pictures_match_by_id_digest_path_and_name(database: Database) -> None:
    fill(database, "trip/a/1.jpg", "trip/b/1.jpg", "other/x.png", "old/y.png", "new/y.png", None, "q/one.png")
    rows = ["p5", sha256(3), "b/1.jpg", "a/1.jpg", "photos/x.png", "y.png", "none.png", "c/1.jpg"]
    rows += ["r/one.png", "s/one.png"]
    found = match_pairs(database, "default", PairSet.of((name, [f"text of {name}"]) for name in rows))
    assert found.ids == ["p5", "p3", "p1", "p0", "p2"]
    assert found.pairs.pictures == rows[:5]
    assert found.pairs.texts[2] == "text of b/1.jpg"
    assert found.pairs.owners == [0, 1, 2, 3, 4]
    assert (found.unknown.count, found.unknown.names) == (5, ["y.png", "none.png", "c/1.jpg", *rows[-2:]])


def test_two_names_of_one_picture_count_once(database: Database) -> None:
    fill(database, "a.jpg")
    found = match_pairs(database, "default", PairSet.of([("p0", ["red"]), ("a.jpg", ["green"])]))
    assert (found.ids, found.pairs.texts, found.unknown.names) == (["p0"], ["red"], ["a.jpg"])


def test_captions_are_pairs(database: Database) -> None:
    with pytest.raises(Validation, match="no picture of the collection 'default' has a caption: send captions"):
        read_captions(database, "default")
    fill(database, *[None] * 12, caption="thing {}")
    insert(database, 50, "waiting", caption="not ready")
    found = read_captions(database, "default")
    assert (found.pairs.pictures, found.pairs.texts[3]) == (found.ids, "thing 3")
    assert len(found.keys) == 12
    some = read_captions(database, "default", 5)
    assert len(some.ids) == 5
    assert some.ids == read_captions(database, "default", 5).ids


def test_files_are_found_below_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "in" / "val").mkdir(parents=True)
    for name in ("in/val/a.jpg", "in/b.jpg", "out.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "out.jpg")
    asked = PairSet.of((name, ["x"]) for name in ("val/a.jpg", "val/b.jpg", "../out.jpg", "link.jpg", "none"))
    found, unknown = find_files(AllowedFolders((tmp_path,)), str(tmp_path / "in"), asked)
    assert {n: path.name for n, path in found.items()} == {0: "a.jpg", 1: "b.jpg"}
    assert unknown.names == ["../out.jpg", "link.jpg", "none"]
    with pytest.raises(Validation):
        find_files(AllowedFolders(()), str(tmp_path), asked)
