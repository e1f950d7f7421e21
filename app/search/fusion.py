"""Fuses the ranking of the vectors with that of the words into one, by reciprocal rank.

A ranking counts as much as it is sure: the words as far as the picture has all of them, the vectors as far as the
model knows the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from typing import TypeAlias

from app.core.types import Description
from app.storage.keywords import Words, drop_stop_words, join_stems, split_source, split_words

IndexedText: TypeAlias = tuple[Mapping[str | None, str], str, str]

DEPTH = 30  # places of each ranking that are fused
RANK_OFFSET = 60  # the k of reciprocal rank fusion
WORDS_WEIGHT = 2.0  # of a picture that has every word of the query: more than the first place of the vectors
LEAST_VECTORS = 0.02  # weight of the vectors of a model that knows nothing of these pictures
ASIDE_SHARE = 0.7  # how much a term counts that is in the folder's name, read in the picture or of a generated caption
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
class FusedHit:
    """A place in the fused ranking: the picture, and its ranks from 1 in the rankings that have it."""

    key: int
    ranks: Mapping[str, int]


def fuse(
    terms: Sequence[Words],
    described: Mapping[int, Description],
    by_vectors: Sequence[int],
    by_words: Sequence[int],
    weights: Weights,
    trust: float,
) -> Iterator[FusedHit]:
    """The pictures of both rankings in the fused order.

    The first DEPTH of each ranking are fused; the others follow, so that the order does not depend on how many are
    asked for. `by_vectors` and `by_words` are keys, best first; `described` has the words of the first DEPTH of each;
    `trust` is that of the model, 0 to 1 (see `Profile`).
    """
    near = {key: n for n, key in enumerate(by_vectors, 1)}
    heads = dict.fromkeys([*by_words[:DEPTH], *by_vectors[:DEPTH]])
    sure = rate_matches(terms, {key: described[key] for key in heads if key in described})
    word_ranks = {key: n for n, key in enumerate(sorted(sure, key=lambda key: -sure[key]), 1)}
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
    word_ranks |= {key: n for n, key in enumerate(by_words[DEPTH:], len(word_ranks) + 1) if key not in word_ranks}
    for key in dict.fromkeys([*sorted(heads, key=lambda key: -scores[key]), *by_words, *by_vectors]):
        ranks = (("vector", near.get(key)), ("keyword", word_ranks.get(key)))
        yield FusedHit(key, {name: rank for name, rank in ranks if rank is not None})


def rate_matches(terms: Sequence[Words], described: Mapping[int, Description]) -> dict[int, float]:
    """How sure it is that a picture is meant: the share of the query that it has, or NAMED; none without any."""
    phrases = [(f" {' '.join(stem for stem, _ in term)} ", find_part(term)) for term in terms]
    shares = {key: rate_terms(phrases, read_words(image)) for key, image in described.items()}
    weights = [1.0 if any(column) else UNKNOWN_SHARE for column in zip(*shares.values(), strict=True)]
    total = sum(weights)
    sure = {key: sum(map(mul, one, weights)) / total for key, one in shares.items() if any(one)}
    return {key: NAMED if one == 1.0 and is_whole_name(terms, described[key]) else one for key, one in sure.items()}


@lru_cache(maxsize=8_192)
def read_words(image: Description) -> tuple[str, str, str]:
    """The stems of caption, tags and name; those of its other texts; and all but the folder in small letters."""
    folder, name = split_source(image.source)
    texts = [text for text in (image.caption, *image.tags, name) if text]
    aside = [text for text in (image.ocr_text, image.generated_caption) if text]
    stems = ".".join(map(join_stems, texts))
    return stems, ".".join(map(join_stems, filter(None, (folder, *aside)))), "\n".join((*texts, *aside)).casefold()


def rate_terms(phrases: Sequence[tuple[str, str]], words: tuple[str, str, str]) -> list[float]:
    """How much of each term a picture has."""
    stems, aside, text = words
    return [
        1.0 if phrase in stems else ASIDE_SHARE if phrase in aside else PART_SHARE if part and part in text else 0.0
        for phrase, part in phrases
    ]


def find_part(term: Words) -> str:
    """What a longer word may have of a term; "" if a part of a word would say nothing."""
    return term[0][1].casefold() if len(term) == 1 and len(term[0][1]) >= MIN_PART else ""


def is_whole_name(terms: Sequence[Words], image: Description) -> bool:
    """Whether the query is a whole caption, tag or file name, with or without its suffix."""
    _, name = split_source(image.source)
    query = [stem for term in terms for stem, _ in term]
    names = (image.caption or "", name, name.rpartition(".")[0], *image.tags)
    return any(query == [stem for stem, _ in drop_stop_words(split_words(one))] for one in names if one)


@dataclass(frozen=True, slots=True)
class WantedTerm:
    """A term as it is looked for in texts: its stem if it is one word, its stems with spaces around, and its part."""

    stem: str | None
    phrase: str
    part: str
    term: Words


def prepare_terms(terms: Sequence[Words]) -> list[WantedTerm]:
    return [
        WantedTerm(
            term[0][0] if len(term) == 1 else None,
            f" {' '.join(stem for stem, _ in term)} ",
            find_part(term),
            term,
        )
        for term in terms
    ]


def find_highlights(wanted: Sequence[WantedTerm], image: Description) -> dict[str, list[str]]:
    """The terms as they are written in a picture's texts, by the names of these."""
    found: dict[str, list[str]] = {}
    for column, texts in index_texts(image):
        written = [one for text in texts for one in find_written(wanted, *text)]
        if written:
            found[column] = list(dict.fromkeys(written))
    return found


@lru_cache(maxsize=8_192)
def index_texts(image: Description) -> Sequence[tuple[str, Sequence[IndexedText]]]:
    """The texts that a picture has, by their names."""
    columns: tuple[tuple[str, Sequence[str | None]], ...] = (
        ("caption", (image.caption,)),
        ("tags", image.tags),
        ("name", split_source(image.source)[::-1]),
        ("ocr", (image.ocr_text,)),
        ("generated", (image.generated_caption,)),
    )
    return [(column, [index_words(text) for text in texts if text]) for column, texts in columns if any(texts)]


def find_written(
    wanted: Sequence[WantedTerm], written: Mapping[str | None, str], stems: str, small: str
) -> Iterator[str]:
    """How the terms that a text has are written there. The text is as `index_words` gives it."""
    for one in wanted:
        if one.stem in written:
            yield written[one.stem]
        elif one.stem is None and one.phrase in stems:
            yield "".join(word for _, word in one.term)
        elif one.part and one.part in small:
            yield next((word for word in written.values() if one.part in word.casefold()), one.term[0][1])


@lru_cache(maxsize=16_384)
def index_words(text: str) -> IndexedText:
    """The words of a text by their stems, the stems in their order, and the text in small letters."""
    words = split_words(text)
    return dict(reversed(words)), f" {' '.join(stem for stem, _ in words)} ", text.casefold()
