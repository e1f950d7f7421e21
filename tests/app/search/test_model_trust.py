from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.core.types import EmbeddingSpace, Image, Lease, Status
from app.encoder.protocol import Embeddings
from app.search.model_trust import DEFAULT_TRUST, MIN_TEXTS, ModelTrust, describe
from app.storage.database import Database
from app.storage.tables import embeddings, work_queue
from tests.support.makers import claim, insert

D = 64
SPACE = EmbeddingSpace("small", "0" * 64, D, "1" * 64)
WORDS = np.random.default_rng(1).standard_normal((1_000, D)).astype("f4")
WORDS /= np.linalg.norm(WORDS, axis=1, keepdims=True)


def number(text: str) -> int:
    return int(text.split()[-1].removeprefix("n"))


def fill(database: Database, count: int, **said: Any) -> None:
    """Ready pictures; the vector of picture n is the one that the encoder below gives for a text that ends in n."""
    for n in range(count):
        filled = {name: value.format(n) for name, value in said.items()}
        insert(database, n, f"p{n}", **filled)
        (lease,) = claim(database)
        finish(database, lease, WORDS[n])


def finish(database: Database, lease: Lease, vector: Embeddings) -> None:
    packed = vector.astype("<f4").tobytes()
    database.write(lambda c: work_queue.finish_image(c, lease, SPACE.fingerprint, packed, 4, 3, False))


def encode(texts: Sequence[str]) -> list[Embeddings]:
    return [WORDS[number(text)] for text in texts]


def encode_noise(texts: Sequence[str]) -> list[Embeddings]:
    return [WORDS[(number(text) * 7 + 501) % 1_000] for text in texts]


def test_trust_is_the_share_of_captions_that_find_their_picture(database: Database) -> None:
    database.write(lambda c: embeddings.save_space(c, SPACE))
    fill(database, 150, caption="a thing n{}")
    assert ModelTrust(database, encode).measure("default") == 1.0
    noise = ModelTrust(database, encode_noise).measure("default")
    assert noise is not None
    assert noise < 0.1


def test_few_or_equal_captions_measure_nothing(database: Database) -> None:
    database.write(lambda c: embeddings.save_space(c, SPACE))
    assert ModelTrust(database, encode).measure("default") is None
    fill(database, MIN_TEXTS, source="IMG_{}.jpg")
    assert ModelTrust(database, encode).measure("default") is None
    database.write(lambda c: c.execute("UPDATE images SET caption = 'holiday n1'"))
    assert ModelTrust(database, encode).measure("default") is None


def test_a_collection_is_measured_when_it_is_asked_for(database: Database) -> None:
    database.write(lambda c: embeddings.save_space(c, SPACE))
    fill(database, 40, caption="a thing n{}")
    trust = ModelTrust(database, encode_noise)
    trust.start()
    try:
        assert trust.get("default", 40) == DEFAULT_TRUST
        deadline = time.monotonic() + 30
        while not trust.is_measured("default") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert trust.get("default", 40) < 0.2
    finally:
        trust.close()


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
