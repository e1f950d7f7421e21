"""Auto-tags: which labels of a collection fit a picture, by the vectors that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from app.core.types import Label
from app.encoder.protocol import Embeddings
from app.search.collection_profile import UNKNOWN
from app.search.searcher import Searcher
from app.search.templates import PLAIN, average, fill, is_short
from app.search.verdict import Floats
from app.search.zero_shot import PairJudge

Basis = Literal["pairs", "shares", "none"]
"""What probabilities are: of each label by itself; its share among the labels; or nothing, where there is one label."""

MAX_TAGS = 20  # of a picture: the likeliest
TEXTS_AT_ONCE = 32  # encoded, so that searches get their turn in between


@dataclass(frozen=True, slots=True, eq=False)
class Tagger:
    """The labels of a collection as vectors [n, d], for pictures of `space` and texts that went through `head`."""

    labels: Sequence[Label]
    vectors: Embeddings = field(repr=False)
    judge: PairJudge
    space: str
    head: str | None

    @property
    def basis(self) -> Basis:
        if self.judge.can_judge:
            return "pairs"
        return "shares" if len(self.labels) > 1 else "none"

    def tag(self, pictures: Embeddings) -> list[dict[str, float]]:
        """The tags of each picture [m, d] with their probabilities, the likeliest first."""
        if not self.labels or self.basis == "none" or not len(pictures):
            return [{} for _ in pictures]
        shares = self.rate(pictures)
        passes = shares >= np.array([label.threshold for label in self.labels])
        found = []
        for row, there in zip(shares, passes, strict=True):
            places = np.flatnonzero(there)
            best = places[np.argsort(-row[places], kind="stable")[:MAX_TAGS]]
            found.append({self.labels[n].label: float(row[n]) for n in best.tolist()})
        return found

    def rate(self, pictures: Embeddings) -> Floats:
        """The probability [m, n] of each label for each picture."""
        scores = pictures @ self.vectors.T
        shares = self.judge.judge(scores, self.vectors)
        if shares is not None:
            return shares
        logits = self.judge.temperature * scores.astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)


def open_tagger(
    searcher: Searcher, collection: str, labels: Sequence[Label], judge: PairJudge | None = None
) -> Tagger | None:
    """Encode the labels of a collection; None while it is not known yet how near its pictures are to texts.

    Raises NotFound, Busy.
    """
    judge = judge or searcher.zero_shot.open_judge(collection)
    head = searcher.heads.get(collection)
    if judge.profile is UNKNOWN:
        return None
    texts: dict[str, None] = {}
    sentences: list[list[str]] = []
    for label in labels:
        filled = [fill(template, text) for text in label.texts for template in choose_templates(label, text, judge)]
        sentences.append(filled)
        texts |= dict.fromkeys(filled)
    encoded = dict(zip(texts, encode(searcher, list(texts)), strict=True))
    rows = [average([encoded[text] for text in filled]) for filled in sentences]
    space = searcher.space
    vectors = np.stack(rows) if rows else np.empty((0, space.d), np.float32)
    if head is not None and rows:
        vectors = head.map_texts(vectors)
    return Tagger(labels, vectors, judge, space.fingerprint, head.id if head else None)


def choose_templates(label: Label, text: str, judge: PairJudge) -> Sequence[str]:
    """Those of the label; without any, those that were measured to help in this collection, for few words."""
    if label.templates is not None:
        return label.templates
    return judge.profile.templates if is_short(text) else PLAIN


def encode(searcher: Searcher, texts: Sequence[str]) -> list[Embeddings]:
    vectors: list[Embeddings] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some = searcher.encode_texts(texts[start : start + TEXTS_AT_ONCE])
        vectors += [np.frombuffer(vector, "<f4") for vector in some]
    return vectors
