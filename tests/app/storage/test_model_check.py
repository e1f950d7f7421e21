from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app.core.errors import StartupError
from app.core.types import EmbeddingSpace
from app.encoder.catalogue import resolve_alias
from app.encoder.dummy import DummyEncoder
from app.encoder.protocol import Embeddings, Pixels
from app.storage.database import Database
from app.storage.model_check import check_golden, check_space, find_model_name
from app.storage.tables import collections, embeddings
from tests.support.makers import SPACE


def stamp(database: Database, space: EmbeddingSpace) -> None:
    def work(c: Any) -> None:
        embeddings.save_space(c, space)
        collections.assign_space(c, "default", space.fingerprint)

    database.write(work)


def test_a_directory_without_vectors_takes_any_model(database: Database) -> None:
    check_space(database, SPACE)


def test_a_directory_takes_the_model_that_filled_it_under_any_name(database: Database) -> None:
    stamp(database, SPACE)
    check_space(database, SPACE)
    check_space(database, EmbeddingSpace("renamed", SPACE.weights, SPACE.d, SPACE.preprocessing))


@pytest.mark.parametrize(
    "other",
    [
        EmbeddingSpace("other", SPACE.weights, 8, SPACE.preprocessing),
        EmbeddingSpace("other", "f" * 64, SPACE.d, SPACE.preprocessing),
        EmbeddingSpace("other", SPACE.weights, SPACE.d, "f" * 64),
    ],
)
def test_another_model_is_refused_in_one_line_that_names_both_ways_out(
    database: Database, other: EmbeddingSpace
) -> None:
    stamp(database, SPACE)
    with pytest.raises(StartupError) as refused:
        check_space(database, other)
    told = refused.value.detail
    assert "--model small" in told
    assert "sightline reembed --model other" in told
    assert "\n" not in told


def test_the_same_name_with_other_weights_points_to_reembed_alone(database: Database) -> None:
    stamp(database, SPACE)
    with pytest.raises(StartupError) as refused:
        check_space(database, EmbeddingSpace("small", "f" * 64, SPACE.d, SPACE.preprocessing))
    assert "serve it with" not in refused.value.detail
    assert "sightline reembed" in refused.value.detail


class Upgraded(DummyEncoder):
    """The same weights and preprocessing, and a library that sees, or reads, otherwise."""

    def __init__(self, *, seeing: bool) -> None:
        super().__init__()
        self.seeing = seeing

    def encode_images(self, pixels: Pixels) -> Embeddings:
        return super().encode_images(255 - pixels if self.seeing else pixels)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return super().encode_texts(texts if self.seeing else [text[::-1] for text in texts])


def test_a_library_that_changed_is_noticed_by_server_and_worker(database: Database) -> None:
    encoder = DummyEncoder()
    database.write(lambda c: embeddings.save_space(c, encoder.space))
    check_golden(database, encoder, texts=False)  # a worker that is first keeps nothing: it has no texts to keep
    assert database.read(lambda c: embeddings.get_golden(c, encoder.space.fingerprint)) is None
    check_golden(database, encoder)
    check_golden(database, encoder, texts=False)
    for seeing in (True, False):
        with pytest.raises(StartupError, match="a library has changed"):
            check_golden(database, Upgraded(seeing=seeing))
    with pytest.raises(StartupError, match="a library has changed"):
        check_golden(database, Upgraded(seeing=True), texts=False)
    check_golden(database, Upgraded(seeing=False), texts=False)  # a worker reads nothing


def test_a_choice_means_what_it_meant_when_the_directory_was_first_served(database: Database) -> None:
    assert find_model_name(database, "photos") == resolve_alias("photos") != "photos"
    encoder = DummyEncoder()  # as if an older version had meant it by `photos`
    database.write(lambda c: embeddings.mark_served(c, encoder.space, "photos"))
    check_golden(database, encoder)
    stamp(database, encoder.space)
    database.write(lambda c: embeddings.mark_served(c, encoder.space))  # served by its full name once
    assert find_model_name(database, "Photos") == "colours"
    assert find_model_name(database, "photos-fast") == resolve_alias("photos-fast")
    assert find_model_name(database, "vit-b-32") == resolve_alias("vit-b-32")
    database.write(embeddings.delete_all)  # reembed
    assert find_model_name(database, "photos") == resolve_alias("photos")
