from __future__ import annotations

import pytest

from app.core.text import has_words, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red car, in SNOW!", {"a", "red", "car", "in", "snow"}),
        ("red-car and img_red_2.png", {"red", "car", "and", "img", "2", "png"}),
        ("Straße", {"strasse"}),
        ("Ｆｕｌｌ width", {"full", "width"}),
        ("白い猫", {"白", "い", "猫"}),
        ("हिन्दी don't", {"हिन्दी", "don't"}),
        ("– ... !?", set()),
    ],
)
def test_words_are_what_unicode_calls_words(text: str, words: set[str]) -> None:
    assert split_words(text) == words


def test_every_word_must_be_there_and_whole() -> None:
    assert has_words("A red car in snow", "snow RED")
    assert not has_words("A red car in snow", "red sno")
    assert not has_words("", "red")
