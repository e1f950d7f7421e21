from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.encoder.protocol import normalise
from app.search.verdict import (
    CERTAIN,
    NOT_READ,
    NOTHING,
    UNCERTAIN,
    Calibration,
    Spread,
    calibrate_by_captions,
    calibrate_by_noise,
    judge,
    judge_words,
    make_noise,
    measure_auroc,
)

RNG = np.random.default_rng(0)
KNOWN = Calibration(-5.0, (10.0, 0.0), -1.0, 1.0, 0.9)
SAMPLE = normalise(RNG.standard_normal((100, 8)))
QUERY = SAMPLE[0]
SPREAD = Spread.of(SAMPLE)


def draw(cosine: float, deviations: float, count: int = 400) -> np.ndarray:
    return np.column_stack([RNG.normal(cosine, 0.05, count), RNG.normal(deviations, 0.5, count)])


def test_the_auroc_counts_pairs_in_the_right_order() -> None:
    assert measure_auroc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert measure_auroc(np.array([1.0]), np.array([1.0])) == 0.5
    assert measure_auroc(np.array([0.0, 2.0]), np.array([1.0])) == 0.5


def test_what_looks_alike_calibrates_nothing() -> None:
    assert calibrate_by_captions(draw(0.3, 3), draw(0.3, 3), draw(0.3, 3)) is None
    assert calibrate_by_noise(draw(0.3, 3), draw(0.3, 3)) is None


def test_where_several_pictures_fit_nothing_is_called_good() -> None:
    known = calibrate_by_captions(draw(0.5, 5), draw(0.5, 5), draw(0.2, 3))
    assert known is not None
    assert known.judge(0.5, 5.0).match == "weak"
    assert known.judge(0.1, 2.0).match == "none"


def test_few_of_the_present_are_lost_and_most_of_the_absent_are_not_found() -> None:
    known = calibrate_by_captions(draw(0.5, 5), draw(0.3, 3.5), draw(0.2, 3))
    assert known is not None
    found = [[known.judge(*row).match for row in rows.tolist()] for rows in (draw(0.5, 5), draw(0.3, 3.5))]
    assert found[0].count("none") < 0.06 * 400
    assert found[1].count("none") > 0.8 * 400
    assert found[0].count("good") > 0.5 * 400


def test_confidence_is_that_of_the_probability() -> None:
    assert KNOWN.judge(0.5, 0.0).match == "weak"
    assert KNOWN.judge(0.5, 0.0).confidence == pytest.approx(0.0, abs=1e-3)
    assert KNOWN.judge(0.9, 0.0).confidence == pytest.approx(2 / (1 + np.exp(-4)) - 1, abs=1e-3)
    assert KNOWN.judge(0.1, 0.0).match == "none"
    assert KNOWN.judge(0.1, 0.0).confidence > 0.9


def test_all_words_are_a_match_whatever_the_vectors_say() -> None:
    assert judge(KNOWN, SPREAD, QUERY, 0.0, 1.0) == replace(CERTAIN, threshold=0.4)
    assert judge(None, None, QUERY, None, 1.25) == CERTAIN
    assert judge(KNOWN, SPREAD, QUERY, 0.0, 0.6) == replace(UNCERTAIN, threshold=0.4)
    assert judge(KNOWN, SPREAD, QUERY, 0.0, 0.2).match == "none"


@pytest.mark.parametrize("weights", [(10.0, 0.0), (3.0, 0.7), (0.0, 1.0)])
def test_below_its_threshold_a_picture_fits_nothing(weights: tuple[float, float]) -> None:
    known = Calibration(-3.0, weights, -1.0, 1.0, 0.9)
    threshold = judge(known, SPREAD, QUERY, 0.9, 0.0).threshold
    assert threshold is not None
    assert judge(known, SPREAD, QUERY, threshold - 1e-4, 0.0).match == "none"
    assert judge(known, SPREAD, QUERY, threshold + 1e-4, 0.0).match == "weak"


def test_a_threshold_that_nothing_tells_is_none() -> None:
    falling = Calibration(-3.0, (-10.0, 0.0), -1.0, 1.0, 0.9)
    assert judge(falling, SPREAD, QUERY, 0.9, 0.0).threshold is None
    assert judge(None, SPREAD, QUERY, 0.9, 0.0).threshold is None
    assert judge(KNOWN, SPREAD, QUERY, None, 0.0).threshold is None
    assert judge(KNOWN, SPREAD, QUERY, 0.9, 1.0, unknown=0.5).threshold is None  # most words say nothing to the model


def test_without_pictures_nothing_fits_and_without_a_measure_nobody_knows() -> None:
    assert judge(KNOWN, SPREAD, QUERY, None, 0.0) == NOTHING
    assert judge(None, SPREAD, QUERY, 0.9, 0.0) == UNCERTAIN
    assert [judge_words(1.0, True), judge_words(0.4, True), judge_words(0.0, False)] == [CERTAIN, UNCERTAIN, NOTHING]


def test_deviations_are_counted_from_the_querys_own_mean() -> None:
    cosines = SAMPLE @ QUERY
    (found,) = SPREAD.measure_deviations([1.0], QUERY[None])
    assert found == pytest.approx((1 - cosines.mean()) / cosines.std(), rel=1e-4)


def test_noise_lies_where_the_bank_lies() -> None:
    bank = normalise(RNG.standard_normal((300, 16)) * np.linspace(0.1, 1, 16) + 0.5)
    noise = make_noise(bank, 300)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), 1, atol=1e-5)
    assert float(noise.mean(axis=0) @ bank.mean(axis=0)) == pytest.approx(
        float((bank.mean(axis=0) ** 2).sum()), rel=0.1
    )
    np.testing.assert_allclose(noise.std(axis=0), bank.std(axis=0), rtol=0.35)


def test_of_words_that_the_model_does_not_know_its_vector_says_nothing() -> None:
    assert judge(KNOWN, SPREAD, QUERY, 0.9, 0.0, unknown=1.0) == NOT_READ
    assert judge(None, None, QUERY, 0.9, 0.0, unknown=1.0) == NOT_READ
    assert judge(KNOWN, SPREAD, QUERY, 0.9, 1.0, unknown=1.0) == CERTAIN
    assert judge(KNOWN, SPREAD, QUERY, 0.9, 0.0, unknown=0.4).match == "good"
    assert judge(KNOWN, SPREAD, QUERY, 0.9, 0.0, unknown=0.5) == UNCERTAIN
    assert judge(KNOWN, SPREAD, QUERY, 0.0, 0.2, unknown=0.5).match == "none"
