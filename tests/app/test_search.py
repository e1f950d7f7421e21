from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.decode.pool import DecodePool
from app.encoder.batcher import Batcher
from app.encoder.colours import ColoursEncoder
from app.encoder.protocol import Embeddings
from app.errors import ImageCorrupt, NotFound, SightlineError, UnsupportedMediaType, Validation
from app.search import SPARE, Part, Searcher
from app.store import embeddings, images, leases, texts
from app.store.database import Database
from app.types import Target
from index.exact import ExactIndex
from tests.app.makers import claim, insert
from tests.pictures import picture

ENCODER = ColoursEncoder()
COLOURS = ("red", "green", "blue", "yellow", "black")


class World:
    """Pictures and texts by colour in a database and two indexes, and a searcher over them."""

    def __init__(self, database: Database, pool: DecodePool) -> None:
        self.database = database
        self.indexes: dict[Target, ExactIndex] = {"images": ExactIndex(60), "texts": ExactIndex(60)}
        self.batcher = Batcher(ENCODER, 64)
        self.searcher = Searcher(
            database, ENCODER, self.batcher, pool, lambda _, target: nullcontext(self.indexes[target])
        )
        database.write(lambda c: embeddings.remember(c, ENCODER.space))

    def picture(self, n: int, id: str, words: str) -> int:
        key = insert(self.database, n, id).key
        (lease,) = claim(self.database)
        vector = ENCODER.encode_texts([words])
        packed = vector[0].tobytes()
        self.database.write(lambda c: leases.finish(c, lease, ENCODER.space.fingerprint, packed, 4, 3, False))
        self.indexes["images"].add(np.array([key]), vector)
        return key

    def text(self, id: str, words: str) -> None:
        vector = ENCODER.encode_texts([words])

        def work(c: Any) -> int:
            key = texts.put(c, "default", id, words, {}).key
            embeddings.add(c, "default", ENCODER.space.fingerprint, "texts", key, vector[0].tobytes())
            return key

        self.indexes["texts"].add(np.array([self.database.write(work)]), vector)

    def ids(self, *parts: Part, k: int = 3, target: Target = "images") -> list[str]:
        return [hit.id for hit in self.searcher.search("default", parts, target, k).hits]


@pytest.fixture
def world(database: Database, pool: DecodePool) -> Iterator[World]:
    world = World(database, pool)
    for n, colour in enumerate(COLOURS):
        world.picture(n, colour, colour)
        world.text(f"text-{colour}", f"something {colour}")
    yield world
    world.batcher.close()


def test_words_find_pictures_and_texts_best_first(world: World) -> None:
    found = world.searcher.search("default", [Part(text="a blue thing")], "images", 3)
    assert found.hits[0].id == "blue"
    assert found.hits[0].image is not None
    assert found.hits[0].score == pytest.approx(1.0, abs=1e-5)
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert found.searched == 5
    assert set(found.took_ms) == {"encode", "search", "fetch", "total"}
    (hit,) = world.searcher.search("default", [Part(text="blue")], "texts", 1).hits
    assert hit.text is not None
    assert (hit.id, hit.text.text, hit.image) == ("text-blue", "something blue", None)


def test_parts_are_added_up_by_their_weights(world: World) -> None:
    assert world.ids(Part(text="red", weight=2), Part(text="blue"), k=2) == ["red", "blue"]
    assert world.ids(Part(text="red"), Part(text="blue", weight=2), k=2) == ["blue", "red"]


def test_a_negative_part_pushes_away(world: World) -> None:
    assert world.ids(Part(text="red and blue"), Part(text="red", weight=-1), k=1) == ["blue"]
    assert world.ids(Part(text="red", weight=-1), k=5)[-1] == "red"


def test_parts_that_cancel_each_other_out_are_refused(world: World) -> None:
    with pytest.raises(Validation, match="cancel each other out"):
        world.ids(Part(text="red"), Part(text="red", weight=-1))
    with pytest.raises(Validation, match="cancel each other out"):
        world.ids(Part(text="red", weight=0))
    with pytest.raises(Validation, match="empty"):
        world.ids()


def test_a_picture_that_is_here_finds_itself_and_a_text_its_pictures(world: World) -> None:
    assert world.ids(Part(image_id="green"), k=1) == ["green"]
    assert world.ids(Part(text_id="text-yellow"), k=1) == ["yellow"]
    assert world.ids(Part(image_id="black"), k=1, target="texts") == ["text-black"]


def test_a_picture_sent_along_finds_its_like(world: World, tmp_path: Path) -> None:
    path = tmp_path / "query"
    path.write_bytes(picture("yellow", seed=5))
    assert world.ids(Part(picture=path), k=1) == ["yellow"]


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"words", UnsupportedMediaType), (picture("red")[:60], ImageCorrupt)],
)
def test_a_picture_sent_along_that_is_none_is_refused(
    world: World, tmp_path: Path, content: bytes, error: type[SightlineError]
) -> None:
    path = tmp_path / "query"
    path.write_bytes(content)
    with pytest.raises(error):
        world.ids(Part(picture=path))


def test_what_is_not_here_or_has_no_vector_is_told(world: World) -> None:
    insert(world.database, 99, "queued")
    with pytest.raises(NotFound, match="no image 'unknown'"):
        world.ids(Part(image_id="unknown"))
    with pytest.raises(NotFound, match="no text 'unknown'"):
        world.ids(Part(text_id="unknown"))
    with pytest.raises(Validation, match="image 'queued' has no vector"):
        world.ids(Part(image_id="queued"))


def test_a_vector_is_scaled_to_length_1_and_searched(world: World) -> None:
    blue = ENCODER.encode_texts(["blue"])[0]
    for factor in (1.0, 1e-3, 1e30):  # the squares of the last are beyond float32
        (hit,) = world.searcher.search("default", [Part(vector=[float(x) * factor for x in blue])], "images", 1).hits
        assert hit.id == "blue"
        assert hit.score == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("vector", "why"),
    [
        ([1.0] * 59, "has 60 numbers, not 59"),
        ([], "has 60 numbers, not 0"),
        ([0.0] * 60, "finite and not zero"),
        ([float("nan")] + [1.0] * 59, "finite and not zero"),
        ([float("inf")] + [1.0] * 59, "finite and not zero"),
    ],
)
def test_a_vector_that_cannot_be_searched_is_refused(world: World, vector: Sequence[float], why: str) -> None:
    with pytest.raises(Validation, match=why):
        world.ids(Part(vector=vector))


def test_deleted_rows_are_dropped_and_k_is_still_filled(database: Database, pool: DecodePool) -> None:
    world = World(database, pool)
    keys = [world.picture(n, f"i{n:03}", "red") for n in range(SPARE + 40)]
    for key in keys[: SPARE + 30]:  # more than the spare: the index has not followed yet
        database.write(lambda c, key=key: images.delete(c, key))  # type: ignore[misc]
    assert world.ids(Part(text="red"), k=5) == [f"i{n:03}" for n in range(SPARE + 30, SPARE + 35)]
    assert len(world.ids(Part(text="red"), k=50)) == 10
    world.batcher.close()


def test_pictures_that_are_not_ready_any_more_are_dropped(world: World) -> None:
    world.database.write(lambda c: images.requeue(c, images.get(c, "default", "red").key, None))  # type: ignore[union-attr]
    assert "red" not in world.ids(Part(text="red"), k=5)


def test_k_beyond_what_there_is_gives_what_there_is(world: World) -> None:
    assert len(world.ids(Part(text="red"), k=1000)) == 5


def test_an_empty_index_gives_no_hits(database: Database, pool: DecodePool) -> None:
    world = World(database, pool)
    found = world.searcher.search("default", [Part(text="red")], "images", 10)
    assert (found.hits, found.searched) == ([], 0)
    world.batcher.close()


def test_classify_gives_probabilities_that_sum_to_1_likeliest_first(world: World) -> None:
    shares = world.searcher.classify("default", Part(image_id="red"), ["blue", "red", "green"], "a {} thing")
    assert shares[0][0] == "red"
    assert sum(share for _, share in shares) == pytest.approx(1.0)
    assert [share for _, share in shares] == sorted((share for _, share in shares), reverse=True)
    assert shares[0][1] > 0.99


def test_classify_is_a_softmax_of_the_cosines_by_the_models_temperature(world: World) -> None:
    labels = ["red and blue", "blue", "a cat"]
    shares = dict(world.searcher.classify("default", Part(image_id="red"), labels, "{}"))
    logits = ENCODER.temperature * ENCODER.encode_texts(labels) @ ENCODER.encode_texts(["red"])[0]
    odds = np.exp(logits)
    for label, expected in zip(labels, odds / odds.sum(), strict=True):
        assert shares[label] == pytest.approx(float(expected), rel=1e-4)


def test_a_label_fills_every_blank_of_the_template_as_it_is(database: Database, pool: DecodePool) -> None:
    asked: list[str] = []

    class Listening(ColoursEncoder):
        def encode_texts(self, texts: Sequence[str]) -> Embeddings:
            asked.extend(texts)
            return super().encode_texts(texts)

    world = World(database, pool)
    world.picture(1, "red", "red")
    encoder = Listening()
    batcher = Batcher(encoder, 4)
    searcher = Searcher(database, encoder, batcher, pool, lambda _, target: nullcontext(world.indexes[target]))
    searcher.classify("default", Part(image_id="red"), ["red", "{}", r"\1"], "{label}, {}: {label}")
    assert asked == ["red, red: red", "{}, {}: {}", r"\1, \1: \1"]
    batcher.close()
    world.batcher.close()


def test_the_vectors_of_texts_are_as_the_log_keeps_them(world: World) -> None:
    (packed,) = world.searcher.encode_texts(["blue"])
    np.testing.assert_array_equal(np.frombuffer(packed, "<f4"), ENCODER.encode_texts(["blue"])[0])


def test_a_vector_that_is_not_finite_never_leaves_for_the_log(database: Database, pool: DecodePool) -> None:
    class Broken(ColoursEncoder):
        def encode_texts(self, texts: Sequence[str]) -> Embeddings:
            return np.full((len(texts), 60), np.nan, np.float32)

    batcher = Batcher(Broken(), 4)
    searcher = Searcher(database, Broken(), batcher, pool, lambda *_: nullcontext(ExactIndex(60)))
    with pytest.raises(ValueError, match="not finite"):
        searcher.encode_texts(["a"])
    with pytest.raises(Validation):
        searcher.embed("default", [Part(text="a")])
    batcher.close()
