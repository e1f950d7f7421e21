"""How good a search is on pairs of pictures and texts: recall, median rank, confidence, and the worst misses.

The definitions are those of CLIP's paper and of `clip_benchmark`: a text is found at k if its picture is among the
first k of all pictures of the set, a picture if one of its texts is among the first k of all texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from app.encoder.protocol import Embeddings

Numbers = npt.NDArray[np.int64]
Check = Callable[[], None]

DEFAULT_K = (1, 5, 10)
MIN_QUERIES = 30  # fewer say too little for an interval
RESAMPLES = 1_000
CONFIDENCE = 0.95
BLOCK = 256  # queries that are compared at once
MISSES = 12  # of each direction that are kept
MIN_OF_LANGUAGE = 5  # texts, to tell figures of a language


def do_nothing() -> None:
    """For work that nobody stops."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A query that finds its own only at `rank`; `first` is what it finds first. All are numbers in the set."""

    query: int
    own: int
    rank: int
    first: int


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank, from 1, of the own candidate of each query; `groups` are the pictures that the queries are of."""

    ranks: Numbers
    groups: Numbers

    def summarize(self, ks: Sequence[int]) -> dict[str, Any]:
        """`R@k` for each k, the median rank, and the 95 % confidence of each recall (None for too few queries)."""
        found = np.stack([self.ranks <= k for k in ks], axis=1).astype(np.float64)
        names = [f"R@{k}" for k in ks]
        recall = found.mean(axis=0) if len(found) else np.zeros(len(ks))
        low, high = bootstrap_means(found, self.groups)
        enough = len(np.unique(self.groups)) >= MIN_QUERIES
        return {
            **{name: round(float(value), 4) for name, value in zip(names, recall, strict=True)},
            "median_rank": float(np.median(self.ranks)) if len(self.ranks) else None,
            "n": len(self.ranks),
            "confidence": {
                name: [round(float(low[n]), 4), round(float(high[n]), 4)] if enough else None
                for n, name in enumerate(names)
            },
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Both directions, by language, and the worst misses of each direction."""

    text_to_image: dict[str, Any]
    image_to_text: dict[str, Any]
    languages: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    missed_texts: Sequence[Miss] = ()
    missed_pictures: Sequence[Miss] = ()


def evaluate(
    images: Embeddings,
    texts: Embeddings,
    owners: Sequence[int],
    ks: Sequence[int] = DEFAULT_K,
    languages: Sequence[str] = (),
    check: Check = do_nothing,
) -> Evaluation:
    """Measure unit vectors of pictures [n, d] and texts [t, d]; text i is of the picture `owners[i]`.

    `languages` are those of the texts. `check` is called several times a second, and may raise.
    """
    of = np.asarray(owners, np.int64)
    by_text, by_image = rank_images(images, texts, of, check), rank_texts(images, texts, of, check)
    spoken = np.asarray(languages)
    parts = {}
    for language in sorted(set(languages)):
        chosen = np.flatnonzero(spoken == language)
        if len(set(languages)) > 1 and len(chosen) >= MIN_OF_LANGUAGE:
            parts[language] = {
                "text_to_image": Ranks(by_text.ranks[chosen], of[chosen]).summarize(ks),
                "image_to_text": rank_texts(images, texts[chosen], of[chosen], check).summarize(ks),
            }
    return Evaluation(
        by_text.summarize(ks),
        by_image.summarize(ks),
        parts,
        list(find_misses(by_text.ranks, np.arange(len(of)), of, texts, images)),
        list(find_misses(by_image.ranks, by_image.groups, by_image.groups, images, texts)),
    )


def rank_images(images: Embeddings, texts: Embeddings, owners: Numbers, check: Check = do_nothing) -> Ranks:
    """The rank of each text's own picture among all pictures. Of equal scores the candidate that comes first wins."""
    ranks = np.empty(len(texts), np.int64)
    places = np.arange(len(images))
    for start in range(0, len(texts), BLOCK):
        check()
        own = owners[start : start + BLOCK]
        scores = texts[start : start + BLOCK] @ images.T
        score = scores[np.arange(len(own)), own][:, None]
        before = (scores > score) | ((scores == score) & (places < own[:, None]))
        ranks[start : start + BLOCK] = 1 + before.sum(axis=1)
    return Ranks(ranks, owners)


def rank_texts(images: Embeddings, texts: Embeddings, owners: Numbers, check: Check = do_nothing) -> Ranks:
    """For each picture that has texts, the rank of the best of them among all texts."""
    pictures = np.unique(owners)
    ranks = np.empty(len(pictures), np.int64)
    places = np.arange(len(texts))
    order = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[order], pictures)
    own_texts = dict(zip(pictures.tolist(), np.split(order, starts[1:]), strict=True)) if len(pictures) else {}
    for start in range(0, len(pictures), BLOCK):
        check()
        block = pictures[start : start + BLOCK]
        scores = images[block] @ texts.T
        for n, picture in enumerate(block.tolist()):
            own = own_texts[picture]
            best = own[np.argmax(scores[n, own])]
            score = scores[n, best]
            ranks[start + n] = 1 + ((scores[n] > score) | ((scores[n] == score) & (places < best))).sum()
    return Ranks(ranks, pictures)


def find_misses(
    ranks: Numbers, queries: Numbers, own: Numbers, vectors: Embeddings, candidates: Embeddings
) -> Iterator[Miss]:
    """The queries that find their own last, worst first, with what they find first.

    Query i is the row `queries[i]` of `vectors`, and of the picture `own[i]`.
    """
    for n in islice(np.argsort(-ranks, kind="stable").tolist(), MISSES):
        if ranks[n] > 1:
            first = int(np.argmax(candidates @ vectors[queries[n]]))
            yield Miss(int(queries[n]), int(own[n]), int(ranks[n]), first)


def bootstrap_means(
    values: npt.NDArray[np.float64], groups: Numbers, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The ends of the 95 % confidence intervals of the means of the columns [n, m], by a bootstrap over groups.

    All queries of one picture are drawn together, because they are not independent.
    """
    if not len(values):
        return np.zeros(values.shape[1]), np.zeros(values.shape[1])
    _, numbers = np.unique(groups, return_inverse=True)
    size = int(numbers.max()) + 1
    sums = np.zeros((size, values.shape[1] + 1))
    np.add.at(sums, numbers, np.column_stack([values, np.ones(len(values))]))
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = sums[rng.integers(0, size, size)].sum(axis=0)
        means.append(drawn[:-1] / drawn[-1])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.stack(means), [tail, 1 - tail], axis=0)
    return low, high
