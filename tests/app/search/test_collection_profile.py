from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest

from app.core.errors import NotFound
from app.core.types import EmbeddingSpace, Image, Lease, Status
from app.encoder.dummy import DummyEncoder
from app.encoder.protocol import Embeddings, normalise
from app.search.collection_profile import (
    DEFAULT_TRUST,
    MAX_PROFILES,
    MIN_TEXTS,
    UNKNOWN,
    CollectionProfiles,
    describe,
)
from app.search.heads import Head
from app.search.templates import PLAIN
from app.storage.database import Database
from app.storage.tables import embeddings, images, texts, work_queue
from index.flat import FlatIndex
from index.protocol import VectorIndex
from tests.support.makers import claim, insert

D = 64
SPACE = EmbeddingSpace("small", "0" * 64, D, "1" * 64)
WORDS = normalise(np.random.default_rng(1).standard_normal((1_000, D)))
NOISE = normalise(np.random.default_rng(2).standard_normal((1_000, D)) + 0.2)


class SmallEncoder(DummyEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.space = SPACE


def number(text: str) -> int:
    """That of a text of this collection, or one that stands for a generic caption."""
    last = text.split()[-1].removeprefix("n")
    return int(last) if last.isdigit() else 500 + sum(text.encode()) % 500


def encode(texts: Sequence[str]) -> list[Embeddings]:
    return [WORDS[number(text)] for text in texts]


def encode_noise(texts: Sequence[str]) -> list[Embeddings]:
    return [NOISE[(number(text) * 7 + 501) % 1_000] for text in texts]


class World:
    """Ready pictures; the vector of picture n is near to the one that `encode` gives for a text that ends in n."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.index = FlatIndex(D)
        database.write(lambda c: embeddings.save_space(c, SPACE))

    def fill(self, count: int, spread: float = 0.0, **said: Any) -> None:
        drawn = np.random.default_rng(3).standard_normal((count, D)) / np.sqrt(D)
        vectors = normalise(WORDS[:count] + spread * drawn)
        keys = []
        for n in range(count):
            filled = {name: value.format(n) for name, value in said.items()}
            keys.append(insert(self.database, n, f"p{n}", **filled).key)
            (lease,) = claim(self.database)
            finish(self.database, lease, vectors[n])
        self.index.add(np.array(keys, np.int64), vectors)

    def replace_vector(self, key: int, vector: Embeddings) -> None:
        packed = vector.astype("<f4").tobytes()
        self.database.write(lambda c: embeddings.add(c, "default", SPACE.fingerprint, "images", key, packed))

    def profiles(self, encode: Callable[[Sequence[str]], Sequence[Embeddings]] = encode) -> CollectionProfiles:
        return CollectionProfiles(self.database, SmallEncoder(), encode, lambda *_: nullcontext(self.index))


def finish(database: Database, lease: Lease, vector: Embeddings) -> None:
    packed = vector.astype("<f4").tobytes()
    database.write(lambda c: work_queue.finish_image(c, lease, SPACE.fingerprint, packed, 4, 3, False))


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def test_trust_is_the_share_of_captions_that_find_their_picture(world: World) -> None:
    world.fill(150, caption="a thing n{}")
    assert world.profiles().measure("default").trust == 1.0
    assert world.profiles(encode_noise).measure("default").trust < 0.1


def test_few_or_equal_captions_measure_nothing(world: World) -> None:
    nothing = world.profiles().measure("default")
    assert (nothing.trust, nothing.spread, nothing.calibration) == (DEFAULT_TRUST, None, None)
    world.fill(MIN_TEXTS, source="IMG_{}.jpg")
    assert world.profiles().measure("default").trust == DEFAULT_TRUST
    world.database.write(lambda c: c.execute("UPDATE images SET caption = 'holiday n1'"))
    found = world.profiles().measure("default")
    assert (found.trust, found.hubs, found.templates) == (DEFAULT_TRUST, None, PLAIN)


def test_captions_calibrate_the_verdict(world: World) -> None:
    world.fill(150, 1.0, caption="a thing n{}")
    known = world.profiles().measure("default").calibration
    assert known is not None
    assert known.separation > 0.95
    assert known.judge(0.7, 6.0).match == "good"
    assert known.judge(0.2, 2.0).match == "none"


def test_a_model_that_sees_nothing_calibrates_nothing(world: World) -> None:
    world.fill(150, caption="a thing n{}")
    assert world.profiles(encode_noise).measure("default").calibration is None
    world.database.write(lambda c: c.execute("UPDATE images SET caption = NULL"))
    assert world.profiles(encode_noise).measure("default").calibration is None


def test_without_captions_texts_without_a_meaning_calibrate_it(world: World) -> None:
    world.fill(150, source="IMG_{}.jpg")
    seen = world.profiles(lambda texts: [WORDS[number(text) % 150] for text in texts]).measure("default").calibration
    assert seen is not None
    assert seen.weights[1] == 0
    assert seen.judge(0.9, 0.0).match == "good"
    assert seen.judge(0.0, 0.0).match == "none"


def test_a_small_collection_calibrates_nothing(world: World) -> None:
    world.fill(40, caption="a thing n{}")
    assert world.profiles().measure("default").calibration is None


def test_hubs_are_ranked_down_where_that_helps(world: World) -> None:
    world.fill(200, 1.0, caption="a thing n{}")
    plain = world.profiles().measure("default")
    assert plain.hubs is None  # no picture is one
    middle = normalise(WORDS[:200].mean(axis=0)[None])[0]
    keys = world.database.read(lambda c: images.list_ready_keys(c, "default"))
    for key in keys[:40]:  # pictures of nothing, near to every text
        world.replace_vector(key, middle)
        world.database.write(partial(images.update, key=key, caption=None, tags=[], metadata={}))

    def encode_near(texts: Sequence[str]) -> list[Embeddings]:
        return list(normalise(np.stack(encode(texts)) + 2.2 * middle))

    found = world.profiles(encode_near).measure("default").hubs
    assert found is not None
    assert set(found.biases[:40] > found.biases[40:].max()) == {True}


def test_stored_texts_are_in_the_bank(world: World) -> None:
    world.fill(MIN_TEXTS, caption="a thing n{}")
    put = world.database.write(lambda c: texts.put(c, "default", "t", "a thing n1", {}))
    packed = WORDS[1].astype("<f4").tobytes()
    world.database.write(lambda c: embeddings.add(c, "default", SPACE.fingerprint, "texts", put.key, packed))
    profiles = world.profiles()
    bank = profiles._read_bank("default")
    np.testing.assert_array_equal(bank[-1], WORDS[1])
    assert len(bank) == len(profiles._read_generic()) + 1


def test_texts_are_measured_through_the_head_that_the_collection_uses(world: World) -> None:
    world.fill(120, caption="a thing n{}")
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((D, D)))[0].astype(np.float32)
    heads: dict[str, Head] = {}

    def encode_turned(texts: Sequence[str]) -> Sequence[Embeddings]:
        return list(np.stack(encode(texts)) @ turn.T)

    use = lambda *_: nullcontext(world.index)  # noqa: E731
    profiles = CollectionProfiles(world.database, SmallEncoder(), encode_turned, use, heads.get)
    assert profiles.measure("default").trust < 0.2
    heads["default"] = head = Head("one", turn)
    measured = profiles.measure("default")
    assert (measured.trust, measured.head) == (1.0, "one")
    profiles._measured["default"] = measured
    assert profiles.get("default", 0, head) is measured
    assert profiles.get("default", 0) is UNKNOWN
    assert profiles._waiting == {}
    profiles.get("default", 120, Head("another", turn))
    assert profiles._waiting == {"default": 120}


def test_a_collection_is_measured_when_it_is_asked_for(world: World) -> None:
    world.fill(40, caption="a thing n{}")
    profiles = world.profiles(encode_noise)
    profiles.start()
    try:
        assert profiles.get("default", 0) is UNKNOWN
        assert profiles.get("default", 40).trust == DEFAULT_TRUST
        deadline = time.monotonic() + 30
        while not profiles.is_measured("default") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert profiles.get("default", 40).trust < 0.3
        profiles.forget("default")
        assert profiles.get("default", 0) is UNKNOWN
    finally:
        profiles.close()


def test_a_collection_that_is_asked_for_meanwhile_is_measured_once(world: World) -> None:
    world.fill(MIN_TEXTS, caption="a thing n{}")
    calls: list[Sequence[str]] = []

    def encode_and_search(texts: Sequence[str]) -> Sequence[Embeddings]:
        calls.append(texts)
        profiles.get("default", MIN_TEXTS)
        return encode(texts)

    profiles = world.profiles(encode_and_search)
    profiles.get("default", MIN_TEXTS)
    profiles._step()
    assert [list(texts) for texts in calls].count([f"a thing n{n}" for n in range(MIN_TEXTS)]) <= 1
    assert not profiles._waiting


def test_a_collection_that_was_deleted_meanwhile_is_passed_over(world: World) -> None:
    world.fill(60, caption="a thing n{}")

    def use(*_: object) -> AbstractContextManager[VectorIndex]:
        raise NotFound("it is gone")

    profiles = CollectionProfiles(world.database, SmallEncoder(), encode, use)
    profiles.get("default", 60)
    profiles._step()
    assert not profiles.is_measured("default")


def test_a_stop_ends_the_measurement(world: World) -> None:
    world.fill(60, caption="a thing n{}")
    profiles = world.profiles()
    asked: list[int] = []

    def encode_and_close(texts: Sequence[str]) -> Sequence[Embeddings]:
        asked.append(len(texts))
        profiles.close()
        return encode(texts)

    profiles = world.profiles(encode_and_close)
    profiles.get("default", 60)
    profiles._step()
    assert not profiles.is_measured("default")
    assert len(asked) == 1


def test_texts_that_all_say_the_same_calibrate_nothing(world: World) -> None:
    world.fill(80, caption="a thing n{}")
    assert world.profiles(lambda texts: [WORDS[0]] * len(texts)).measure("default").calibration is None


def test_the_profiles_of_few_collections_are_kept(world: World) -> None:
    profiles = world.profiles()
    for n in range(MAX_PROFILES + 1):
        profiles.get(f"c{n}", 1)
    profiles._step()
    assert len(profiles._measured) == MAX_PROFILES


@pytest.mark.parametrize(
    ("caption", "source", "expected"),
    [
        ("a frog", "x.jpg", "a frog"),
        (None, "a/greenFrog_2.jpg", "green Frog"),
        (None, "IMG_2034.JPG", None),
        (None, "PXL_20240101_1234.jpg", None),
        (None, "2019-07-04 12.00.00.jpg", None),
        (None, None, None),
    ],
)
def test_names_that_cameras_give_describe_nothing(caption: str, source: str, expected: str | None) -> None:
    image = Image(1, "default", "x", "0", Status.READY, None, 1, 1, "png", 1, False, caption, (), {}, source, "", None)
    assert describe(image) == expected
