from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import ModelUnavailable
from app.core.types import EmbeddingSpace
from app.storage.database import Database
from app.storage.tables import collections, embeddings
from tests.support.makers import FINGERPRINT, SPACE


def test_a_new_directory_has_the_collection_default_without_a_space(database: Database) -> None:
    (default,) = database.read(collections.list_all)
    assert (default.name, default.space, default.description) == ("default", None, "")
    assert database.read(lambda c: collections.get(c, "default")) == default
    assert default.created_at.endswith("Z")


def test_an_unknown_collection_is_none(database: Database) -> None:
    assert database.read(lambda c: collections.get(c, "other")) is None


def test_the_first_stamp_counts_and_another_is_refused(database: Database) -> None:
    database.write(lambda c: embeddings.save_space(c, SPACE))
    for _ in range(2):
        database.write(lambda c: collections.assign_space(c, "default", FINGERPRINT))
    with pytest.raises(ModelUnavailable, match="another model"):
        database.write(lambda c: collections.assign_space(c, "default", "another"))
    (default,) = database.read(collections.list_all)
    assert default.space == FINGERPRINT


def test_a_worker_cannot_stamp_what_a_server_with_another_model_has_open(database: Database) -> None:
    other = EmbeddingSpace("small", "f" * 64, SPACE.d, SPACE.preprocessing)

    def serve(c: Any) -> None:
        embeddings.mark_served(c, SPACE)
        embeddings.save_golden(c, FINGERPRINT, b"vectors")

    database.write(serve)
    database.write(lambda c: embeddings.save_space(c, other))
    with pytest.raises(ModelUnavailable, match="belongs to another model"):
        database.write(lambda c: collections.assign_space(c, "default", other.fingerprint))
    database.write(lambda c: collections.assign_space(c, "default", FINGERPRINT))
