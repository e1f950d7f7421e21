from __future__ import annotations

import pytest

from app.search.query_syntax import AWAY, taken, weighted
from tests.support.typed_queries import TYPED


@pytest.mark.parametrize(("typed", "words", "without"), TYPED)
def test_words_and_what_to_turn_away_from(typed: str, words: str, without: list[str]) -> None:
    assert taken(typed) == (words, without)


def test_what_is_turned_away_from_weighs_less_than_the_words() -> None:
    assert weighted("beach -people -sun") == [("beach", 1.0), ("people", AWAY), ("sun", AWAY)]
    assert weighted("-people") == [("people", AWAY)]
    assert weighted(" - ") == []
    assert -1 < AWAY < -0.5
