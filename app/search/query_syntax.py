"""A query as people type it: words, and negative terms ("beach -people", "a car -\"red car\"").

The page parses the same way (`app/web/state/query.js`); tests/support/typed_queries.py holds both to the same cases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NEGATIVE_WEIGHT = -0.7
"""Weight of a negative term: at -1 it drowns the words, above -0.5 it hardly counts."""
MAX_NEGATIVE_TERMS = 8
NEGATIVE_TERM = re.compile(r'(^|\s)[-－−](?:"([^"]*)"?|([^\s"－−-]\S*))')
LONE_MINUS = re.compile(r"(^|\s)[-－−]+(?=\s|$)")


def parse_query(typed: str) -> tuple[str, list[str]]:
    """The words to look for ("" when all terms are negative), and at most MAX_NEGATIVE_TERMS negative terms."""
    negative: list[str] = []

    def take(match: re.Match[str]) -> str:
        text = (match[2] if match[2] is not None else match[3]).strip()
        if text and text not in negative and len(negative) < MAX_NEGATIVE_TERMS:
            negative.append(text)
        return match[1]

    words = LONE_MINUS.sub(r"\1", NEGATIVE_TERM.sub(take, typed))
    return " ".join(words.split()), negative


def parse_weighted_query(typed: str) -> Sequence[tuple[str, float]]:
    """The parts of the query with their weights; none when there are neither words nor negative terms."""
    words, negative = parse_query(typed)
    return [*([(words, 1.0)] if words else []), *((text, NEGATIVE_WEIGHT) for text in negative)]
