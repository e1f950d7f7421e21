"""What a captioner says about letters, read strictly."""

from __future__ import annotations

from typing import Any

import pytest

from app.service.questions import read_choice, read_shares, sort
from app.sources.fetch.chat_server import ChatAnswer, ChatUnavailable

ANSWERS = ("red", "a blue car", "Green!")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("B", 1),
        (" b.", 1),
        ("(C)", 2),
        ("**A**", 0),
        ("B. a blue car", 1),
        ("Answer: B", 1),
        ("The correct answer is C.", 2),
        ("The answer is B) a blue car.", 1),
        ("Red.", 0),
        ("green", 2),
        ("A blue car", 1),
    ],
)
def test_reads_the_answer_that_was_named(text: str, chosen: int) -> None:
    assert read_choice(text, ANSWERS) == chosen


@pytest.mark.parametrize(
    "text", ["D", "A or B", "A red car", "I cannot see a picture.", "B. red", "!" * 100_000, "1", "", "A" * 100_000]
)
def test_refuses_everything_else(text: str) -> None:
    with pytest.raises(ChatUnavailable, match="none of the answers"):
        read_choice(text, ANSWERS)


@pytest.mark.parametrize(
    ("tokens", "shares"),
    [
        ([{"A": 0.1, "B": 0.6, "C": 0.2}], [1 / 9, 6 / 9, 2 / 9]),
        ([{"The": 0.9, "B": 0.1}, {"B": 0.5, "b": 0.3, "A": 0.2}, {".": 1.0}], [0.2, 0.8, 0.0]),
        ([{"B": 0.3, "x": 0.7}], []),
        ([{"A": 0.9, "B": 0.1}], []),
        ([], []),
    ],
    ids=["one token", "among words", "mostly others", "another letter", "none"],
)
def test_takes_the_probabilities_of_the_letters(tokens: Any, shares: list[float]) -> None:
    assert read_shares(ChatAnswer("B", tokens=tokens), 1, 3) == pytest.approx(shares)


def test_sorts_answers_by_their_probability() -> None:
    assert sort(["a", "b", "c"], [0.1, 0.7, 0.2]) == [("b", 0.7), ("c", 0.2), ("a", 0.1)]
