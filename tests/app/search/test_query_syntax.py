from __future__ import annotations

import pytest

from app.search.query_syntax import NEGATIVE_WEIGHT, parse_query, parse_weighted_query
from tests.support.typed_queries import TYPED


@pytest.mark.parametrize(("typed", "words", "without"), TYPED)
def test_words_and_what_to_turn_away_from(typed: str, words: str, without: list[str]) -> None:
    assert parse_query(typed) == (words, without)


def test_what_is_turned_away_from_weighs_less_than_the_words() -> None:
    assert parse_weighted_query("beach -people -sun") == [
        ("beach", 1.0),
        ("people", NEGATIVE_WEIGHT),
        ("sun", NEGATIVE_WEIGHT),
    ]
    assert parse_weighted_query("-people") == [("people", NEGATIVE_WEIGHT)]
    assert parse_weighted_query(" - ") == []
    assert -1 < NEGATIVE_WEIGHT < -0.5
