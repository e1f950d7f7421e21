"""Which texts fit a picture: labels that are sent (zero-shot classification), and texts one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.core.types import AnswerWarning
from app.encoder.protocol import Embeddings, Encoder
from app.search.collection_profile import UNKNOWN, CollectionProfiles, Profile, Use
from app.search.heads import HeadCache
from app.search.query_encoder import QueryEncoder, QueryPart
from app.search.statements import make_statements, read_yes_or_no
from app.search.verdict import Floats, sigmoid

LABEL_PLACEHOLDER = re.compile(r"\{label\}|\{\}")  # where a label goes in a template
NOT_CALIBRATED = (
    "this collection does not tell yet how near a text must be to fit: it has too few pictures, was not measured yet,"
    " or its right texts are no nearer than others; compare the scores of several texts"
)

NO_DECISION = (
    "yes or no is a guess here: this collection does not tell yet how near a text must be to fit, and the model hardly"
    " reads negations"
)


@dataclass(frozen=True, slots=True, eq=False)
class PairJudge:
    """How probable it is that a text fits a picture, each pair by itself: by the model's own bias where it has one,
    otherwise as the collection is calibrated."""

    temperature: float
    bias: float | None
    profile: Profile

    @property
    def can_judge(self) -> bool:
        return self.bias is not None or (self.profile.calibration is not None and self.profile.spread is not None)

    def judge(self, scores: Embeddings, vectors: Embeddings) -> Floats | None:
        """Probabilities [m, n] of the cosines [m, n] of m pictures with n texts, whose `vectors` are [n, d].

        None where nothing tells them.
        """
        if self.bias is not None:
            return sigmoid(self.temperature * scores + self.bias)
        if (calibration := self.profile.calibration) is None or (spread := self.profile.spread) is None:
            return None
        nothing = spread.measure_deviations(np.zeros(len(vectors)), vectors)  # linear in the cosine
        one = spread.measure_deviations(np.ones(len(vectors)), vectors)
        return calibration.probability(scores, nothing + scores * (one - nothing))


class ZeroShot:
    """Compares a picture with texts. Its methods block; callers run them in threads."""

    def __init__(
        self, encoder: Encoder, query_encoder: QueryEncoder, profiles: CollectionProfiles, heads: HeadCache, use: Use
    ) -> None:
        self._encoder = encoder
        self._query_encoder = query_encoder
        self._reader = query_encoder.reader
        self._profiles = profiles
        self._heads = heads
        self._use = use

    def warn_of_labels(self, labels: Sequence[str], template: str) -> list[AnswerWarning]:
        """What is odd about the labels and the template of a classification, and which labels it makes too long."""
        words = " ".join(LABEL_PLACEHOLDER.split(template))
        found = [one for one in self._reader.warn(words, "template") if one.code == "language_unknown"]
        for n, label in enumerate(labels):
            found += self._reader.warn(label, f"labels.{n}", fill_template(template, label))
        return found

    def classify(
        self, collection: str, part: QueryPart, labels: Sequence[str], template: str
    ) -> list[tuple[str, float]]:
        """Labels with their probabilities, likeliest first.

        A softmax with the model's own temperature; of a model that was trained to judge each pair alone, its sigmoid.
        """
        with self._use(collection, "images"):  # raises NotFound
            pass
        sentences = [fill_template(template, label) for label in labels]
        image = self._query_encoder.embed(collection, [part])
        vectors = self._encode_for_pictures(collection, sentences)
        logits = self._encoder.temperature * (vectors @ image)
        bias = self._encoder.logit_bias
        shares = softmax(logits) if bias is None else sigmoid(logits + bias).tolist()
        order = np.argsort(-logits, kind="stable")
        return [(labels[n], shares[n]) for n in order]

    def answer(
        self, collection: str, part: QueryPart, question: str, answers: Sequence[str]
    ) -> tuple[list[float], list[AnswerWarning]]:
        """The probability of each answer to a question about a picture, if one of them is right, and warnings.

        Yes or no is decided by how well the statement fits alone, where the collection tells that: a model hardly reads
        "no" and "not". Raises NotFound, Validation, Busy.
        """
        statements = make_statements(question, answers)
        warnings = list(self._reader.warn(question, "question"))
        for n, statement in enumerate(statements):
            warnings += self._reader.warn(answers[n], f"answers.{n}", statement)
        decisions = [read_yes_or_no(answer) for answer in answers]
        if set(decisions) == {True, False} and len(answers) == 2 and len(set(statements)) == 2:
            [(_, share)] = self.match(collection, part, [statements[decisions.index(True)]])
            if share is not None:
                return [share if is_yes else 1.0 - share for is_yes in decisions], warnings
            warnings.append(AnswerWarning("not_calibrated", NO_DECISION, "answers"))
        with self._use(collection, "images"):  # raises NotFound
            pass
        image = self._query_encoder.embed(collection, [part])
        return softmax(
            self._encoder.temperature * (self._encode_for_pictures(collection, statements) @ image)
        ), warnings

    def match(self, collection: str, part: QueryPart, words: Sequence[str]) -> list[tuple[float, float | None]]:
        """The cosine of a picture with each text, and the probability that it fits; None where nothing tells that.

        Raises NotFound, Rejected, Busy.
        """
        judge = self.open_judge(collection)
        image = self._query_encoder.embed(collection, [part])
        vectors = self._encode_for_pictures(collection, words)
        scores = vectors @ image
        shares = judge.judge(scores[None], vectors)
        found = [None] * len(words) if shares is None else shares[0].tolist()
        return list(zip(scores.tolist(), found, strict=True))

    def open_judge(self, collection: str, growth: int = 1) -> PairJudge:
        """What judges pairs now; it does not wait for the collection to be measured. Raises NotFound.

        A collection that has grown less than `growth` times is not measured again on this account.
        """
        head = self._heads.get(collection)
        with self._use(collection, "images") as index:
            profile = self._profiles.get(collection, 0, head)
            if profile is UNKNOWN or index.ntotal >= growth * profile.size:
                profile = self._profiles.get(collection, index.ntotal, head)
        return PairJudge(self._encoder.temperature, self._encoder.logit_bias, profile)

    def _encode_for_pictures(self, collection: str, words: Sequence[str]) -> Embeddings:
        """The vectors of texts [n, d] to compare with pictures of this collection: through its head, if it uses one."""
        vectors = np.stack(self._query_encoder.encode_texts(words))
        return vectors if (head := self._heads.get(collection)) is None else head.map_texts(vectors)

    def warn_of_matches(self, words: Sequence[str], found: Sequence[tuple[float, float | None]]) -> list[AnswerWarning]:
        """What is odd about the texts of a match, and whether nothing tells how probable they are."""
        warnings = [one for n, text in enumerate(words) for one in self._reader.warn(text, f"text.{n}")]
        if any(share is None for _, share in found):
            warnings.append(AnswerWarning("not_calibrated", NOT_CALIBRATED))
        return warnings


def softmax(logits: Embeddings) -> list[float]:
    """The shares of the exponentials of numbers."""
    odds = np.exp(logits.astype(np.float64) - logits.max())
    shares: list[float] = (odds / odds.sum()).tolist()
    return shares


def fill_template(template: str, label: str) -> str:
    """The template with the label in each of its blanks."""
    return label.join(LABEL_PLACEHOLDER.split(template))
