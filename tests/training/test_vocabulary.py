"""The tokenizer that ships with the starter model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from training.model import STARTER
from training.vocabulary import CONTEXT, END, PAD, UNKNOWN, load_tokenizer, take_shipped_tokenizer, tokenize


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(STARTER / "tokenizer.json"))


def test_the_end_has_the_highest_id_and_padding_is_zero(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_to_id(PAD) == 0
    assert tokenizer.token_to_id(END) == tokenizer.get_vocab_size() - 1


def test_training_from_the_starter_keeps_its_tokens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """One made anew has other tokens, by which the shipped weights find nothing."""
    assert take_shipped_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()
    assert load_tokenizer((), tmp_path).get_vocab() == tokenizer.get_vocab()


def test_short_and_long_texts_become_one_padded_block(tokenizer: Tokenizer) -> None:
    tokens = tokenize(tokenizer, ["cat", "cat " * 100, ""])
    assert tokens.shape == (3, CONTEXT)
    end = tokenizer.token_to_id(END)
    assert [row.argmax() for row in tokens] == [2, CONTEXT - 1, 1]
    assert all(row.max() == end for row in tokens)


def test_a_chinese_character_is_one_token(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("笑脸").ids) == 4
    assert len(tokenizer.encode("一只猫在蛋糕旁边").ids) == 10


def test_case_width_and_accents_do_not_matter(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("ＣＡＴ").ids == tokenizer.encode("cat").ids
    assert tokenizer.encode("Crème").ids == tokenizer.encode("creme").ids


def test_every_english_word_can_be_spelt(tokenizer: Tokenizer) -> None:
    unknown = tokenizer.token_to_id(UNKNOWN)
    assert unknown not in tokenizer.encode("zyx quojw 0123456789 vexing fjords").ids
    assert unknown in tokenizer.encode("ꙮ").ids


def test_the_listed_words_are_those_that_the_tokenizer_can_spell(tokenizer: Tokenizer) -> None:
    words = (STARTER / "words.txt").read_text("utf-8").split()
    assert {"cat", "automobile", "red", "above", "蛋", "糕"} <= set(words)
    assert words == sorted(set(words))
    unknown = tokenizer.token_to_id(UNKNOWN)
    assert [word for word in words if unknown in tokenizer.encode(word).ids] == []
