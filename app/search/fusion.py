"""Fuses the ranking of the vectors with that of the words into one, by reciprocal rank.

A ranking counts as much as it is sure: the words as far as the picture has all of them, the vectors as far as the
model knows the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul

from app.storage.keywords import Words, drop_stop_words, split_words

Described = tuple[str | None, tuple[str, ...], str | None]
"""The caption, tags and source of a picture."""

DEPTH = 60  # places of each ranking that are fused
RANK_OFFSET = 60  # the k of reciprocal rank fusion
WORDS_WEIGHT = 2.0  # of a picture that has every word of the query: more than the first place of the vectors
LEAST_VECTORS = 0.02  # weight of the vectors of a model that knows nothing of these pictures
FOLDER_SHARE = 0.7  # how much a term counts that is in the folder's name
PART_SHARE = 0.5  # how much a term counts that is a part of a word
UNKNOWN_SHARE = 0.5  # how much of the query a term is that no candidate has
NAMED = 1.25  # how sure a picture is whose whole caption, tag or file name is the query
MIN_PART = 3  # characters


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each ranking counts, as the caller wants it."""

    vector: float = 1.0
    keyword: float = 1.0


EQUAL_WEIGHTS = Weights()


@dataclass(frozen=True, slots=True)
class WordMatch:
    """How a picture has the terms of a query: the share of each, whether it is named so, and the words as written."""

    shares: tuple[float, ...]
    is_named: bool
    highlights: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class FusedHit:
    """A place in the fused ranking: the picture, its ranks from 1 in the rankings that have it, and the words found."""

    key: int
    ranks: Mapping[str, int]
    highlights: Mapping[str, Sequence[str]]


def fuse(
    terms: Sequence[Words],
    described: Mapping[int, Described],
    by_vectors: Sequence[int],
    by_words: Sequence[int],
    weights: Weights,
    trust: float,
) -> list[FusedHit]:
    """The pictures of both rankings in the fused order.

    The first DEPTH of each ranking are fused; the others follow, so that the order does not depend on how many are
    asked for. `by_vectors` and `by_words` are keys, best first; `described` are those that have words of the query;
    `trust` is that of the model, 0 to 1 (see `ModelTrust`).
    """
    near = {key: n for n, key in enumerate(by_vectors, 1)}
    heads = dict.fromkeys([*by_words[:DEPTH], *by_vectors[:DEPTH]])
    matches = {key: match_words(terms, described[key]) for key in heads if key in described}
    sure = rate_matches(matches)
    words = sorted((key for key in matches if sure[key]), key=lambda key: -sure[key])
    word_ranks = {key: n for n, key in enumerate(words, 1)}
    first_ranks: dict[float, int] = {}
    for key, rank in word_ranks.items():
        first_ranks.setdefault(sure[key], rank)
    scores = dict.fromkeys(heads, 0.0)
    for rank, key in enumerate(by_vectors[:DEPTH], 1):
        scores[key] += weights.vector * max(LEAST_VECTORS, trust) / (RANK_OFFSET + rank)
    for key, rank in word_ranks.items():
        first = first_ranks[sure[key]]  # of those that are as sure: a model that knows them decides
        weight = weights.keyword * WORDS_WEIGHT * sure[key] ** (1 + trust)
        scores[key] += weight / (RANK_OFFSET + first + (rank - first) * (1 - trust))
    order = dict.fromkeys([*sorted(heads, key=lambda key: -scores[key]), *by_words, *by_vectors])
    word_ranks |= {key: n for n, key in enumerate(by_words[DEPTH:], len(word_ranks) + 1) if key not in word_ranks}
    return [
        FusedHit(
            key,
            {name: ranks[key] for name, ranks in (("vector", near), ("keyword", word_ranks)) if key in ranks},
            matches[key].highlights if key in matches else {},
        )
        for key in order
    ]


def rate_matches(matches: Mapping[int, WordMatch]) -> dict[int, float]:
    """How sure it is that each picture is meant: the share of the query that it has, or NAMED."""
    columns = list(zip(*(match.shares for match in matches.values()), strict=True))
    weights = [1.0 if any(column) else UNKNOWN_SHARE for column in columns]
    return {
        key: NAMED if match.is_named else sum(map(mul, match.shares, weights)) / sum(weights)
        for key, match in matches.items()
    }


def match_words(terms: Sequence[Words], image: Described) -> WordMatch:
    """Which terms a picture has in caption, tags, name and folder."""
    words = read_words(*image)
    shares = [0.0] * len(terms)
    highlights: dict[str, list[str]] = {}
    for column in words.columns:
        for n, term in enumerate(terms):
            share, written = find_term(term, column)
            if share:
                shares[n] = max(shares[n], share * column.share)
                highlights.setdefault(column.name, []).append(written)
    is_named = tuple(stem for term in terms for stem, _ in term) in words.names
    return WordMatch(tuple(shares), is_named, {name: tuple(dict.fromkeys(found)) for name, found in highlights.items()})


@dataclass(frozen=True, slots=True)
class _Column:
    """The words of an attribute: as written by their stems, the stems in their order, and all of it in small letters.

    A term in it counts `share`.
    """

    name: str
    share: float
    written: Mapping[str, str]
    stems: str
    text: str

    @classmethod
    def of(cls, name: str, share: float, words: Words, text: str) -> _Column:
        stems = " ".join(stem for stem, _ in words)
        return cls(name, share, dict(reversed(words)), f" {stems} ", text.casefold())


@dataclass(frozen=True, slots=True)
class _PictureWords:
    columns: tuple[_Column, ...]
    names: frozenset[tuple[str, ...]]  # the stems of what is a whole caption, tag or name


@lru_cache(maxsize=8_192)
def read_words(caption: str | None, tags: tuple[str, ...], source: str | None) -> _PictureWords:
    """The words of a picture's attributes."""
    folder, _, name = (source or "").rpartition("/")
    by_tag = [split_words(tag) for tag in tags]
    said, named, stem = split_words(caption or ""), split_words(name), split_words(name.rpartition(".")[0])
    columns = (
        _Column.of("caption", 1.0, said, caption or ""),
        _Column.of("tags", 1.0, tuple(word for words in by_tag for word in words), "\n".join(tags)),
        _Column.of("name", 1.0, named, name),
        _Column.of("name", FOLDER_SHARE, split_words(folder), folder),
    )
    names = (tuple(stem for stem, _ in drop_stop_words(words)) for words in (said, named, stem, *by_tag))
    return _PictureWords(columns, frozenset(names))


def find_term(term: Words, column: _Column) -> tuple[float, str]:
    """How much of a term the column has (1, PART_SHARE or 0), and how it is written there."""
    if len(term) > 1:
        phrase = " ".join(stem for stem, _ in term)
        return (1.0, "".join(written for _, written in term)) if f" {phrase} " in column.stems else (0.0, "")
    ((stem, written),) = term
    if stem in column.written:
        return 1.0, column.written[stem]
    part = written.casefold()
    if len(part) >= MIN_PART and part in column.text:
        return PART_SHARE, next((word for word in column.written.values() if part in word.casefold()), written)
    return 0.0, ""
