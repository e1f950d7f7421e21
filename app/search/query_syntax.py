"""A query as people type it: words, and words to turn away from ("beach -people", "a car -\"red car\"").

The page parses the same way (`app/web/state/query.js`); tests/support/typed_queries.py holds both to the same cases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NEGATIVE_WEIGHT = (
    -0.7
)  # weight of what is turned away from; at -1 little of the words is left, above -0.5 little is turned away
MAX_NEGATIVE_TERMS = 8
NEGATIVE_TERM = re.compile(r'(^|\s)[-－−](?:"([^"]*)"?|([^\s"－−-]\S*))')
LONE_MINUS = re.compile(r"(^|\s)[-－−]+(?=\s|$)")


def parse_query(typed: str) -> tuple[str, list[str]]:
    """What is looked for ("" when there are only minus words), and at most MOST_AWAY to turn away from."""
    without: list[str] = []

    def take(match: re.Match[str]) -> str:
        text = (match[2] if match[2] is not None else match[3]).strip()
        if text and text not in without and len(without) < MAX_NEGATIVE_TERMS:
            without.append(text)
        return match[1]

    words = LONE_MINUS.sub(r"\1", NEGATIVE_TERM.sub(take, typed))
    return " ".join(words.split()), without


def parse_weighted_query(typed: str) -> Sequence[tuple[str, float]]:
    """The parts of the query with their weights; none when nothing is left to look for or turn away from."""
    words, without = parse_query(typed)
    return [*([(words, 1.0)] if words else []), *((text, NEGATIVE_WEIGHT) for text in without)]
