from __future__ import annotations

import pytest

from app.errors import ModelUnavailable
from app.store import collections, embeddings
from app.store.database import Database
from tests.app.makers import FINGERPRINT, SPACE


def test_a_new_directory_has_the_collection_default_without_a_space(database: Database) -> None:
    (default,) = database.read(collections.every)
    assert (default.name, default.space, default.description) == ("default", None, "")
    assert database.read(lambda c: collections.get(c, "default")) == default
    assert default.created_at.endswith("Z")


def test_an_unknown_collection_is_none(database: Database) -> None:
    assert database.read(lambda c: collections.get(c, "other")) is None


def test_the_first_stamp_counts_and_another_is_refused(database: Database) -> None:
    database.write(lambda c: embeddings.remember(c, SPACE))
    for _ in range(2):
        database.write(lambda c: collections.stamp(c, "default", FINGERPRINT))
    with pytest.raises(ModelUnavailable, match="another model"):
        database.write(lambda c: collections.stamp(c, "default", "another"))
    (default,) = database.read(collections.every)
    assert default.space == FINGERPRINT
