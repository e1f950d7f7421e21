from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from app.core.errors import HeadRefused
from app.encoder.protocol import Embeddings, normalise
from app.search import head_training
from app.search.head_training import (
    Learner,
    Pairs,
    Taught,
    rank_best,
    require_gain,
    select_pairs,
    split_pairs,
    teach,
)
from tests.support.lessons import ENCODER, make_captions, make_vectors

CAPTIONS = make_captions(200)


def ignore(share: float) -> None:
    """A report that nobody reads."""


def ids(count: int) -> list[str]:
    return [f"p{n}" for n in range(count)]


def make_pairs(captions: Sequence[str], owners: Sequence[int] | None = None) -> Pairs:
    owners = range(len(captions)) if owners is None else owners
    return select_pairs(captions, owners, ids(max(owners) + 1))


def run(captions: Sequence[str], images: Embeddings) -> Taught:
    pairs = make_pairs(captions)
    texts = ENCODER.encode_texts(pairs.texts)
    return teach(texts, images, pairs, split_pairs(pairs, ids(len(images))), ENCODER.temperature, ignore)


@pytest.fixture(scope="module")
def taught() -> Taught:
    """What the captions of somebody who swaps colours teach."""
    return run(CAPTIONS, make_vectors(CAPTIONS))


def test_a_head_learns_the_words_of_a_collection(taught: Taught) -> None:
    require_gain(taught)
    both = taught.figures["text_to_image"]
    assert both["after"]["R@10"] > 0.9 > 0.5 > both["before"]["R@10"]
    assert both["after"]["n"] == 50
    low, high = taught.confidence
    assert 0 < low <= taught.gain <= high
    back = taught.figures["image_to_text"]
    assert taught.maps_pictures
    assert back["after"]["R@10"] > back["before"]["R@10"]


def test_the_same_pairs_give_the_same_head(taught: Taught) -> None:
    assert np.array_equal(taught.head, run(CAPTIONS, make_vectors(CAPTIONS)).head)


def test_captions_of_other_pictures_are_refused_with_figures() -> None:
    mixed = make_vectors(CAPTIONS)[np.random.default_rng(1).permutation(len(CAPTIONS))]
    with pytest.raises(HeadRefused, match=r"of 50 held-out texts, .* have their picture among ten without it and"):
        require_gain(run(CAPTIONS, mixed))


def test_a_model_that_knows_the_words_already_gains_nothing() -> None:
    with pytest.raises(HeadRefused, match="must be above zero"):
        require_gain(run(CAPTIONS, make_vectors(CAPTIONS, swapped=False)))


def test_a_head_that_is_not_finite_is_refused(taught: Taught) -> None:
    broken = Taught(np.full_like(taught.head, np.nan), taught.figures, taught.gain, taught.confidence)
    with pytest.raises(HeadRefused):
        require_gain(broken)


@pytest.mark.parametrize("captions", [["a", "b", "c"], ["one text"] * 300, ["Cat", "cat ", "CAT"] * 100])
def test_few_distinct_texts_are_refused(captions: list[str]) -> None:
    with pytest.raises(HeadRefused, match="are too few to teach with: 100 are needed"):
        split_pairs(make_pairs(captions), ids(len(captions)))


def test_texts_of_many_pictures_name_none() -> None:
    pairs = make_pairs([*CAPTIONS, *["photo"] * 50, "twice", "TWICE"])
    assert (len(pairs.texts), pairs.left_out) == (201, 50)
    assert pairs.texts[-1] == "twice"
    assert pairs.own_pictures[-1].tolist() == [250, 251]


def test_no_picture_and_no_text_is_on_both_sides() -> None:
    """Pictures with several texts, and texts of several pictures, hang together."""
    texts = [f"text {n % 180}" for n in range(300)]
    owners = [n // 2 for n in range(300)]
    pairs = make_pairs(texts, owners)
    split = split_pairs(pairs, ids(150))
    parts = [set(part.tolist()) for part in (split.learning, split.stopping, split.held_out)]
    assert sorted(n for part in parts for n in part) == list(range(len(pairs.texts)))
    assert all(parts)
    seen = [{int(picture) for text in part for picture in pairs.own_pictures[text]} for part in parts]
    assert len(seen[0] | seen[1] | seen[2]) == sum(map(len, seen))
    assert 0.15 < len(parts[2]) / len(pairs.texts) <= 0.25


def test_pairs_that_all_hang_together_are_refused() -> None:
    texts = [f"text {n // 2}" for n in range(300)]
    owners = [(n + 1) // 2 for n in range(300)]
    with pytest.raises(HeadRefused, match="hang together"):
        split_pairs(make_pairs(texts, owners), ids(151))


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    texts, images = (normalise(rng.standard_normal((6, 4))) for _ in range(2))
    shown = np.array([0, 1, 2, 3, 4, 4])

    def loss(matrix: npt.NDArray[np.floating]) -> float:
        mapped = (texts @ matrix).astype(np.float64)
        logits = 5.0 * (mapped / np.linalg.norm(mapped, axis=1, keepdims=True)) @ images.T.astype(np.float64)
        logits[4, 5] = logits[5, 4] = -np.inf
        odds = np.exp(logits)
        of_own = np.diagonal(odds) / odds.sum(axis=1), np.diagonal(odds) / odds.sum(axis=0)
        drawn = head_training.REGULARISATION / 4 * ((matrix - np.eye(4)) ** 2).sum()
        return float(-np.log(np.stack(of_own)).mean() + drawn)

    learner = Learner(4, 5.0)
    learner.matrix += 0.1 * rng.standard_normal((4, 4)).astype(np.float32)
    found = learner._find_gradient(texts, images, shown)
    for place in np.ndindex(4, 4):
        step = np.zeros((4, 4))
        step[place] = 1e-4
        slope = (loss(learner.matrix + step) - loss(learner.matrix - step)) / 2e-4
        assert found[place] == pytest.approx(slope, abs=2e-3)


def test_the_best_own_candidate_gives_the_rank_and_ties_count_against_it() -> None:
    candidates = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32)
    queries = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    assert rank_best(queries, candidates, [np.array([0]), np.array([0, 3]), np.array([0, 2])]).tolist() == [2, 2, 1]


def test_learning_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_training, "MAX_SECONDS", 0.0)
    taught = run(CAPTIONS, make_vectors(CAPTIONS))
    assert np.array_equal(taught.head, np.eye(60))
    assert taught.gain == 0


def test_what_is_told_can_end_it() -> None:
    class Stopped(Exception):
        pass

    def stop(share: float) -> None:
        raise Stopped

    pairs = make_pairs(CAPTIONS)
    texts, images = ENCODER.encode_texts(pairs.texts), make_vectors(CAPTIONS)
    with pytest.raises(Stopped):
        teach(texts, images, pairs, split_pairs(pairs, ids(200)), 20.0, stop)
