"""Folders of this machine: only those that are listed, and only plain files in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.core.errors import ImageTooLarge, UrlUnreachable, Validation
from app.sources.base import SourcePolicy
from app.sources.folder import copy_item
from app.sources.local_files import AllowedFolders, copy_file, file_tag, path_to_text, walk_files


@pytest.fixture
def album(tmp_path: Path) -> Path:
    album = tmp_path / "album"
    for name in (
        "b.PNG",
        "a.jpg",
        "notes.txt",
        ".hidden.png",
        "deep/er/c.webp",
        ".git/d.png",
        "@eaDir/a.jpg",
        "x.lrdata/a.jpg",
        "all.zip",
    ):
        path = album / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return album


def test_pictures_are_found_in_order_without_the_hidden_and_without_following_links(album: Path) -> None:
    (album / "outside").symlink_to("/", target_is_directory=True)
    names = [str(path.relative_to(album)) for path in walk_files(album)]
    assert names == ["a.jpg", "b.PNG", "deep/er/c.webp"]


def test_a_folder_below_a_listed_one_may_be_read(album: Path) -> None:
    roots = AllowedFolders.parse(f"/nowhere:{album}")
    assert roots.resolve_folder(str(album)) == album
    assert roots.resolve_folder(f"{album}/deep/../deep//er/") == album / "deep" / "er"


@pytest.mark.parametrize(
    "path", ["", "deep", "/", "/etc", "{}/..", "{}/../album-2", "{}/a.jpg", "{}/link", "{}/\0", "{}/\ud800"]
)
def test_any_other_may_not_and_nothing_is_told_of_it(path: str, album: Path) -> None:
    album.with_name("album-2").mkdir()
    (album / "link").symlink_to("/etc", target_is_directory=True)
    with pytest.raises(Validation, match="may not read this folder, or there is none"):
        AllowedFolders.parse(str(album)).resolve_folder(path.format(album))
    with pytest.raises(Validation):
        AllowedFolders.parse("").resolve_folder(str(album))


def test_the_data_directory_is_no_folder_of_pictures(album: Path) -> None:
    (album / "data" / "media").mkdir(parents=True)
    (album / "data" / "media" / "a.jpg").write_bytes(b"x")
    (album / "link").symlink_to(album / "data")
    folders = AllowedFolders.parse(str(album), album / "link")
    assert folders.resolve_file(f"{album}/a.jpg")
    for path in ("data", "data/media", "link", "link/media"):
        with pytest.raises(Validation):
            folders.resolve_folder(f"{album}/{path}")
    with pytest.raises(Validation):
        folders.resolve_file(f"{album}/data/media/a.jpg")
    assert folders.find_tag(album / "a.jpg") == file_tag(album / "a.jpg")
    assert folders.find_tag(album / "data" / "media" / "a.jpg") is None


def test_a_folder_that_becomes_a_link_after_it_was_checked_leads_nowhere(album: Path, tmp_path: Path) -> None:
    checked = AllowedFolders.parse(str(album)).resolve_folder(f"{album}/deep/er")
    secret = tmp_path / "secret" / "er"
    secret.mkdir(parents=True)
    (secret / "c.webp").write_bytes(b"secret")
    (album / "deep").rename(album / "was")
    (album / "deep").symlink_to(tmp_path / "secret")
    with pytest.raises(UrlUnreachable):
        copy_file(checked / "c.webp", tmp_path / "copy", 10)
    assert not (tmp_path / "copy").exists()


def test_a_listed_folder_is_an_absolute_path() -> None:
    with pytest.raises(ValueError, match="photos is not an absolute path"):
        AllowedFolders.parse("/a:photos")


def test_a_tag_changes_with_the_file(album: Path) -> None:
    path = album / "a.jpg"
    first = file_tag(path)
    assert file_tag(path) == first
    path.write_bytes(b"xy")
    second = file_tag(path)
    os.utime(path, ns=(1, 1))
    assert len({first, second, file_tag(path)}) == 3
    assert file_tag(album) is None
    assert file_tag(album / "gone") is None


def test_a_copy_has_the_bytes_and_the_tag(album: Path, tmp_path: Path) -> None:
    assert copy_file(album / "a.jpg", tmp_path / "copy", 1) == file_tag(album / "a.jpg")
    assert (tmp_path / "copy").read_bytes() == b"x"


def test_what_is_no_plain_file_or_too_large_is_not_copied(album: Path, tmp_path: Path) -> None:
    os.mkfifo(album / "pipe.png")
    (album / "link.png").symlink_to("/etc/hostname")
    for name in ("pipe.png", "link.png", "deep", "gone.png"):
        with pytest.raises(UrlUnreachable):
            copy_file(album / name, tmp_path / "copy", 10)
    with pytest.raises(ImageTooLarge):
        copy_file(album / "a.jpg", tmp_path / "copy", 0)


def test_a_name_that_is_no_utf8_has_a_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"/a/\xff.png"))
    assert path_to_text(path) == "/a/\\xff.png"
    path_to_text(path).encode()


def test_an_error_does_not_tell_what_is_elsewhere(album: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    policy = SourcePolicy(AllowedFolders((album,)))
    errors = [
        copy_item({"name": "a", "path": str(path)}, tmp_path / "copy", policy)["error"]
        for path in (tmp_path / "private" / "a.jpg", tmp_path / "nothing" / "a.jpg", Path("/etc/passwd"))
    ]
    assert errors[0] == errors[1] == errors[2]
    gone = copy_item({"name": "a", "path": str(album / "gone" / "a.jpg")}, tmp_path / "copy", policy)["error"]
    assert gone["code"] == "url_unreachable"


def test_folders_of_collections_are_parsed() -> None:
    bound = AllowedFolders.parse_bound("a=/1:b=/2:a=/3=4:", Path("/data"))
    assert {name: [str(path) for path in one.paths] for name, one in bound.items()} == {
        "a": ["/1", "/3=4"],
        "b": ["/2"],
    }
    assert bound["a"].data_dir == Path("/data")
    for wrong in ("/1", "a=b", "a="):
        with pytest.raises(ValueError, match=r"is not written COLLECTION=FOLDER|is not an absolute path"):
            AllowedFolders.parse_bound(wrong)
