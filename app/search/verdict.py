"""Whether anything in a collection fits a query: `good`, `weak` or `none`.

A search always has a nearest picture. Two numbers say what its nearness is worth: the cosine, and how many standard
deviations that is above the mean of the query's own cosines over a sample of the collection. How they count is fitted
on the collection itself, by texts that have their picture there and texts that have none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.encoder.protocol import Embeddings

Match = Literal["good", "weak", "none"]
Floats = npt.NDArray[np.float64]

MIN_PICTURES = 50  # in fewer, nothing is known of how near wrong pictures are
MAX_LOST = 0.035  # of the texts that have their picture: below that quantile nothing fits
MAX_TAKEN_OWN = 0.10  # of the same texts without their picture: above that quantile the match is good
MAX_LOST_NOISE, MAX_TAKEN_NOISE = 0.90, 0.99  # quantiles of meaningless texts, where there are no captions
SEPARABLE_OWN, SEPARABLE_NOISE = 0.75, 0.70  # the AUROC below which the two sorts of texts look alike
ROUNDS = 50  # of Newton's method
RIDGE = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """`confidence` is 0 where it could be either, 1 where it is certain.

    What a picture with a cosine below `threshold` shows does not fit; None where that is not known.
    """

    match: Match
    confidence: float
    threshold: float | None = None


CERTAIN, UNCERTAIN, NOTHING = Verdict("good", 1.0), Verdict("weak", 0.0), Verdict("none", 1.0)
NOT_READ = Verdict("none", 0.5)
ALL_WORDS, HALF_OF_WORDS = 1.0, 0.5  # of a query
MOSTLY_UNKNOWN = 0.5  # of the words of a query: then nothing that the vectors find is certain


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fit of one collection: `logit = bias + weights · (cosine, deviations)`.

    Below `none` nothing fits; above `good` something does. `separation` is the AUROC between texts that have their
    picture and those that have none.
    """

    bias: float
    weights: tuple[float, float]
    none: float
    good: float
    separation: float

    def judge(self, cosine: float, deviations: float) -> Verdict:
        logit = float(self._logit(np.float64(cosine), np.float64(deviations)))
        probability = float(sigmoid(np.float64(logit)))
        match: Match = "none" if logit < self.none else "good" if logit > self.good else "weak"
        surplus = 2 * probability - 1
        confidence = {"good": surplus, "none": -surplus, "weak": abs(surplus)}[match]
        return Verdict(match, round(max(0.0, confidence), 3))

    def find_threshold(self, mean: float, deviation: float) -> float | None:
        """The cosine below which nothing fits a query whose cosines have this mean and standard deviation."""
        slope = self.weights[0] + self.weights[1] / deviation
        level = self.none - self.bias + self.weights[1] * mean / deviation
        return round(level / slope, 6) if slope > 0 else None

    def probability(self, cosines: npt.NDArray[np.floating], deviations: Floats) -> Floats:
        """That a picture with this cosine is the right one and not merely the nearest."""
        return sigmoid(self._logit(cosines, deviations))

    def _logit(self, cosine: npt.NDArray[np.floating] | np.floating, deviations: Floats | np.floating) -> Floats:
        return np.asarray(self.bias + self.weights[0] * cosine + self.weights[1] * deviations)


def judge(
    calibration: Calibration | None,
    spread: Spread | None,
    query: Embeddings,
    best: float | None,
    said: float,
    unknown: float = 0.0,
) -> Verdict:
    """The verdict on a query whose nearest picture has the cosine `best`, None if there is none.

    `said` is how much of the query's words a picture has: all of them are a match, whatever the model sees. `unknown`
    is how much of them the model does not know: then its vector says little, or nothing.
    """
    found = threshold = None
    if best is not None and calibration is not None and spread is not None:
        mean, deviation = spread.measure(query)
        found = calibration.judge(best, (best - mean) / deviation)
        if unknown < MOSTLY_UNKNOWN:
            threshold = calibration.find_threshold(mean, deviation)
    if said >= ALL_WORDS:
        verdict = CERTAIN
    elif best is None:
        verdict = NOTHING
    elif unknown == 1.0 and said < HALF_OF_WORDS:
        verdict = NOT_READ
    elif found is None or (found.match == "good" and unknown >= MOSTLY_UNKNOWN):
        verdict = UNCERTAIN
    else:
        verdict = UNCERTAIN if found.match == "none" and said >= HALF_OF_WORDS else found
    return replace(verdict, threshold=threshold)


def judge_words(said: float, has_hits: bool) -> Verdict:
    """The verdict of words alone."""
    return CERTAIN if said >= ALL_WORDS else UNCERTAIN if has_hits else NOTHING


def calibrate_by_captions(present: Floats, absent: Floats, noise: Floats) -> Calibration | None:
    """Fit (cosine, deviations) of texts that have their picture, and of the same texts without it.

    Where other pictures fit as well as their own, or no other is known, texts without a meaning stand for those without
    a picture: then nothing is called good. None if all of them look alike.
    """
    for others, is_sure in ((absent, True), (noise, False)):
        if not len(others):
            continue
        fitted = fit(present, others)
        logits, lower = apply(fitted, present), apply(fitted, others)
        separation = measure_auroc(logits, lower)
        if separation >= SEPARABLE_OWN:
            none = float(np.quantile(logits, MAX_LOST))
            good = max(none, float(np.quantile(lower, 1 - MAX_TAKEN_OWN))) if is_sure else np.inf
            return Calibration(*fitted, none, good, separation)
    return None


def calibrate_by_noise(asked: Floats, noise: Floats) -> Calibration | None:
    """Fit generic texts, of which the collection has some, and texts without a meaning; None if they look alike.

    The cosine alone counts: fitted to these, the deviations tell the two apart and not what fits.
    """
    bias, (weight, _) = fit(asked * [1, 0], noise * [1, 0])
    fitted = bias, (weight, 0.0)
    logits, others = apply(fitted, asked), apply(fitted, noise)
    separation = measure_auroc(logits, others)
    if separation < SEPARABLE_NOISE or weight <= 0:
        return None
    none, good = np.quantile(others, [MAX_LOST_NOISE, MAX_TAKEN_NOISE]).tolist()
    middle = (none + good) / 2  # where both are as likely; the fit has it between two mixed sorts
    return Calibration(bias - middle, (weight, 0.0), none - middle, good - middle, separation)


def make_noise(bank: Embeddings, count: int) -> Embeddings:
    """Unit vectors with the mean and the covariance of the bank's, as of texts that mean nothing."""
    middle = bank.mean(axis=0)
    draws = np.random.default_rng(0).standard_normal((count, len(bank)), np.float32) / np.sqrt(len(bank))
    vectors = middle + draws @ (bank - middle)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """The mean [d] and covariance [d, d] of a sample of pictures: they give those of any query's cosines over it."""

    mean: Embeddings
    covariance: Embeddings

    @classmethod
    def of(cls, sample: Embeddings) -> Spread:
        middle = sample.mean(axis=0, dtype=np.float64)
        others = sample - middle
        return cls(middle.astype(np.float32), (others.T @ others / len(sample)).astype(np.float32))

    def measure_deviations(self, best: npt.ArrayLike, queries: Embeddings) -> Floats:
        """How many standard deviations each best cosine is above the mean of its query's over the sample."""
        means, deviations = self._measure(queries)
        return np.asarray((np.asarray(best) - means) / deviations, np.float64)

    def measure(self, query: Embeddings) -> tuple[float, float]:
        """The mean and the standard deviation of the cosines of one query [d] over the sample."""
        means, deviations = self._measure(query[None])
        return float(means[0]), float(deviations[0])

    def _measure(self, queries: Embeddings) -> tuple[Floats, Floats]:
        # Not `@`: BLAS would wake its threads for each search, and they spin for milliseconds.
        turned = np.einsum("nd,de->ne", queries, self.covariance)
        variances = np.einsum("nd,nd->n", turned, queries)
        means = np.einsum("nd,d->n", queries, self.mean)
        return means.astype(np.float64), np.sqrt(np.maximum(variances, 1e-12)).astype(np.float64)


def fit(present: Floats, absent: Floats) -> tuple[float, tuple[float, float]]:
    """Logistic regression of two features, [n, 2] each, as if both sorts were as frequent."""
    both = np.concatenate([present, absent])
    middle, spread = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-9)
    features = np.column_stack([(both - middle) / spread, np.ones(len(both))])
    wanted = np.repeat([1.0, 0.0], [len(present), len(absent)])
    shares = np.repeat([0.5 / len(present), 0.5 / len(absent)], [len(present), len(absent)]) * len(both)
    weights = np.zeros(3)
    for _ in range(ROUNDS):
        odds = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        curvature = (features.T * (shares * (odds * (1 - odds) + 1e-6))) @ features + RIDGE * np.eye(3)
        weights += np.linalg.solve(curvature, features.T @ (shares * (wanted - odds)) - RIDGE * weights)
    slopes = weights[:2] / spread
    return float(weights[2] - slopes @ middle), (float(slopes[0]), float(slopes[1]))


def apply(fitted: tuple[float, tuple[float, float]], features: Floats) -> Floats:
    bias, weights = fitted
    return np.asarray(bias + features @ np.array(weights))


def measure_auroc(present: Floats, absent: Floats) -> float:
    """How often a text that has its picture lies above one that has none; half of the equal ones count."""
    ordered = np.sort(absent)
    below = np.searchsorted(ordered, present, "left") + np.searchsorted(ordered, present, "right")
    return float(below.mean() / (2 * len(absent)))


def sigmoid(logits: npt.NDArray[np.floating] | np.floating) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), np.float64)
