from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from app.core.files import (
    NotBeneath,
    atomic_write,
    beneath,
    close_to_others,
    make_dirs,
    open_beneath,
    open_nofollow,
    sha256_file,
    warn_of_wide_modes,
)


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "said.json"
    path.write_text("old")
    with atomic_write(path, durable=durable) as file:
        file.write("né")
        assert path.read_text() == "old"
    assert path.read_bytes() == "né".encode()
    assert [one.name for one in tmp_path.iterdir()] == ["said.json"]


def test_an_error_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "said.bin"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_write(path, "wb") as file:
        file.writelines([b"new", "no bytes"])
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["said.bin"]


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(b"x" * 3_000_000)
    assert sha256_file(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_each_new_folder_is_synced_in_the_one_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("app.core.files.fsync_dir", synced.append)
    make_dirs(tmp_path / "a" / "b")
    make_dirs(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    assert (tmp_path / "a" / "b").is_dir()


def test_no_link_is_followed_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    with open(tmp_path / "real" / "file", opener=open_nofollow) as file:
        assert file.read() == "x"
    for path in ("link", "folder/file", "real/gone"):
        with pytest.raises(OSError, match=r"link|directory"):
            open_nofollow(str(tmp_path / path), os.O_RDONLY)


def test_a_relative_path_is_opened_and_a_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    opened = open_nofollow("pipe", os.O_RDONLY)
    os.close(opened)


@pytest.mark.parametrize("path", ["a", "a/b", "a/../a", ".", "", "inside", "{}/a", "not-there/at/all"])
def test_what_lies_below_a_folder_is_found_without_links(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "inside").symlink_to(root / "a")
    (tmp_path / "way").symlink_to(root)
    found = beneath(tmp_path / "way", path.format(root))
    assert found.is_relative_to(root)
    assert found == Path(os.path.realpath(root / path.format(root)))


@pytest.mark.parametrize(
    "path", ["..", "a/../..", "/", "/etc/passwd", "out", "out/x", "../root-2", "\0", "a\0", "\ud800"]
)
def test_what_leads_out_of_a_folder_is_refused(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "root-2").mkdir()
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(NotBeneath):
        beneath(root, path)


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (0o700, None),
        (0o755, "mode 755): chmod -R go= "),
        (0o750, "mode 750): chmod -R go= "),
        (0o2750, None),  # the operator has chosen a group
        (0o2775, "mode 2775): chmod -R o= "),
    ],
)
def test_a_folder_that_others_may_read_is_told_of_with_the_command_that_ends_it(
    mode: int, told: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "old data"
    folder.mkdir()
    (folder / "file").touch(mode=0o666)
    folder.chmod(mode)
    warn_of_wide_modes(folder)
    if told is None:
        assert not caplog.messages
        return
    (message,) = caplog.messages
    assert told in message
    subprocess.run(message.partition(": ")[2], shell=True, check=True)
    caplog.clear()
    warn_of_wide_modes(folder)
    assert not caplog.messages
    assert not folder.stat().st_mode & 0o007


def test_files_that_others_could_lock_are_closed_to_them(tmp_path: Path) -> None:
    for name in ("lock", "db", "other"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o664)
    close_to_others(tmp_path, "lock", "db", "not-there")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("lock", "db", "other")] == [0o600, 0o600, 0o664]
    (tmp_path / "db").chmod(0o664)
    tmp_path.chmod(0o2770)  # a group that the operator has chosen
    close_to_others(tmp_path, "db")
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o660


def test_only_a_plain_file_below_a_folder_is_opened(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"x")
    (root / "link").symlink_to("file")
    (root / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(b"y")
    os.mkfifo(root / "pipe")
    for name in ("file", "link"):
        with open_beneath(root, name) as file:
            assert file.read() == b"x"
    for name in ("out", "pipe", ".", "../secret"):
        with pytest.raises((NotBeneath, IsADirectoryError)):
            open_beneath(root, name)
