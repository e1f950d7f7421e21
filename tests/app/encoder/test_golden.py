"""Golden vectors notice a model that is no longer itself."""

from __future__ import annotations

import numpy as np

from app.encoder import golden
from app.encoder.dummy import DummyEncoder


def test_the_pictures_are_the_same_every_time_at_every_size() -> None:
    for size in (1, 32, 224, 378):
        seen = golden.make_golden_pictures(size)
        assert seen.shape == (2, size, size, 3)
        assert seen.dtype == np.uint8
        assert np.array_equal(seen, golden.make_golden_pictures(size))
    assert (
        int(golden.make_golden_pictures(32).astype(np.int64).sum()) == 570_400
    )  # the same on every machine and in every version


def test_a_model_is_the_same_as_itself() -> None:
    encoder = DummyEncoder()
    vectors = golden.encode_golden(encoder)
    assert golden.is_same_model(golden.encode_golden(encoder), vectors)
    assert golden.is_same_model(golden.encode_golden(encoder, texts=False), vectors[:2])


def test_one_other_vector_is_noticed() -> None:
    vectors = golden.encode_golden(DummyEncoder())
    other = vectors.copy()
    other[2] = np.roll(other[2], 1)
    assert not golden.is_same_model(other, vectors)
    assert not golden.is_same_model(vectors[:2], vectors)


def test_rounding_is_not_noticed() -> None:
    vectors = golden.encode_golden(DummyEncoder(), texts=False)
    rounded = vectors.astype(np.float16).astype(np.float32)
    assert golden.is_same_model(rounded, vectors)
