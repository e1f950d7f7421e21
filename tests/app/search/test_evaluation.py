from __future__ import annotations

import numpy as np
import pytest

from app.encoder.protocol import Embeddings, normalise
from app.search.evaluation import MISSES, Evaluation, bootstrap_means, evaluate


def draw(count: int, texts_each: int, noise: float, seed: int = 0) -> tuple[Embeddings, Embeddings, list[int]]:
    """Pictures, and texts that are near their pictures."""
    rng = np.random.default_rng(seed)
    images = normalise(rng.standard_normal((count, 24)))
    owners = rng.permutation(np.repeat(np.arange(count), texts_each))
    texts = normalise(images[owners] + noise * rng.standard_normal((len(owners), 24)))
    return images, texts, owners.tolist()


def recall_at_k(scores: Embeddings, positives: np.ndarray, k: int) -> float:
    """Recall as `clip_benchmark` 1.6.2 defines it (metrics/zeroshot_retrieval.py: one hit among the first k counts)."""
    top = np.argsort(-scores, axis=1)[:, :k]
    return float((np.take_along_axis(positives, top, axis=1).sum(axis=1) > 0).mean())


@pytest.mark.parametrize(("texts_each", "noise"), [(1, 0.5), (5, 0.4), (2, 3.0)])
def test_recall_is_that_of_clip_benchmark(texts_each: int, noise: float) -> None:
    images, texts, owners = draw(400, texts_each, noise)
    found = evaluate(images, texts, owners, (1, 3, 10))
    scores = texts @ images.T
    positives = np.zeros(scores.shape, bool)
    positives[np.arange(len(owners)), owners] = True
    for k in (1, 3, 10):
        assert found.text_to_image[f"R@{k}"] == pytest.approx(recall_at_k(scores, positives, k), abs=5e-5)
        assert found.image_to_text[f"R@{k}"] == pytest.approx(recall_at_k(scores.T, positives.T, k), abs=5e-5)
    order = np.argsort(-scores, axis=1)
    ranks = 1 + np.argmax(order == np.array(owners)[:, None], axis=1)
    assert found.text_to_image["median_rank"] == np.median(ranks)
    assert (found.text_to_image["n"], found.image_to_text["n"]) == (400 * texts_each, 400)


def test_vectors_that_tell_nothing_apart_find_nothing() -> None:
    same = normalise(np.ones((100, 8)))
    found = evaluate(same, same, range(100))
    assert (found.text_to_image["R@1"], found.image_to_text["R@10"]) == (0.01, 0.1)
    assert found.text_to_image["median_rank"] == 50.5


def test_languages_are_measured_apart() -> None:
    images, good, _ = draw(60, 1, 0.0)
    texts = np.concatenate([images, normalise(np.random.default_rng(1).standard_normal((60, 24))), good[:2]])
    owners = [*range(60), *range(60), 0, 1]
    found = evaluate(images, texts, owners, languages=["en"] * 60 + ["zh"] * 60 + ["fr"] * 2)
    assert list(found.languages) == ["en", "zh"]
    assert found.languages["en"]["text_to_image"]["R@1"] == 1.0
    assert found.languages["en"]["image_to_text"] | {"n": 60, "R@1": 1.0} == found.languages["en"]["image_to_text"]
    assert found.languages["zh"]["text_to_image"]["R@1"] < 0.3
    assert evaluate(images, images, range(60), languages=["en"] * 60).languages == {}


def test_the_worst_misses_come_first() -> None:
    images, texts, owners = draw(80, 1, 0.0)
    texts[[3, 5]] = texts[[5, 3]]
    found = evaluate(images, texts, owners)
    assert {miss.query for miss in found.missed_texts} == {3, 5}
    (first, second) = found.missed_texts
    assert first.rank >= second.rank > 1
    assert (first.own, first.first) == (owners[first.query], owners[8 - first.query])
    assert {miss.own for miss in found.missed_pictures} == {owners[3], owners[5]}
    noise = evaluate(*draw(80, 1, 9.0))
    assert len(noise.missed_texts) == MISSES
    assert [miss.rank for miss in noise.missed_texts] == sorted((m.rank for m in noise.missed_texts), reverse=True)


def width(found: Evaluation) -> float:
    low, high = found.text_to_image["confidence"]["R@1"]
    return float(high - low)


def test_confidence_is_that_of_the_number_of_pictures() -> None:
    few, many = evaluate(*draw(100, 1, 0.6)), evaluate(*draw(1_600, 1, 0.6))
    assert (
        few.text_to_image["confidence"]["R@1"][0] < few.text_to_image["R@1"] < few.text_to_image["confidence"]["R@1"][1]
    )
    share = few.text_to_image["R@1"]
    assert width(few) == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 100), rel=0.2)
    assert width(many) < width(few) / 2.5
    assert evaluate(*draw(3, 1, 0.1)).text_to_image["confidence"] == {"R@1": None, "R@5": None, "R@10": None}


def test_texts_of_one_picture_are_not_independent() -> None:
    values = np.repeat(np.random.default_rng(0).random((100, 1)) < 0.5, 5, axis=0).astype(float)
    low, high = bootstrap_means(values, np.repeat(np.arange(100), 5))
    alone = bootstrap_means(values, np.arange(500))
    assert high[0] - low[0] > 1.8 * (alone[1][0] - alone[0][0])


def test_a_long_evaluation_can_be_stopped() -> None:
    calls: list[None] = []
    evaluate(*draw(600, 2, 0.5), check=lambda: calls.append(None))
    assert len(calls) == 5 + 3  # blocks of 256 texts, and of 256 pictures


def test_nothing_to_measure_is_no_error() -> None:
    none = np.zeros((0, 4), np.float32)
    found = evaluate(none, none, [])
    assert (found.text_to_image["R@1"], found.text_to_image["median_rank"], found.missed_texts) == (0.0, None, [])
