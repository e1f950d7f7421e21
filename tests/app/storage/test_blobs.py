from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from app.core.errors import BlobMissing, StorageFull
from app.storage.blobs import BlobStore, StagedFile, make_folder, remove_path, sync_folder
from tests.app.conftest import SmallDisk

CONTENT = b"not really a picture" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def media(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def upload(media: BlobStore, content: bytes = CONTENT) -> StagedFile:
    path = media.create_upload_dir() / "000001"
    path.write_bytes(content)
    return media.stage(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_save_hashes_and_counts_a_file_where_it_lies(media: BlobStore) -> None:
    saved = upload(media)
    assert (saved.sha256, saved.bytes) == (SHA256, len(CONTENT))
    assert saved.path.read_bytes() == CONTENT
    assert not media.path(SHA256).exists()


def test_place_puts_the_bytes_under_their_digest_in_two_levels_of_folders(media: BlobStore) -> None:
    media.place(upload(media))
    assert media.path(SHA256) == media.root / SHA256[:2] / SHA256[2:4] / SHA256
    assert media.path(SHA256).read_bytes() == CONTENT
    assert media.has_digest(SHA256)
    assert names(media.path(SHA256).parent) == [SHA256]


def test_place_leaves_the_upload_where_it_was_until_its_folder_goes(media: BlobStore) -> None:
    saved = upload(media)
    media.place(saved)
    assert saved.path.read_bytes() == CONTENT
    remove_path(saved.path.parent)
    assert media.path(SHA256).read_bytes() == CONTENT


def test_place_may_be_repeated_with_the_same_file_and_with_another_of_the_same_bytes(media: BlobStore) -> None:
    saved = upload(media)
    media.place(saved)
    media.place(saved)
    media.place(upload(media))
    assert names(media.path(SHA256).parent) == [SHA256]
    assert media.path(SHA256).read_bytes() == CONTENT


def test_place_mends_a_file_that_somebody_has_altered(media: BlobStore) -> None:
    media.place(upload(media))
    remove_path(media.path(SHA256))
    media.path(SHA256).write_bytes(b"altered")
    assert not media.has_digest(SHA256)
    media.place(upload(media))
    assert media.has_digest(SHA256)


def test_open_gives_the_bytes_and_says_when_they_are_gone(media: BlobStore) -> None:
    media.place(upload(media))
    with media.open(SHA256) as file:
        assert file.read() == CONTENT
    media.delete(SHA256)
    with pytest.raises(BlobMissing, match="sightline verify"):
        media.open(SHA256)
    assert not media.has_digest(SHA256)


def test_delete_takes_the_thumbnails_of_every_size_too_and_those_of_others_stay(media: BlobStore) -> None:
    media.place(upload(media))
    other = SHA256[:-1] + ("0" if SHA256[-1] != "0" else "1")
    usual = media.thumbnail_path(SHA256, "png")
    usual.parent.mkdir(parents=True)
    mine = [
        usual,
        media.thumbnail_path(SHA256, "jpeg"),
        usual.with_stem(f"{SHA256}-64"),
        usual.with_stem(f"{SHA256}-1024"),
    ]
    for path in [*mine, media.thumbnail_path(other, "gif")]:
        path.write_bytes(b"small")
    media.delete(SHA256)
    assert names(usual.parent) == [f"{other}.webp"]
    assert not media.path(SHA256).exists()
    media.delete(SHA256)  # again: nothing happens


def test_blobs_are_the_pictures_and_nothing_else(media: BlobStore) -> None:
    media.place(upload(media))
    (media.path(SHA256).parent / "notes.txt").write_text("x")
    upload(media, b"another")
    assert list(media.iter_files()) == [(SHA256, media.path(SHA256))]


def test_every_upload_has_a_folder_of_its_own_on_the_disk_of_the_pictures(media: BlobStore) -> None:
    one, two = media.create_upload_dir(), media.create_upload_dir()
    assert one != two
    assert names(one) == []
    assert one.stat().st_dev == media.root.stat().st_dev


def test_sweep_removes_what_was_abandoned_and_keeps_the_named_and_the_young(media: BlobStore) -> None:
    old, named, young = media.create_upload_dir(), media.upload_path("job", 1), media.create_upload_dir()
    named.write_bytes(b"an archive")
    (old / "000001").write_bytes(CONTENT)
    loose = media.incoming / "loose"
    loose.write_bytes(b"")
    for path in (old, named, loose):
        os.utime(path, (1_000_000, 1_000_000))
    assert media.sweep({"job-1"}, grace=3600.0) == 2
    assert set(media.incoming.iterdir()) == {named, young}
    assert media.sweep({"job-1"}, grace=3600.0) == 0


def test_discard_removes_files_and_folders_and_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x")
    for name in ("folder", "file", "nothing"):
        remove_path(tmp_path / name)
    assert names(tmp_path) == []


def test_folders_are_made_with_their_parents_and_may_be_there(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    sync_folder(tmp_path / "a")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_full_disk_is_told_and_leaves_nothing_behind(small_disk: SmallDisk) -> None:
    media = BlobStore(small_disk.folder)
    saved = upload(media)
    small_disk.fill()
    with pytest.raises(StorageFull):
        media.place(saved)
    with pytest.raises(StorageFull):
        media.create_upload_dir()
    assert list(media.iter_files()) == []
    small_disk.free()
    media.place(saved)
    assert media.has_digest(SHA256)


def test_a_folder_left_before_its_name_was_synced_is_synced_before_it_is_believed(
    media: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A picture must not be acknowledged in a folder that a power cut would take away.
    plain = os.fsync
    synced: list[str] = []

    def failing(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path == str(media.root / SHA256[:2]) and not synced:
            synced.append("failed")
            raise OSError(5, "Input/output error")
        synced.append(path)
        plain(descriptor)

    saved = upload(media)
    media.place(upload(media, b"other"))
    monkeypatch.setattr(os, "fsync", failing)
    synced.clear()
    media._make(media.path(SHA256).parent.parent)
    synced.clear()
    with pytest.raises(Exception, match="cannot be written"):
        media.place(saved)
    assert media.path(SHA256).parent.is_dir()
    media.place(saved)
    assert synced == ["failed", str(media.path(SHA256).parent.parent), str(media.path(SHA256).parent)]
    synced[1:] = []
    media.place(saved)
    assert synced == ["failed", str(media.path(SHA256).parent)]
    other = BlobStore(media.root.parent)  # as after a kill
    other.place(saved)
    assert str(media.path(SHA256).parent.parent) in synced


def test_a_folder_made_by_another_process_since_is_synced_before_it_is_believed(
    media: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other may be killed between making and syncing it; then the power fails.
    media._make(media.path(SHA256).parent.parent / "zz")
    saved = upload(media)
    media.path(SHA256).parent.mkdir()
    synced: list[Path] = []
    monkeypatch.setattr("app.storage.blobs.sync_folder", synced.append)
    media.place(saved)
    media.place(saved)
    around, folder = media.path(SHA256).parent.parent, media.path(SHA256).parent
    assert synced == [around, folder, folder]


def test_nothing_is_remembered_of_what_was_deleted(media: BlobStore) -> None:
    media.place(upload(media))
    assert media.is_intact(SHA256)
    media.delete(SHA256)
    assert not media.is_intact(SHA256)
    assert media._whole == {}
