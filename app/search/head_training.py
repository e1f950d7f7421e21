"""Teaches a head: a linear map of text vectors, from pairs of pictures and texts whose vectors are there already.

It begins as the identity, is drawn back to it (Frobenius), and ends when pairs that it does not learn from get no
better. Other pairs, held out from all of this, tell what it is worth: it is refused unless more of their texts have
their picture among ten with 95 % confidence.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.core.errors import HeadRefused
from app.encoder.protocol import Embeddings, normalise
from app.search.evaluation import DEFAULT_K, Numbers, Ranks, bootstrap_means
from app.search.heads import Head

MIN_TEXTS = 100  # distinct ones that name their pictures; fewer say nothing
MAX_SHARED = 0.05  # of the pictures: a text that more of them have names none
HELD_OUT, STOPPING = 0.25, 0.1  # shares of the texts
MAX_STOPPING = 500  # texts that are tried while it learns
MAX_MEASURED = 4_000  # held-out texts, and pictures, that are tried at its end
BATCH = 512
RATE, REGULARISATION = 1e-3, 1.0
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam
MAX_STEPS, TRY_EVERY, PATIENCE = 1_500, 10, 12
MAX_SECONDS = 75.0  # of learning; only large models on few processors need as many
BLOCK = 256  # queries that are compared at once

Report = Callable[[float], None]
"""Gets the share of the work that is done; raises to end it."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Distinct texts and pictures, and which belong together.

    `own_pictures` and `own_texts` hold the numbers of the pictures of each text and of the texts of each picture;
    `groups` numbers the texts: those of one group share pictures, directly or by way of other texts.
    """

    texts: Sequence[str]
    own_pictures: Sequence[Numbers]
    own_texts: Sequence[Numbers]
    groups: Numbers
    left_out: int = 0  # pairs whose text too many pictures have


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of texts. No picture has texts in two of these."""

    learning: Numbers
    stopping: Numbers
    held_out: Numbers


@dataclass(frozen=True, slots=True)
class Taught:
    """A matrix and what was measured: both directions before and after, and how much R@10 of texts has risen."""

    head: Embeddings
    figures: dict[str, Any]
    gain: float
    confidence: tuple[float, float]
    maps_pictures: bool = field(default=False)


def select_pairs(texts: Sequence[str], owners: Sequence[int], pictures: Sequence[str]) -> Pairs:
    """The pairs to teach with; text i is of the picture `owners[i]`, and `pictures` are their ids."""
    spelled = [spell(text) for text in texts]
    pairs = dict.fromkeys(zip(spelled, owners, strict=True))
    shared = Counter(text for text, _ in pairs)
    most = max(1, int(MAX_SHARED * len(set(owners))))
    kept = [(text, owner) for text, owner in pairs if shared[text] <= most]
    numbers = {text: n for n, text in enumerate(dict.fromkeys(text for text, _ in kept))}
    own_pictures: list[list[int]] = [[] for _ in numbers]
    own_texts: list[list[int]] = [[] for _ in pictures]
    for text, owner in kept:
        own_pictures[numbers[text]].append(owner)
        own_texts[owner].append(numbers[text])
    written = dict(zip(reversed(spelled), reversed(texts), strict=True))
    return Pairs(
        [written[text] for text in numbers],
        [np.array(own, np.int64) for own in own_pictures],
        [np.array(own, np.int64) for own in own_texts],
        group_texts(own_pictures, own_texts),
        len(pairs) - len(kept),
    )


def spell(text: str) -> str:
    """The same for texts that differ in case, spaces and Unicode form alone."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def group_texts(own_pictures: Sequence[Sequence[int]], own_texts: Sequence[Sequence[int]]) -> Numbers:
    """A number for each text; those that share a picture, or are linked by others that do, have the same."""
    groups = np.full(len(own_pictures), -1, np.int64)
    for first in range(len(own_pictures)):
        waiting = [first] if groups[first] < 0 else []
        while waiting:
            text = waiting.pop()
            if groups[text] < 0:
                groups[text] = first
                waiting += [other for picture in own_pictures[text] for other in own_texts[picture]]
    return groups


def split_pairs(pairs: Pairs, pictures: Sequence[str]) -> Split:
    """Part the groups by digests of their pictures' ids, so that the same pairs are always parted in the same way.

    Raises HeadRefused where there are too few.
    """
    count = len(pairs.texts)
    if count < MIN_TEXTS:
        shared = f" ({pairs.left_out} more belong to many pictures each)" if pairs.left_out else ""
        texts = "text is" if count == 1 and not shared else f"texts{shared} are"
        raise HeadRefused(f"{count} distinct {texts} too few to teach with: {MIN_TEXTS} are needed")
    keys: dict[int, str] = {}
    for text, own in enumerate(pairs.own_pictures):
        group = int(pairs.groups[text])
        keys[group] = min(keys.get(group, "~"), min(pictures[n] for n in own))
    digests = {group: hashlib.sha256(key.encode()).digest() for group, key in keys.items()}
    order = sorted(range(count), key=lambda text: (digests[int(pairs.groups[text])], pairs.groups[text], text))
    sizes = Counter(pairs.groups.tolist())
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])  # held out, stopping, learning
    for text in order:
        group = int(pairs.groups[text])
        if sizes[group]:  # its first text: all of them go where this one goes
            room = [n for n, share in enumerate((HELD_OUT, STOPPING)) if len(parts[n]) + sizes[group] <= share * count]
            chosen = room[0] if room else 2
            members = [other for other in order if pairs.groups[other] == group] if sizes[group] > 1 else [text]
            parts[chosen].extend(members)
            sizes[group] = 0
    held_out, stopping, learning = (np.array(part, np.int64) for part in parts)
    if len(held_out) < HELD_OUT * MIN_TEXTS / 2 or not len(stopping):
        raise HeadRefused("most texts hang together by shared pictures: too few can be held out to measure by")
    return Split(learning, stopping, held_out)


def teach(
    texts: Embeddings, images: Embeddings, pairs: Pairs, split: Split, temperature: float, report: Report
) -> Taught:
    """Learn a head from unit vectors of the texts of `pairs` and of all pictures, and measure it."""
    matrix = learn(texts, images, pairs, split, temperature, report)
    return measure(matrix, texts, images, pairs, split.held_out[:MAX_MEASURED])


def learn(
    texts: Embeddings, images: Embeddings, pairs: Pairs, split: Split, temperature: float, report: Report
) -> Embeddings:
    """The matrix [d, d] that ranks the pictures of the stopping texts best, on its way by Adam."""
    rng = np.random.default_rng(0)
    learner = Learner(texts.shape[1], temperature)
    trial = split.stopping[:MAX_STOPPING]
    pictures = np.unique(np.concatenate([pairs.own_pictures[text] for text in (*split.learning, *split.stopping)]))
    places = np.full(len(images), -1, np.int64)
    places[pictures] = np.arange(len(pictures))
    own, candidates = [places[pairs.own_pictures[text]] for text in trial], images[pictures]
    best, best_loss, worse = learner.matrix.copy(), np.inf, 0
    until = time.monotonic() + MAX_SECONDS
    for step in range(MAX_STEPS):
        report(step / MAX_STEPS)
        if step % TRY_EVERY == 0:
            ranks = rank_best(normalise(texts[trial] @ learner.matrix), candidates, own)
            loss, worse = float(np.log(ranks).mean()), worse + 1
            if loss < best_loss:
                best, best_loss, worse = learner.matrix.copy(), loss, 0
            if worse > PATIENCE or time.monotonic() > until:
                break
        chosen = rng.permutation(split.learning)[:BATCH]
        shown = np.array([rng.choice(pairs.own_pictures[text]) for text in chosen])
        learner.step(texts[chosen], images[shown], shown)
    return best


class Learner:
    """A matrix, and Adam's steps on it: symmetric InfoNCE with the model's temperature, drawn to the identity."""

    def __init__(self, d: int, temperature: float) -> None:
        self.matrix = np.eye(d, dtype=np.float32)
        self._temperature = np.float32(temperature)
        self._means = np.zeros((2, d, d), np.float32)
        self._count = 0

    def step(self, texts: Embeddings, images: Embeddings, shown: Numbers) -> None:
        """Learn from rows that belong together.

        Rows of the same number in `shown`, which are of one picture, are no examples against each other.
        """
        gradient = self._find_gradient(texts, images, shown)
        self._count += 1
        first, second = self._means
        first += (1 - BETAS[0]) * (gradient - first)
        second += (1 - BETAS[1]) * (gradient * gradient - second)
        scale = np.sqrt(second / (1 - BETAS[1] ** self._count)) + EPSILON
        self.matrix -= RATE / (1 - BETAS[0] ** self._count) * first / scale

    def _find_gradient(self, texts: Embeddings, images: Embeddings, shown: Numbers) -> Embeddings:
        """Of the loss by the matrix, float32 [d, d]."""
        n, d = texts.shape
        mapped = texts @ self.matrix
        lengths = np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), 1e-12)
        unit = mapped / lengths
        logits = self._temperature * (unit @ images.T)
        logits[(shown[:, None] == shown[None, :]) & ~np.eye(n, dtype=bool)] = -np.inf
        error = softmax(logits, 1) + softmax(logits, 0)
        error[np.arange(n), np.arange(n)] -= 2
        by_unit = self._temperature / (2 * n) * (error @ images)
        by_mapped = (by_unit - (by_unit * unit).sum(axis=1, keepdims=True) * unit) / lengths
        drawn = 2 * REGULARISATION / d * (self.matrix - np.eye(d, dtype=np.float32))
        return np.asarray(texts.T @ by_mapped + drawn, np.float32)


def softmax(logits: Embeddings, axis: int) -> Embeddings:
    odds = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(odds / odds.sum(axis=axis, keepdims=True), np.float32)


def rank_best(queries: Embeddings, candidates: Embeddings, own: Sequence[Numbers]) -> Numbers:
    """The rank, from 1, of the best own candidate of each query; an equal score of another comes before."""
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ candidates.T
        best = np.array([scores[n, own[start + n]].max() for n in range(len(scores))])
        ties = np.array([(scores[n, own[start + n]] == best[n]).sum() for n in range(len(scores))])
        ranks[start : start + BLOCK] = 1 + (scores >= best[:, None]).sum(axis=1) - ties
    return ranks


def measure(matrix: Embeddings, texts: Embeddings, images: Embeddings, pairs: Pairs, held_out: Numbers) -> Taught:
    """Both directions before and after, for held-out texts and their pictures, among all pictures and all texts."""
    head = Head("", matrix)
    own = [pairs.own_pictures[text] for text in held_out]
    queries = texts[held_out]
    ranks = [rank_best(vectors, images, own) for vectors in (queries, head.map_texts(queries))]
    found = np.stack([rank <= DEFAULT_K[-1] for rank in ranks]).astype(np.float64)
    gain = found[1] - found[0]
    low, high = bootstrap_means(gain[:, None], pairs.groups[held_out])
    confidence = (round(float(low[0]), 4), round(float(high[0]), 4))
    shown = np.unique(np.concatenate(own))[:MAX_MEASURED]
    said = [pairs.own_texts[picture] for picture in shown]
    back = [rank_best(vectors, texts, said) for vectors in (images[shown], normalise(images[shown] @ matrix.T))]
    maps_pictures = bool((back[1] <= DEFAULT_K[-1]).mean() >= (back[0] <= DEFAULT_K[-1]).mean())
    of_picture = pairs.groups[[numbers[0] for numbers in said]]
    rise = round(float(gain.mean()), 4)
    figures = {
        "text_to_image": _compare(ranks, pairs.groups[held_out]),
        "image_to_text": _compare(back, of_picture),
        "gain": rise,
        "confidence": list(confidence),
        "pictures": len(images),
    }
    return Taught(matrix, figures, rise, confidence, maps_pictures)


def _compare(ranks: Sequence[Numbers], groups: Numbers) -> dict[str, Any]:
    before, after = (Ranks(one, groups).summarize(DEFAULT_K) for one in ranks)
    return {"before": before, "after": after}


def require_gain(taught: Taught) -> None:
    """Raise HeadRefused unless the head helps, and say by how much it does or does not."""
    both = taught.figures["text_to_image"]
    if not np.isfinite(taught.head).all() or taught.confidence[0] <= 0:
        before, after = both["before"]["R@10"], both["after"]["R@10"]
        low, high = taught.confidence
        raise HeadRefused(
            f"the head was refused: of {both['before']['n']} held-out texts, {before:.1%} have their picture among ten"
            f" without it and {after:.1%} with it; the difference is between {low:+.1%} and {high:+.1%} with 95 %"
            " confidence, and must be above zero"
        )
