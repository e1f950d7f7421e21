from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from app.core.errors import StartupError
from app.core.types import Status
from app.storage.blobs import remove_path
from app.storage.library import Library
from app.storage.tables import embeddings
from app.storage.verify import REMEDIES, verify
from tests.support.makers import FINGERPRINT, SPACE, VECTOR, add, claim, finish
from tests.support.pictures import picture


def told(tmp_path: Path) -> tuple[int, str]:
    out = io.StringIO()
    status = verify(tmp_path, Console(file=out, width=200))
    return status, out.getvalue()


@pytest.fixture
def filled(library: Library) -> Library:
    for colour in ("red", "blue"):
        add(library, picture(colour), id=colour)
    for lease in claim(library.database):
        finish(library.database, lease)
    add(library, picture("green"), id="waiting")
    library.put_texts("default", FINGERPRINT, [("t", "a text", {})], [VECTOR])
    return library


def test_a_directory_in_which_everything_agrees_has_no_faults(filled: Library, tmp_path: Path) -> None:
    status, out = told(tmp_path)
    assert status == 0
    assert "everything agrees" in out


def test_a_lost_file_is_listed_with_its_picture(filled: Library, tmp_path: Path) -> None:
    remove_path(filled.get_file("default", "red")[1])
    status, out = told(tmp_path)
    assert status == 1
    assert "blob_missing" in out
    assert "default/red" in out
    assert "1 faults" in out
    assert "blob_missing: upload the same file again" in out
    assert "media/" in out


def test_an_altered_file_is_listed_with_its_picture(filled: Library, tmp_path: Path) -> None:
    path = filled.get_file("default", "blue")[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    remove_path(path)
    path.write_bytes(content)
    status, out = told(tmp_path)
    assert status == 1
    assert "blob_altered" in out
    assert "default/blue" in out


def test_a_file_that_no_picture_uses_is_listed(filled: Library, tmp_path: Path) -> None:
    orphan = filled.blobs.path("ab" * 32)
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"x")
    status, out = told(tmp_path)
    assert status == 1
    assert "orphan" in out
    assert "ab" * 32 in out


def test_rows_without_vectors_and_vectors_without_rows_are_listed(filled: Library, tmp_path: Path) -> None:
    assert filled.get("default", "red").status is Status.READY
    key = filled.get("default", "red").key

    def work(c: object) -> None:
        embeddings.remove(c, "images", key)  # type: ignore[arg-type]
        embeddings.save_space(c, SPACE)  # type: ignore[arg-type]
        embeddings.add(c, "default", FINGERPRINT, "texts", 999, VECTOR)  # type: ignore[arg-type]

    filled.database.write(work)
    status, out = told(tmp_path)
    assert status == 1
    assert "no vector" in out
    assert "default/red" in out
    assert "no row" in out
    assert "texts 999" in out
    assert "no vector: `sightline reembed`" in out


def test_every_fault_has_a_way_to_mend_it(filled: Library, tmp_path: Path) -> None:
    """And following it does: the bytes of an upload take the place of those that were altered or removed."""
    assert set(REMEDIES) == {"database", "blob_missing", "blob_altered", "orphan", "no vector", "no row"}
    remove_path(filled.get_file("default", "red")[1])
    blue = filled.get_file("default", "blue")[1]
    blue.write_bytes(b"other")
    assert told(tmp_path)[0] == 1
    for colour in ("red", "blue"):
        assert add(filled, picture(colour), id=colour).duplicate
    assert told(tmp_path)[0] == 0


def test_where_there_is_no_data_directory_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no data directory"):
        verify(tmp_path / "nothing", Console(file=io.StringIO()))
    assert not (tmp_path / "nothing").exists()
