from __future__ import annotations

import numpy as np
import pytest

from app.encoder.protocol import normalise
from app.search.hubs import DEPTH, MIN_QUERIES, HubBiases, do_biases_help, measure_biases

RNG = np.random.default_rng(0)
D = 32


def make_pictures(count: int, hubs: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries, and pictures of which the first are their own ones; the last `hubs` are near to all of them."""
    middle = normalise(RNG.standard_normal((1, D)))
    queries = normalise(normalise(RNG.standard_normal((count, D))) + middle)
    own = normalise(queries - middle * 0.9 + 0.3 * normalise(RNG.standard_normal((count, D))))
    near = normalise(middle + 0.1 * RNG.standard_normal((hubs, D)) / np.sqrt(D))
    return queries, np.concatenate([own, near])


def test_the_bias_of_one_text_is_its_cosine() -> None:
    pictures = normalise(RNG.standard_normal((5, D)))
    text = normalise(RNG.standard_normal((1, D)))
    np.testing.assert_allclose(measure_biases(pictures, text, 100.0), (pictures @ text.T)[:, 0], atol=1e-5)
    both = measure_biases(pictures, np.concatenate([text, -text]), 1.0)
    assert (both < np.abs(pictures @ text.T)[:, 0] + 1e-6).all()


def test_hubs_are_found_out_and_nothing_is_done_without_them() -> None:
    queries, pictures = make_pictures(300, 30)
    bank = queries[:0]
    assert do_biases_help(queries, range(300), pictures, bank, 20.0)
    assert not do_biases_help(normalise(pictures[:300]), range(300), pictures[:300], bank, 20.0)
    assert not do_biases_help(queries[: MIN_QUERIES - 1], range(MIN_QUERIES - 1), pictures, bank, 20.0)


def test_the_nearest_are_ranked_by_cosine_less_bias() -> None:
    biases = HubBiases(np.array([1, 2, 3]), np.array([0.0, 0.5, 0.1], np.float32), 0.2)
    scores, keys = np.array([0.9, 0.8, 0.7, 0.6, -np.inf], np.float32), np.array([2, 1, 9, 3, -1])
    assert biases.rerank(scores, keys).tolist() == [1, 9, 3, 2, -1]


@pytest.mark.parametrize("count", [DEPTH, DEPTH + 40])
def test_what_is_far_down_stays(count: int) -> None:
    keys = np.arange(count)
    biases = HubBiases(keys, np.zeros(count, np.float32), 0.0)
    biases.biases[0] = 1
    order = biases.rerank(np.linspace(1, 0.5, count, dtype=np.float32), keys)
    assert order.tolist() == [*range(1, DEPTH), 0, *range(DEPTH, count)]
