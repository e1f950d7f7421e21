from __future__ import annotations

import numpy as np
import pytest

from app.core.types import Target
from app.encoder.protocol import normalise
from app.search import heads as module
from app.search.heads import Head, HeadCache
from app.storage.database import Database
from app.storage.tables import embeddings, heads
from tests.support.lessons import ENCODER

SPACE = ENCODER.space.fingerprint
RNG = np.random.default_rng(0)
MATRIX = RNG.standard_normal((60, 60)).astype(np.float32)
VECTOR = normalise(RNG.standard_normal((1, 60)))[0]


def save(database: Database, matrix: np.ndarray[tuple[int, ...], np.dtype[np.float32]], space: str = SPACE) -> str:
    """A head that the default collection uses; returns its id."""

    def work(c: object) -> str:
        id = heads.save(c, "default", space, matrix.tobytes(), {}, maps_pictures=True)  # type: ignore[arg-type]
        heads.use(c, "default", id)  # type: ignore[arg-type]
        return id

    database.write(lambda c: embeddings.save_space(c, ENCODER.space))
    return database.write(work)


def test_words_go_through_the_matrix_and_pictures_through_its_transpose() -> None:
    head = Head("id", MATRIX)
    assert np.allclose(head.map_query(VECTOR, "texts", "images"), normalise(VECTOR[None] @ MATRIX)[0])
    assert np.allclose(head.map_query(VECTOR, "images", "texts"), normalise(VECTOR[None] @ MATRIX.T)[0])
    assert np.allclose(head.map_texts(VECTOR[None])[0], head.map_query(VECTOR, "texts", "images"))


@pytest.mark.parametrize(("kind", "target"), [("texts", "texts"), ("images", "images"), (None, "images")])
def test_queries_of_the_kind_that_they_look_for_stay(kind: Target | None, target: Target) -> None:
    head = Head("id", MATRIX)
    assert not head.is_for(kind, target)
    assert head.map_query(VECTOR, kind, target) is VECTOR


def test_pictures_stay_where_the_transposed_map_did_not_help() -> None:
    head = Head("id", MATRIX, maps_pictures=False)
    assert head.map_query(VECTOR, "images", "texts") is VECTOR
    assert head.is_for("texts", "images")


def test_a_collection_has_the_head_that_it_uses_now(database: Database) -> None:
    cache = HeadCache(database, SPACE)
    assert cache.find("default") == (None, False)
    first, second = save(database, MATRIX), save(database, 2 * MATRIX)
    found = cache.get("default")
    assert found is not None
    assert (found.id, found.maps_pictures) == (second, True)
    assert np.array_equal(found.matrix, 2 * MATRIX)
    assert cache.get("default") is found
    database.write(lambda c: heads.use(c, "default", first))
    assert cache.get("default").id == first  # type: ignore[union-attr]
    database.write(lambda c: heads.delete(c, first))
    assert cache.find("default") == (None, False)
    assert cache.find("none") == (None, False)


def test_a_head_of_another_space_is_inactive(database: Database) -> None:
    save(database, MATRIX)
    assert HeadCache(database, "another").find("default") == (None, True)


def test_few_matrices_stay_in_memory(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED", 1)
    cache = HeadCache(database, SPACE)
    for n in range(3):
        save(database, (n + 1) * MATRIX)
        assert cache.get("default") is not None
    assert len(cache._cached) == 1
