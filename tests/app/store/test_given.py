from __future__ import annotations

from app.store import embeddings, given, images
from app.store.database import Database
from tests.app.makers import FINGERPRINT, VECTOR, claim, finish, insert, new


def kept(database: Database, *keys: int) -> dict[int, bytes]:
    return database.read(lambda c: given.vectors(c, FINGERPRINT, keys))


def test_a_given_vector_is_kept_until_the_picture_is_ready(database: Database) -> None:
    first, second = insert(database, 1), insert(database, 2)
    database.write(lambda c: given.keep(c, first.key, FINGERPRINT, b"old"))
    database.write(lambda c: given.keep(c, first.key, FINGERPRINT, VECTOR))
    database.write(lambda c: given.keep(c, second.key, "another space", VECTOR))
    assert kept(database, first.key, second.key, 99) == {first.key: VECTOR}
    (lease,) = claim(database, limit=1)
    finish(database, lease, VECTOR)
    assert kept(database, first.key) == {}
    assert database.read(lambda c: embeddings.vectors(c, "images", [first.key])) == {first.key: VECTOR}


def test_a_given_vector_goes_with_its_picture_or_with_its_bytes(database: Database) -> None:
    first, second = insert(database, 1, "a"), insert(database, 2)
    for row in (first, second):
        database.write(lambda c, row=row: given.keep(c, row.key, FINGERPRINT, VECTOR))  # type: ignore[misc]
    database.write(lambda c: images.update(c, first.key, "a caption", [], {}))
    assert len(kept(database, first.key, second.key)) == 2
    database.write(lambda c: images.add(c, "default", new(3, "a"), None, True))
    database.write(lambda c: images.delete(c, second.key))
    assert kept(database, first.key, second.key) == {}
