"""Which labels fit: by themselves where something tells that, by their share where not, and never more than a few."""

from __future__ import annotations

import numpy as np
import pytest

from app.core.types import Label
from app.encoder.dummy import DummyEncoder
from app.search.auto_tags import MAX_TAGS, Tagger, choose_templates
from app.search.collection_profile import Profile
from app.search.templates import AUTOMATIC, PLAIN
from app.search.verdict import Calibration, Spread
from app.search.zero_shot import PairJudge

ENCODER = DummyEncoder()
WORDS = ("red", "green", "blue")


def make(judge: PairJudge, *labels: Label) -> Tagger:
    vectors = ENCODER.encode_texts([label.label for label in labels])
    return Tagger(labels, vectors, judge, "space", None)


def labels(*words: str, threshold: float = 0.5) -> list[Label]:
    return [Label(word, (word,), threshold) for word in words]


def judge(profile: Profile = Profile(), bias: float | None = None) -> PairJudge:  # noqa: B008
    return PairJudge(20.0, bias, profile)


def test_without_a_measure_a_probability_is_the_share_of_a_label() -> None:
    tagger = make(judge(), *labels(*WORDS))
    assert tagger.basis == "shares"
    pictures = ENCODER.encode_texts(["red", "a green thing", "yellow"])
    assert tagger.rate(pictures).sum(axis=1) == pytest.approx([1, 1, 1])
    found = tagger.tag(pictures)
    assert [list(one) for one in found] == [["red"], ["green"], []]  # yellow is as near to each of the three


def test_one_label_alone_says_nothing_unless_pairs_are_judged() -> None:
    tagger = make(judge(), *labels("red"))
    assert (tagger.basis, tagger.tag(ENCODER.encode_texts(["red"]))) == ("none", [{}])
    tagger = make(judge(bias=-10.0), *labels("red"))
    assert tagger.basis == "pairs"
    assert [list(one) for one in tagger.tag(ENCODER.encode_texts(["red", "blue"]))] == [["red"], []]


def test_a_calibrated_collection_gives_a_picture_several_labels_or_none() -> None:
    sample = ENCODER.encode_texts([f"{one} {other}" for one in WORDS for other in WORDS])
    calibration = Calibration(-10.0, (20.0, 0.1), 0.0, 0.0, 1.0)
    tagger = make(judge(Profile(100, spread=Spread.of(sample), calibration=calibration)), *labels(*WORDS))
    assert tagger.basis == "pairs"
    pictures = ENCODER.encode_texts(["red green", "white", "blue"])
    assert [sorted(one) for one in tagger.tag(pictures)] == [["green", "red"], [], ["blue"]]
    vectors = ENCODER.encode_texts(list(WORDS))
    scores = pictures @ vectors.T
    by_hand = calibration.probability(
        scores.ravel(), Spread.of(sample).measure_deviations(scores.ravel(), np.tile(vectors, (3, 1)))
    )
    assert tagger.rate(pictures).ravel() == pytest.approx(by_hand, abs=1e-5)


def test_a_threshold_is_each_labels_own_and_the_likeliest_come_first() -> None:
    strict = make(judge(bias=-5.0), Label("red", ("red",), 0.999999), Label("green", ("green",), 0.2))
    (found,) = strict.tag(ENCODER.encode_texts(["red green"]))
    assert list(found) == ["green"]
    many = [Label(f"red {n}", ("red",), 0.1) for n in range(MAX_TAGS + 5)]
    (found,) = make(judge(bias=0.0), *many).tag(ENCODER.encode_texts(["red"]))
    assert len(found) == MAX_TAGS
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert make(judge()).tag(ENCODER.encode_texts(["red"])) == [{}]
    assert strict.tag(ENCODER.encode_texts([])) == []


def test_templates_are_the_labels_own_or_those_that_help_for_few_words() -> None:
    helped = judge(Profile(templates=AUTOMATIC))
    assert choose_templates(Label("a", ("a",), 0.5), "a", helped) == AUTOMATIC
    assert choose_templates(Label("a", ("a",), 0.5), "one two three four five", helped) == PLAIN
    assert choose_templates(Label("a", ("a",), 0.5, ("my {}",)), "a", helped) == ("my {}",)
