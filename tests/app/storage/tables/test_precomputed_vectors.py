from __future__ import annotations

from app.storage.database import Database
from app.storage.tables import embeddings, images, precomputed_vectors
from tests.support.makers import FINGERPRINT, VECTOR, claim, finish, insert, new


def find_vectors(database: Database, *keys: int) -> dict[int, bytes]:
    return database.read(lambda c: precomputed_vectors.find_vectors(c, FINGERPRINT, keys))


def test_a_precomputed_vector_is_kept_until_the_picture_is_ready(database: Database) -> None:
    first, second = insert(database, 1), insert(database, 2)
    database.write(lambda c: precomputed_vectors.store(c, first.key, FINGERPRINT, b"old"))
    database.write(lambda c: precomputed_vectors.store(c, first.key, FINGERPRINT, VECTOR))
    database.write(lambda c: precomputed_vectors.store(c, second.key, "another space", VECTOR))
    assert find_vectors(database, first.key, second.key, 99) == {first.key: VECTOR}
    (lease,) = claim(database, limit=1)
    finish(database, lease, VECTOR)
    assert find_vectors(database, first.key) == {}
    assert database.read(lambda c: embeddings.get_vectors(c, "images", [first.key])) == {first.key: VECTOR}


def test_a_precomputed_vector_is_deleted_with_its_picture_or_bytes(database: Database) -> None:
    first, second = insert(database, 1, "a"), insert(database, 2)
    for row in (first, second):
        database.write(lambda c, row=row: precomputed_vectors.store(c, row.key, FINGERPRINT, VECTOR))  # type: ignore[misc]
    database.write(lambda c: images.update(c, first.key, "a caption", [], {}))
    assert len(find_vectors(database, first.key, second.key)) == 2
    database.write(lambda c: images.add(c, "default", new(3, "a"), None, True))
    database.write(lambda c: images.delete(c, second.key))
    assert find_vectors(database, first.key, second.key) == {}
