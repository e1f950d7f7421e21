from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from app.core.errors import StorageFull
from app.storage.blobs import BlobStore, StagedFile, remove_path
from tests.app.conftest import SmallDisk

CONTENT = b"not really a picture" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def stage_file(blobs: BlobStore, content: bytes = CONTENT) -> StagedFile:
    path = blobs.create_upload_dir() / "000001"
    path.write_bytes(content)
    return blobs.stage(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_stage_hashes_and_counts_a_file_where_it_lies(blobs: BlobStore) -> None:
    staged = stage_file(blobs)
    assert (staged.sha256, staged.bytes) == (SHA256, len(CONTENT))
    assert staged.path.read_bytes() == CONTENT
    assert not blobs.path(SHA256).exists()


def test_place_puts_the_bytes_under_their_digest_in_two_levels_of_folders(blobs: BlobStore) -> None:
    blobs.place(stage_file(blobs))
    assert blobs.path(SHA256) == blobs.root / SHA256[:2] / SHA256[2:4] / SHA256
    assert blobs.path(SHA256).read_bytes() == CONTENT
    assert blobs.has_digest(SHA256)
    assert names(blobs.path(SHA256).parent) == [SHA256]


def test_place_leaves_the_upload_where_it_was_until_its_folder_goes(blobs: BlobStore) -> None:
    staged = stage_file(blobs)
    blobs.place(staged)
    assert staged.path.read_bytes() == CONTENT
    remove_path(staged.path.parent)
    assert blobs.path(SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_place_copies_where_the_file_system_has_no_links(
    number: int, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def note(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    staged = stage_file(blobs)
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", note)
    blobs.place(staged)
    blobs.place(staged)
    folder = blobs.path(SHA256).parent
    assert names(folder) == [SHA256]
    assert blobs.has_digest(SHA256)
    assert staged.path.read_bytes() == CONTENT
    assert Path(synced[-2]).parent == folder
    assert synced[-1] == str(folder)


def test_a_copy_that_does_not_fit_leaves_nothing(small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = BlobStore(small_disk.folder)
    staged = stage_file(blobs)
    blobs._make_durable(blobs.path(SHA256).parent)

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    small_disk.fill()
    with pytest.raises(StorageFull):
        blobs.place(staged)
    assert names(blobs.path(SHA256).parent) == []


def test_place_may_be_repeated_with_the_same_file_and_with_another_of_the_same_bytes(blobs: BlobStore) -> None:
    staged = stage_file(blobs)
    blobs.place(staged)
    blobs.place(staged)
    blobs.place(stage_file(blobs))
    assert names(blobs.path(SHA256).parent) == [SHA256]
    assert blobs.path(SHA256).read_bytes() == CONTENT


def test_place_mends_a_file_that_somebody_has_altered(blobs: BlobStore) -> None:
    blobs.place(stage_file(blobs))
    remove_path(blobs.path(SHA256))
    blobs.path(SHA256).write_bytes(b"altered")
    assert not blobs.has_digest(SHA256)
    blobs.place(stage_file(blobs))
    assert blobs.has_digest(SHA256)


def test_delete_takes_the_thumbnails_of_every_size_too_and_those_of_others_stay(blobs: BlobStore) -> None:
    blobs.place(stage_file(blobs))
    other = SHA256[:-1] + ("0" if SHA256[-1] != "0" else "1")
    usual = blobs.thumbnail_path(SHA256, "png")
    usual.parent.mkdir(parents=True)
    mine = [
        usual,
        blobs.thumbnail_path(SHA256, "jpeg"),
        usual.with_stem(f"{SHA256}-64"),
        usual.with_stem(f"{SHA256}-1024"),
    ]
    for path in [*mine, blobs.thumbnail_path(other, "gif")]:
        path.write_bytes(b"small")
    blobs.delete(SHA256)
    assert names(usual.parent) == [f"{other}.webp"]
    assert not blobs.path(SHA256).exists()
    blobs.delete(SHA256)  # again: nothing happens


def test_files_are_listed_whatever_their_name_but_those_of_uploads(blobs: BlobStore) -> None:
    assert not blobs.has_files()
    blobs.place(stage_file(blobs))
    thumbnail = blobs.thumbnail_path(SHA256, "jpeg")
    thumbnail.parent.mkdir(parents=True)
    others = [blobs.path(SHA256).parent / "notes.txt", thumbnail, thumbnail.with_name(".hidden"), blobs.root / "top"]
    for path in others:
        path.write_text("x")
    stage_file(blobs, b"another")
    assert sorted(blobs.iter_files()) == sorted([blobs.path(SHA256), *others])
    assert blobs.has_files()


def test_every_upload_has_a_folder_of_its_own_on_the_disk_of_the_pictures(blobs: BlobStore) -> None:
    one, two = blobs.create_upload_dir(), blobs.create_upload_dir()
    assert one != two
    assert names(one) == []
    assert one.stat().st_dev == blobs.root.stat().st_dev


def test_discard_removes_files_and_folders_and_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x")
    for name in ("folder", "file", "nothing"):
        remove_path(tmp_path / name)
    assert names(tmp_path) == []


def test_a_full_disk_is_told_and_leaves_nothing_behind(small_disk: SmallDisk) -> None:
    blobs = BlobStore(small_disk.folder)
    staged = stage_file(blobs)
    small_disk.fill()
    with pytest.raises(StorageFull):
        blobs.place(staged)
    with pytest.raises(StorageFull):
        blobs.create_upload_dir()
    assert not blobs.has_files()
    small_disk.free()
    blobs.place(staged)
    assert blobs.has_digest(SHA256)


def test_a_folder_left_before_its_name_was_synced_is_synced_before_it_is_believed(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A picture must not be acknowledged in a folder that a power cut would take away.
    plain = os.fsync
    synced: list[str] = []

    def fail_once(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path == str(blobs.root / SHA256[:2]) and not synced:
            synced.append("failed")
            raise OSError(5, "Input/output error")
        synced.append(path)
        plain(descriptor)

    staged = stage_file(blobs)
    blobs.place(stage_file(blobs, b"other"))
    monkeypatch.setattr(os, "fsync", fail_once)
    synced.clear()
    blobs._make_durable(blobs.path(SHA256).parent.parent)
    synced.clear()
    with pytest.raises(Exception, match="cannot be written"):
        blobs.place(staged)
    assert blobs.path(SHA256).parent.is_dir()
    blobs.place(staged)
    assert synced == ["failed", str(blobs.path(SHA256).parent.parent), str(blobs.path(SHA256).parent)]
    synced[1:] = []
    blobs.place(staged)
    assert synced == ["failed", str(blobs.path(SHA256).parent)]
    other = BlobStore(blobs.root.parent)  # as after a kill
    other.place(staged)
    assert str(blobs.path(SHA256).parent.parent) in synced


def test_a_folder_made_by_another_process_since_is_synced_before_it_is_believed(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other may be killed between making and syncing it; then the power fails.
    blobs._make_durable(blobs.path(SHA256).parent.parent / "zz")
    staged = stage_file(blobs)
    blobs.path(SHA256).parent.mkdir()
    synced: list[Path] = []
    monkeypatch.setattr("app.storage.blobs.fsync_dir", synced.append)
    blobs.place(staged)
    blobs.place(staged)
    around, folder = blobs.path(SHA256).parent.parent, blobs.path(SHA256).parent
    assert synced == [around, folder, folder]


def test_nothing_is_remembered_of_what_was_deleted(blobs: BlobStore) -> None:
    blobs.place(stage_file(blobs))
    assert blobs.is_intact(SHA256)
    blobs.delete(SHA256)
    assert not blobs.is_intact(SHA256)
    assert blobs._verified == {}
