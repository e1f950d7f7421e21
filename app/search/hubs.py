"""Nearest-neighbour normalisation: pictures that are near to every text ("hubs") are ranked down.

The bias of a picture is how near it is to a bank of reference texts. We take the logarithm of their mean softmax weight
at the model's own temperature, the smooth form of a mean of the k nearest, because it gained more in our measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.encoder.protocol import Embeddings
from index.types import Ids, Scores

DEPTH = 256  # of the nearest pictures are ranked again, whatever k is
STRENGTHS = (0.5, 0.75)  # of the bias, of which the better one is taken
MAX_LOSS = 0.002  # of the queries of a held-out half that may lose their picture
MIN_QUERIES = 64  # fewer say nothing about a gain
MAX_EXPONENT = 80.0  # of float32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HubBiases:
    """What is subtracted from the cosine of each picture: `keys` in their order, `biases` of each.

    `unknown` is the bias of a picture that has come since.
    """

    keys: Ids
    biases: Floats
    unknown: float

    def rerank(self, scores: Scores, keys: Ids) -> Ids:
        """The keys, best first, in the order of cosine less bias. Those behind DEPTH stay where they are."""
        head = keys[:DEPTH]
        places = np.minimum(np.searchsorted(self.keys, head), len(self.keys) - 1)
        biases = np.where(self.keys[places] == head, self.biases[places], self.unknown)
        order = np.argsort(biases - scores[:DEPTH], kind="stable")
        return np.concatenate([head[order], keys[DEPTH:]])


def measure_biases(pictures: Embeddings, bank: Embeddings, temperature: float) -> Floats:
    """How near each picture is to the texts of the bank, as a cosine: float32 [n]."""
    logits = temperature * (pictures @ bank.T)
    top = logits.max(axis=1, keepdims=True)
    means = np.exp(np.maximum(logits - top, -MAX_EXPONENT)).mean(axis=1)
    return np.asarray((top[:, 0] + np.log(means)) / temperature, np.float32)


def choose_strength(
    queries: Embeddings, own: Sequence[int], pictures: Embeddings, bank: Embeddings, temperature: float
) -> float:
    """The strength with which more queries find their own picture first; 0 where that is not sure.

    `own` is the row of each query's picture. Each half of the queries is asked with the other half in the bank: the
    first half chooses, the other one may lose no more than MAX_LOSS of its pictures.
    """
    if len(queries) < MIN_QUERIES:
        return 0.0
    rows, order = np.asarray(own), np.random.default_rng(0).permutation(len(queries))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    biases = [measure_biases(pictures, np.concatenate([queries[half], bank]), temperature) for half in halves]
    scores = [queries[half] @ pictures.T for half in halves]
    asked = [(scores[0], rows[halves[0]], biases[1]), (scores[1], rows[halves[1]], biases[0])]
    plain = [is_first(found, right) for found, right, _ in asked]
    gains = {
        strength: [
            is_first(found - strength * bias, right) ^ before
            for (found, right, bias), before in zip(asked, plain, strict=True)
        ]
        for strength in STRENGTHS
    }
    best = max(STRENGTHS, key=lambda strength: count_gain(gains[strength][0], plain[0]))
    changed = np.concatenate(gains[best])
    gain = count_gain(changed, np.concatenate(plain))
    is_safe = count_gain(gains[best][1], plain[1]) >= -MAX_LOSS * len(plain[1])
    return best if is_safe and gain > float(np.sqrt(changed.sum())) else 0.0


def is_first(scores: Scores, own: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Whether no other picture has a higher score than the own one of each query."""
    return np.asarray(scores.max(axis=1) <= scores[np.arange(len(scores)), own])


def count_gain(changed: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> int:
    """How many more queries find their picture first, of those that changed."""
    return int((changed & ~before).sum()) - int((changed & before).sum())
