from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.core.errors import StartupError
from app.core.types import Status
from app.storage.blobs import remove_path
from app.storage.library import Library
from app.storage.tables import embeddings
from app.storage.verify import REMEDIES, Fault, find_faults
from tests.support.makers import FINGERPRINT, SPACE, VECTOR, add, claim, finish
from tests.support.pictures import picture


@pytest.fixture
def filled_library(library: Library) -> Library:
    for colour in ("red", "blue"):
        add(library, picture(colour), id=colour)
    for lease in claim(library.database):
        finish(library.database, lease)
    add(library, picture("green"), id="waiting")
    library.put_texts("default", FINGERPRINT, [("t", "a text", {})], [VECTOR])
    return library


def summarise(faults: list[Fault]) -> set[tuple[str, str]]:
    return {(what, which) for what, which, _ in faults}


def path_of(library: Library, id: str) -> Path:
    return library.blobs.path(library.get("default", id).sha256)


def test_a_directory_in_which_everything_agrees_has_no_faults(filled_library: Library, tmp_path: Path) -> None:
    assert find_faults(tmp_path) == []


def test_a_lost_file_is_a_fault_of_its_picture(filled_library: Library, tmp_path: Path) -> None:
    path = path_of(filled_library, "red")
    remove_path(path)
    assert find_faults(tmp_path) == [("blob_missing", "default/red", f"{path.relative_to(tmp_path)} is gone")]


def test_an_altered_file_is_a_fault_of_its_picture(filled_library: Library, tmp_path: Path) -> None:
    path = path_of(filled_library, "blue")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    remove_path(path)
    path.write_bytes(content)
    assert summarise(find_faults(tmp_path)) == {("blob_altered", "default/blue")}


def test_files_that_nothing_uses_are_faults_once_no_server_can_be_writing_them(
    filled_library: Library, tmp_path: Path
) -> None:
    blobs = filled_library.blobs
    image, thumbnail = blobs.path("ab" * 32), blobs.thumbnail_path("cd" * 32, "jpeg")
    half = thumbnail.with_name(f".{thumbnail.name}.1.tmp")
    upload = filled_library.create_upload_dir() / "1"
    finished, unfinished = [image, thumbnail], [half, upload]
    for path in finished + unfinished:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    orphans = {("orphan", str(path.relative_to(tmp_path))) for path in finished}
    assert summarise(find_faults(tmp_path)) == orphans
    for path in (half, upload, upload.parent):
        os.utime(path, (0, 0))
    assert summarise(find_faults(tmp_path)) == orphans | {
        ("orphan", str(path.relative_to(tmp_path))) for path in (half, upload.parent)
    }
    blobs.delete("cd" * 32)
    assert filled_library.collect_garbage(0.0, lambda: False) == 2
    assert find_faults(tmp_path) == []


def test_rows_without_vectors_and_vectors_without_rows_are_faults(filled_library: Library, tmp_path: Path) -> None:
    assert filled_library.get("default", "red").status is Status.READY
    key = filled_library.get("default", "red").key

    def work(c: object) -> None:
        embeddings.remove(c, "images", key)  # type: ignore[arg-type]
        embeddings.save_space(c, SPACE)  # type: ignore[arg-type]
        embeddings.add(c, "default", FINGERPRINT, "texts", 999, VECTOR)  # type: ignore[arg-type]

    filled_library.database.write(work)
    assert summarise(find_faults(tmp_path)) == {("no vector", "default/red"), ("no row", "texts 999")}


def test_every_fault_has_a_remedy_and_following_it_helps(filled_library: Library, tmp_path: Path) -> None:
    """The bytes of an upload take the place of those that were altered or removed."""
    assert set(REMEDIES) == {"database", "blob_missing", "blob_altered", "orphan", "no vector", "no row", "head"}
    remove_path(path_of(filled_library, "red"))
    path_of(filled_library, "blue").write_bytes(b"other")
    assert len(find_faults(tmp_path)) == 2
    for colour in ("red", "blue"):
        assert add(filled_library, picture(colour), id=colour).duplicate
    assert find_faults(tmp_path) == []


def test_where_there_is_no_data_directory_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no data directory"):
        find_faults(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
