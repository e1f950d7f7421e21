"""Heads in the database: kept, chosen, verified, backed up, and gone with their collection."""

from __future__ import annotations

from pathlib import Path

from app.encoder.dummy import DummyEncoder
from app.storage.address import open_database
from app.storage.backup import create_backup, restore_backup
from app.storage.database import Database
from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings, heads
from app.storage.verify import find_faults

SPACE = DummyEncoder().space


def save(database: Database, numbers: bytes, label: str = "default") -> str:
    database.write(lambda c: embeddings.save_space(c, SPACE))
    return database.write(
        lambda c: heads.save(c, label, SPACE.fingerprint, numbers, {"gain": 0.1}, maps_pictures=False)
    )


def list_ids(database: Database) -> list[str]:
    return [head.id for head in database.read(lambda c: heads.list_all(c, "default"))]


def test_the_newest_heads_and_the_used_one_are_kept(database: Database) -> None:
    first = save(database, b"0000")
    database.write(lambda c: heads.use(c, "default", first))
    later = [save(database, f"{n:04}".encode()) for n in range(1, heads.MAX_KEPT + 4)]
    assert list_ids(database) == [*later[: -heads.MAX_KEPT - 1 : -1], first]
    (used,) = [head for head in database.read(heads.list_all) if head.is_used]
    assert (used.id, used.collection, used.model, used.d, used.figures) == (
        first,
        "default",
        "colours",
        60,
        {"gain": 0.1},
    )
    assert database.read(lambda c: heads.read_matrix(c, first)) == (b"0000", False)


def test_the_same_numbers_are_the_same_head_of_one_collection(database: Database) -> None:
    assert save(database, b"0000") == save(database, b"0000")
    assert len(list_ids(database)) == 1
    assert save(database, b"0000", "another") != save(database, b"0000")


def test_a_deleted_head_is_taken_off(database: Database) -> None:
    id = save(database, b"0000")
    database.write(lambda c: heads.use(c, "default", id))
    database.write(lambda c: heads.delete(c, id))
    assert database.read(lambda c: heads.get(c, id)) is None
    assert database.read(lambda c: collections.require(c, "default")).head is None


def test_a_deleted_collection_takes_its_heads_along(library: Library) -> None:
    database = library.database
    library.create_collection("birds", "")
    label = database.read(lambda c: collections.require(c, "birds")).label
    id = save(database, b"0000", label)
    database.write(lambda c: heads.use(c, "birds", id))
    assert library.get_collection("birds").head == id
    library.begin_deletion("birds")
    library.create_collection("birds", "another one")
    assert database.read(lambda c: heads.get(c, id)) is None
    assert database.read(heads.list_all) == []
    assert library.get_collection("birds").head is None
    library.finish_deletion(label)
    assert database.read(lambda c: list(c.execute("SELECT id FROM heads"))) == []


def test_a_backup_holds_heads_and_verify_finds_altered_and_missing_ones(tmp_path: Path) -> None:
    data, saved, restored = tmp_path / "data", tmp_path / "saved", tmp_path / "restored"
    data.mkdir(mode=0o700)
    database = open_database(data / "sightline.db")
    id, other = save(database, b"0000"), save(database, b"1111")
    database.write(lambda c: heads.use(c, "default", id))
    database.close()
    create_backup(data, saved)
    restore_backup(restored, saved)
    assert find_faults(restored) == []
    database = open_database(restored / "sightline.db")
    assert database.read(lambda c: heads.read_matrix(c, id)) == (b"0000", False)

    def damage(c: Connection) -> None:
        c.execute("UPDATE heads SET matrix = x'00' WHERE id = ?", (other,))
        c.execute("DELETE FROM heads WHERE id = ?", (id,))

    database.write(damage)
    database.close()
    assert find_faults(restored) == [
        ("head", f"default/{other}", "its numbers are altered"),
        ("head", f"default/{id}", "it is gone"),
    ]
