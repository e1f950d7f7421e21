"""Texts to token ids, int64 [n, length], by the tokenizer of each model."""

from __future__ import annotations

import html
import re
import string
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from app.core.errors import StartupError
from app.encoder.hub import disable_hf_telemetry

Tokens = npt.NDArray[np.int64]
Tokenize = Callable[[Sequence[str]], Tokens]
Clean = Literal["", "lower", "whitespace", "canonicalize"]

TOKENIZER = "tokenizer.json"
PUNCTUATION = str.maketrans("", "", string.punctuation)
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])[^\W_])+")


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """Texts to tokens, int64 [n, length]; `is_too_long` tells whether a text has more tokens than that.

    `count` is how many tokens of a text are read, start and end included.
    """

    tokenize: Tokenize
    is_too_long: Callable[[str], bool]
    count: Callable[[str], int]
    cut: Callable[[Tokens], Tokens] = lambda tokens: tokens

    def __call__(self, texts: Sequence[str]) -> Tokens:
        return self.cut(self.tokenize(texts))

    def count_words_read(self, text: str) -> int | None:
        """How many words of a text that is too long are read whole; None if the whole text is read."""
        if not self.is_too_long(text):
            return None
        ends = find_word_ends(text)
        return bisect_left(range(len(ends)), True, key=lambda n: self.is_too_long(text[: ends[n]]))


@dataclass(frozen=True, slots=True)
class Tokenization:
    """The tokenizer of a model, described well enough to make it in another process.

    `source` is a `tokenizer.json`, or open_clip's name of the architecture; `length` its number of tokens. `pool` tells
    at which token a causal text tower reads its vector, as later tokens cannot change it: at the largest id (`argmax`)
    or at the first `eos`; `whole` if every text needs the full length. `cache` keeps files of the hub; `clean` is
    applied to a text before a `tokenizer.json` sees it.
    """

    source: str
    length: int
    pool: Literal["argmax", "eos", "whole"] = "whole"
    eos: int = 0
    cache: str = ""
    clean: Clean = ""

    def tokenizer(self) -> TextTokenizer:
        """The tokenizer; it cuts each batch to its longest text if that does not change the vectors."""
        path = Path(self.source)
        loaded = (
            load_tokenizer_file(path, self.length, self.clean)
            if path.name == TOKENIZER
            else load_named_tokenizer(self.source, self.cache)
        )
        return replace(loaded, cut=self.cut)

    def cut(self, tokens: Tokens) -> Tokens:
        """Remove the columns that no text of the batch needs."""
        if self.pool == "whole":
            return tokens
        ends = (tokens == self.eos).argmax(axis=1) if self.pool == "eos" else tokens.argmax(axis=1)
        if self.pool == "eos" and not (tokens == self.eos).any(axis=1).all():
            return tokens
        return np.ascontiguousarray(tokens[:, : int(ends.max()) + 1])


def find_word_ends(text: str) -> list[int]:
    """Where each word ends; a Chinese or Japanese character is a word."""
    return [match.end() for match in WORD.finditer(text)]


def load_tokenizer_file(path: Path, length: int, clean: Clean = "") -> TextTokenizer:
    """A tokenizer from a `tokenizer.json`: pads as the file says or with 0, and keeps the end token of a cut text."""
    tokenizer = Tokenizer.from_file(str(path))
    padding = tokenizer.padding or {"pad_id": 0}
    tokenizer.enable_padding(**{**padding, "length": length})
    tokenizer.enable_truncation(max_length=length)

    def tokenize(texts: Sequence[str]) -> Tokens:
        cleaned_texts = [clean_text(text, clean) for text in texts]
        return np.array([encoding.ids for encoding in tokenizer.encode_batch(cleaned_texts)], dtype=np.int64)

    def is_too_long(text: str) -> bool:
        return bool(tokenizer.encode(clean_text(text, clean)).overflowing)

    return TextTokenizer(
        tokenize, is_too_long, lambda text: sum(tokenizer.encode(clean_text(text, clean)).attention_mask)
    )


def clean_text(text: str, how: Clean) -> str:
    """Clean a text as open_clip does for this model."""
    if not how:
        return text
    import ftfy  # the starter's tokenizer does without

    text = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
    if how == "canonicalize":
        return " ".join(text.replace("_", " ").translate(PUNCTUATION).lower().split())
    return text.lower() if how == "lower" else text


def load_named_tokenizer(architecture: str, cache: str = "") -> TextTokenizer:
    """open_clip's own tokenizer of an architecture, with its cleaning, case and padding; see `open_clip_tokenizer`."""
    tokenizer = load_open_clip_tokenizer(architecture, cache)
    length = int(tokenizer.context_length)

    def count_all(text: str) -> int:
        if hasattr(tokenizer, "encode"):  # CLIP's own; it adds a start and an end
            return len(tokenizer.encode(text)) + 2
        return len(tokenizer.tokenizer(tokenizer.clean_fn(text), truncation=False)["input_ids"])

    return TextTokenizer(
        lambda texts: np.asarray(tokenizer(list(texts)).numpy(), dtype=np.int64),
        lambda text: count_all(text) > length,
        lambda text: min(count_all(text), length),
    )


def load_open_clip_tokenizer(architecture: str, cache: str = "") -> Any:
    """The tokenizer object of open_clip. Some come from the model hub and are kept in `cache`. Raises StartupError."""
    import open_clip  # here, because it imports torch, which models with a tokenizer.json do not need

    disable_hf_telemetry()
    try:
        return open_clip.get_tokenizer(architecture, cache_dir=cache or None)
    except Exception as error:  # the client of the hub raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise StartupError(f"the tokenizer of {architecture} cannot be loaded ({reason})") from error
