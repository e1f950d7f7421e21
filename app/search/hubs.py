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
STRENGTH = 0.75  # of the bias that is subtracted
MIN_QUERIES = 64  # fewer say nothing about a gain
SURE = 0.5  # standard deviations of chance
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


def do_biases_help(
    queries: Embeddings, own: Sequence[int], pictures: Embeddings, bank: Embeddings, temperature: float
) -> bool:
    """Whether more queries find their own picture first.

    `own` is the row of each query's picture. Each half of the queries is asked with the other half in the bank.
    """
    if len(queries) < MIN_QUERIES:
        return False
    rows, order = np.asarray(own), np.random.default_rng(0).permutation(len(queries))
    halves = order[::2], order[1::2]
    before, changed = [], []
    for asked, known in (halves, halves[::-1]):
        biases = measure_biases(pictures, np.concatenate([queries[known], bank]), temperature)
        scores = queries[asked] @ pictures.T
        before.append(is_first(scores, rows[asked]))
        changed.append(is_first(scores - STRENGTH * biases, rows[asked]) ^ before[-1])
    return is_gain(np.concatenate(changed), np.concatenate(before))


def is_first(scores: Scores, own: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Whether no other picture has a higher score than the own one of each query."""
    return np.asarray(scores.max(axis=1) <= scores[np.arange(len(scores)), own])


def is_gain(changed: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> bool:
    """Whether more of the changed queries found their picture than lost it, by SURE standard deviations of chance."""
    gain = int((changed & ~before).sum()) - int((changed & before).sum())
    return gain > SURE * float(np.sqrt(changed.sum()))
