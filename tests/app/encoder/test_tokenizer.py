"""Words to ids, and what may be left out of a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from app.core.errors import StartupError
from app.encoder.tokenizer import Tokenization, load_named_tokenizer, load_tokenizer_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    words = {"[pad]": 0, "[unk]": 1, "red": 2, "car": 3, "[end]": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [end]", special_tokens=[("[end]", 4)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_file_pads_to_its_length_and_keeps_the_end_when_it_cuts(file: Path) -> None:
    tokens = load_tokenizer_file(file, 5)(["red car", "", "red red red red red red red"])
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [[2, 3, 4, 0, 0], [4, 0, 0, 0, 0], [2, 2, 2, 2, 4]]


@pytest.mark.parametrize(("pool", "eos"), [("argmax", 0), ("eos", 4)])
def test_a_causal_model_gets_no_more_than_the_longest_text_of_a_batch(file: Path, pool: str, eos: int) -> None:
    tokenize = Tokenization(str(file), 9, pool, eos).tokenizer()  # type: ignore[arg-type]
    assert tokenize(["red car", "car"]).tolist() == [[2, 3, 4], [3, 4, 0]]
    assert tokenize(["red " * 30]).shape == (1, 9)


def test_a_model_that_looks_at_everything_gets_everything(file: Path) -> None:
    assert Tokenization(str(file), 9).tokenizer()(["car"]).shape == (1, 9)


def test_the_words_that_fit_are_counted(file: Path) -> None:
    tokenizer = load_tokenizer_file(file, 5)
    assert [tokenizer.count_words_read("red " * n) for n in (0, 4, 5, 50)] == [None, None, 4, 4]
    clip = load_named_tokenizer("ViT-B-32")
    assert [clip.count_words_read("cat " * n) for n in (1, 75, 76)] == [None, None, 75]
    assert clip.count_words_read("x" * 999) == 0
    assert [tokenizer.count("red " * n) for n in (0, 1, 4, 50)] == [1, 2, 5, 5]
    assert [clip.count("cat " * n) for n in (0, 1, 75, 99)] == [2, 3, 77, 77]


def test_a_row_without_an_end_is_left_whole() -> None:
    tokens = np.array([[2, 3, 4, 0], [2, 2, 2, 2]])
    assert Tokenization("x", 4, "eos", 4).cut(tokens).shape == (2, 4)


def test_clips_own_tokenizer_is_open_clips() -> None:
    import open_clip

    texts = ["A Red   CAR", "笑脸", "it&#39;s"]
    theirs = open_clip.get_tokenizer("ViT-B-32")(texts).numpy()
    assert np.array_equal(load_named_tokenizer("ViT-B-32")(texts), theirs)
    cut = Tokenization("ViT-B-32", 77, "argmax").tokenizer()(texts)
    assert np.array_equal(cut, theirs[:, : cut.shape[1]])
    assert not theirs[:, cut.shape[1] :].any()


def test_a_tokenizer_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"the tokenizer of local-dir:.* cannot be loaded") as refused:
        load_named_tokenizer(f"local-dir:{tmp_path / 'nowhere'}")
    assert "\n" not in refused.value.detail
