"""What `ingest` finds on this machine, and what it says of the rest."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.cli.local_files import expand_stdin, find_files, is_missing, read_file, read_lines
from app.core.errors import ImageTooLarge
from tests.support.pictures import picture

PNG = picture("red")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "deep/er/c.webp", ".git/d.png", "@eaDir/a.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    (folder / "e.zip").write_bytes(b"PK\3\4")
    (folder / "all.tar.gz").write_bytes(b"\x1f\x8b\x08")
    (folder / "IMG.PSD").touch()
    return folder


def test_pictures_and_archives_below_a_folder_are_found_and_the_others_counted(folder: Path) -> None:
    local = find_files([folder])
    names = {file.name: file.is_archive for file in local.files}
    pictures = dict.fromkeys(("photos/a.jpg", "photos/b.PNG", "photos/deep/er/c.webp"), False)
    assert names == {**pictures, "photos/all.tar.gz": True, "photos/e.zip": True}
    assert local.failures == []
    assert local.left_out.describe() == "2 files of other kinds left out (1 .psd, 1 .txt)"


def test_what_is_excluded_is_left_out_by_name_or_by_path(folder: Path) -> None:
    names = {file.name for file in find_files([folder], ["deep", "*.tar.*", "b.*"]).files}
    assert names == {"photos/a.jpg", "photos/e.zip"}


def test_a_file_that_is_named_is_taken_whatever_it_is_called(folder: Path) -> None:
    files = find_files([folder / "notes.txt", folder / ".hidden.png"]).files
    assert [file.name for file in files] == ["notes.txt", ".hidden.png"]


def test_texts_that_a_shell_names_beside_their_pictures_belong_to_these(folder: Path) -> None:
    (folder / "a.txt").write_text("a red square")
    (file,) = find_files([folder / "a.txt", folder / "a.jpg"]).files
    assert (file.name, file.found and file.found.read_fields()) == ("a.jpg", {"caption": "a red square"})


def test_places_that_cannot_be_read_are_failures_and_cost_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "dangling.png").symlink_to("gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "sub").mkdir()
    (tmp_path / "linked").symlink_to("sub")
    (tmp_path / "sub" / "ok.png").write_bytes(PNG)
    local = find_files([tmp_path, tmp_path / "gone.jpg"])
    assert [file.path.name for file in local.files] == ["ok.png"]
    reasons = {one["name"].rpartition("/")[2]: one["error"]["detail"] for one in local.failures}
    assert reasons == {
        "dangling.png": "No such file or directory",
        "pipe.png": "it is no plain file",
        "gone.jpg": "No such file or directory",
    }
    assert {one["error"]["code"] for one in local.failures} == {"unreadable"}
    assert "linked" in local.left_out.warnings[0].detail


def test_permissions_are_told_for_each_file_and_folder(tmp_path: Path) -> None:
    for name in ("a/1.png", "half/2.png", "locked.png", "shut/3.png"):
        (tmp_path / "P" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "P" / name).write_bytes(PNG)
    for name, mode in (("half", 0o744), ("shut", 0o700), ("locked.png", 0o600)):
        (tmp_path / "P" / name).chmod(mode)
    tmp_path.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; from app.cli.local_files import find_files, read_file\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for root in sys.argv[1:]:\n"
        "    local = find_files([Path(root)])\n"
        "    failed = [(one['name'], one['error']['detail']) for one in local.failures]\n"
        "    print(sorted(file.name for file in local.files), failed)"
    )
    for parent in tmp_path.parents:
        if not parent.stat().st_mode & 0o005 and os.geteuid() == 0:
            parent.chmod(0o755)
    if os.geteuid() != 0:
        pytest.skip("only root can take rights from a process that keeps its files")
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "P"), str(tmp_path / "P" / "shut")],
        capture_output=True,
        text=True,
        check=True,
    )
    whole, shut = ran.stdout.splitlines()
    denied = "'Permission denied'"
    assert whole == f"['P/a/1.png', 'P/locked.png'] [('P/half/2.png', {denied}), ('P/shut', {denied})]"
    assert shut == f"[] [('shut', {denied})]"


def test_a_picture_is_read_within_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    assert read_file(path, len(PNG)) == PNG
    with pytest.raises(ImageTooLarge, match="SIGHTLINE_MAX_IMAGE_BYTES"):
        read_file(path, len(PNG) - 1)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "gone", 9)


def test_a_dash_stands_for_the_paths_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    given = SimpleNamespace(buffer=io.BytesIO(b"\xef\xbb\xbfone.png\r\n\nwith space.png\n\xff.png"))
    monkeypatch.setattr(sys, "stdin", given)
    assert list(expand_stdin(["first", "-", "last"])) == [
        Path(p) for p in ("first", "one.png", "with space.png", os.fsdecode(b"\xff.png"), "last")
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_windows_are_read(encoding: str) -> None:
    assert read_lines(io.BytesIO("http://a/ü\r\nb\r\n".encode(encoding))) == ["http://a/ü".encode(), b"b", b""]


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("gone")
    assert [is_missing(tmp_path / name) for name in ("gone", "dangling", "")] == [True, False, False]
    assert is_missing("")


def test_videos_are_found_where_the_server_takes_them(tmp_path: Path) -> None:
    for name in ("a.png", "b.mkv"):
        (tmp_path / name).write_bytes(PNG)
    assert {file.path.name: file.is_video for file in find_files([tmp_path]).files} == {"a.png": False, "b.mkv": True}
    without = find_files([tmp_path], videos=False)
    assert [file.path.name for file in without.files] == ["a.png"]
    assert ["SIGHTLINE_VIDEO" in one.detail for one in without.left_out.warnings] == [True]
