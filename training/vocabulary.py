"""The starter's vocabulary: byte-pair encoding of lower-cased words, and each Chinese character as one token.

`python -m training.vocabulary` writes the words that the starter knows, to tell which of a query it does not: those
of captions of emoji. The names of other things are not among them, because it finds only half of these things.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from app.encoder.loader import STARTER
from training.captions import Captioner
from training.scenes import sample_scene
from training.sprites import LANGUAGES, WORK, Glyph, load_atlas

CONTEXT = 40
TOKENIZER = "tokenizer.json"  # the file, in the folder of the model and in that of the training
SIZE = 5000
PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_FIRST_SEED = 900_000_000  # scenes whose captions only the vocabulary sees


def _corpus(glyphs: Sequence[Glyph]) -> Iterator[str]:
    captioner = Captioner(glyphs)
    for seed in range(_FIRST_SEED, _FIRST_SEED + 30_000):
        scene, rng = sample_scene(seed, glyphs), np.random.default_rng((seed, 2))
        for language in LANGUAGES:
            yield captioner.sample(scene, language, rng).text
    for glyph in glyphs:
        for language in LANGUAGES:
            yield from (glyph.names[language], *glyph.words[language], *glyph.topics[language])
    yield from [" ".join(_ALPHABET)] * 20


def train_tokenizer(glyphs: Sequence[Glyph]) -> Tokenizer:
    """A tokenizer that adds start and end, cuts to CONTEXT tokens and pads with 0 to the longest."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, end_of_word_suffix="</w>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.NFKC(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("[\u3400-\u9fff]"), "isolated"), pre_tokenizers.Whitespace()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        min_frequency=2,
        special_tokens=[PAD, UNKNOWN, START],
        show_progress=False,
        initial_alphabet=list(_ALPHABET),
        end_of_word_suffix="</w>",
    )
    tokenizer.train_from_iterator(_corpus(glyphs), trainer)
    tokenizer.add_special_tokens([END])  # last, so that its id is the highest: the text tower pools at argmax
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(pad_id=0, pad_token=PAD)
    return tokenizer


def load_tokenizer(glyphs: Sequence[Glyph], folder: Path = WORK) -> Tokenizer:
    """The tokenizer; made once and saved in `folder`."""
    path = folder / TOKENIZER
    if not path.exists():
        train_tokenizer(glyphs).save(str(path))
    return Tokenizer.from_file(str(path))


def take_shipped_tokenizer(folder: Path = WORK) -> Tokenizer:
    """The shipped one, kept in `folder`: the shipped weights know its tokens, and one made anew has others."""
    shutil.copyfile(STARTER / TOKENIZER, folder / TOKENIZER)
    return Tokenizer.from_file(str(folder / TOKENIZER))


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Token ids int64 [n, longest], padded with 0."""
    return np.array([encoding.ids for encoding in tokenizer.encode_batch(list(texts))], dtype=np.int64)


def list_words(glyphs: Sequence[Glyph], tokenizer: Tokenizer) -> list[str]:
    """The words and Chinese characters of the captions, as the tokenizer normalises them."""
    words: set[str] = set()
    for text in _corpus(glyphs):
        split = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        words.update(word for word, _ in split if word.isalnum())
    return sorted(words)


if __name__ == "__main__":
    listed = list_words(load_atlas().glyphs, Tokenizer.from_file(str(STARTER / TOKENIZER)))
    (STARTER / "words.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
