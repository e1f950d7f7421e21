from __future__ import annotations

import pytest

from app.decode.left_out import MAX_KINDS, LeftOut
from app.decode.litter import is_excluded, is_litter


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "a/.hidden/b.jpg",
        "__MACOSX/a.jpg",
        "Thumbs.db",
        "a/desktop.ini",
        "@eaDir/IMG_1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "a/@EADIR/b.jpg",
        "#recycle/gone.jpg",
        "$RECYCLE.BIN/$R1.jpg",
        "System Volume Information/a.jpg",
        ".@__thumb/a.jpg",
        "@Recycle/a.jpg",
        "@Recently-Snapshot/a.jpg",
        "@tmp/a.jpg",
        "node_modules/x/logo.png",
        "lost+found/1.jpg",
        "found.000/file0001.jpg",
        "__pycache__/a.png",
        "_gsdata_/a.jpg",
        "Photos.lrdata/1/a.jpg",
        "a/My Previews.lrdata/a.jpg",
        "Mine.photoslibrary/resources/derivatives/1/a.jpg",
        "Old.aplibrary/Thumbnails/1.jpg",
        "Photo Booth Library/Thumbnails/1.jpg",
        "RECYCLER/S-1/1.jpg",
        "venv/lib/python3.11/site-packages/a.png",
        "SYNOFILE_THUMB_M.jpg",
        "a/SYNOFILE_THUMB_XL.png",
    ],
)
def test_litter_is_known_wherever_it_lies(name: str) -> None:
    assert is_litter(name)


@pytest.mark.parametrize(
    "name",
    [
        "a/b.jpg",
        "Mine.photoslibrary/originals/1/a.jpg",
        "recycle/a.jpg",
        "found.0001/a.jpg",
        "resources/derivatives/a.jpg",
        "../a.jpg",
        "thumbs/db.jpg",
        "tmp/a.jpg",
        "eaDir.jpg",
    ],
)
def test_what_only_looks_like_litter_is_none(name: str) -> None:
    assert not is_litter(name)


@pytest.mark.parametrize(
    ("pattern", "excluded"),
    [
        ("*.png", ["a.png", "b/a.png"]),
        ("b", ["b/a.png", "b/c/d.jpg"]),
        ("b/", ["b/a.png", "b/c/d.jpg"]),
        ("b/c", ["b/c/d.jpg"]),
        ("./b/*.png", ["b/a.png"]),
        ("[ab]", ["b/a.png", "b/c/d.jpg"]),
        ("c/d.jpg", []),
        ("", []),
    ],
)
def test_a_pattern_excludes_names_and_folders(pattern: str, excluded: list[str]) -> None:
    names = ["a.png", "b/a.png", "b/c/d.jpg"]
    assert [name for name in names if is_excluded(name, [pattern])] == excluded


def test_what_was_left_out_is_one_sentence() -> None:
    left_out = LeftOut()
    assert not left_out
    assert left_out.describe() == ""
    left_out.add("a/1.HEIC")
    assert left_out.describe() == "1 file of another kind left out (1 .heic)"
    for name in ("2.heic", "3.mov", "README", "x.\u202e\n"):
        left_out.add(name)
    left_out.warn("link", "b is a link")
    assert left_out.describe() == "5 files of other kinds left out (2 .heic, 1 .mov, 1 no extension, 1 other)"
    assert LeftOut.from_json(left_out.to_json()) == left_out
    for n in range(100):
        left_out.add(f"a.x{n}")
    assert len(left_out.kinds) == MAX_KINDS
    assert left_out.describe().endswith(", …)")
    other = LeftOut()
    other.merge(left_out)
    other.merge(left_out)
    assert other.kinds.total() == 210
