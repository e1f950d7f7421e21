"""Export open_clip's tokenizers to files, so that the server needs neither open_clip nor torch.

A tokenizer whose export gives other tokens for the probes stays with open_clip.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from open_clip import tokenizer as open_clip_tokenizer
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from app.encoder.tokenizer import TOKENIZER, Clean, Tokenization, load_open_clip_tokenizer, load_tokenizer_file

# The pattern of CLIP. U+0345 is no letter, but folds to one; the regex library of CLIP leaves it out.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\u0345]+"
CLEANING: dict[Any, Clean] = {
    open_clip_tokenizer._clean_lower: "lower",
    open_clip_tokenizer._clean_whitespace: "whitespace",
    open_clip_tokenizer._clean_canonicalize: "canonicalize",
}
PROBES = (
    "",
    "a red car",
    "  Two  CATS' cake, it's 7 o'clock; they'VE _seen_ it!?  ",
    "笑脸 и кошка في البيت บ้าน घर בית",
    "it&#39;s caf\u00e9 &amp; na\u00efve \ufb01 \u2167 \u00bd",
    "👨\u200d👩\u200d👧 🇫🇷 e\u0301 \u0345",
    "x" * 200,
    "a picture of a very long street with many houses, trees, people and dogs " * 9,
    "<start_of_text> <end_of_text> <s></s> <pad> [CLS] <|endoftext|>",
)


def export_tokenizer(tokenization: Tokenization, folder: Path) -> Tokenization:
    """Write a `tokenizer.json` into `folder`; returns a tokenization that uses it, or the given one if that fails."""
    if Path(tokenization.source).name == TOKENIZER:
        return tokenization
    original = load_open_clip_tokenizer(tokenization.source, tokenization.cache)
    clean = CLEANING.get(getattr(original, "clean_fn", None))
    made = _export_simple(original) or _export_transformers(original)
    if clean is None or made is None:
        return tokenization
    path = folder / TOKENIZER
    made.enable_truncation(tokenization.length)
    made.save(str(path))
    expected = np.asarray(original(list(PROBES)).numpy())
    if np.array_equal(load_tokenizer_file(path, tokenization.length, clean)(PROBES), expected):
        return replace(tokenization, source=TOKENIZER, clean=clean)
    path.unlink()
    return tokenization


def _export_simple(original: Any) -> Tokenizer | None:
    """CLIP's byte-pair tokenizer; None for any other."""
    if type(original) is not open_clip_tokenizer.SimpleTokenizer or original.reduction_fn is not None:
        return None
    start, end = "<start_of_text>", "<end_of_text>"
    made = Tokenizer(
        models.BPE(vocab=dict(original.encoder), merges=list(original.bpe_ranks), end_of_word_suffix="</w>")
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.add_special_tokens([start, end])
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, original.sot_token_id), (end, original.eot_token_id)]
    )
    made.enable_padding(pad_id=0, length=original.context_length)
    return made


def _export_transformers(original: Any) -> Tokenizer | None:
    """A tokenizer of the transformers library; None if open_clip adds steps of its own to it."""
    if type(original) is not open_clip_tokenizer.HFTokenizer or original.tokenizer_mode or original.strip_sep_token:
        return None
    wrapper = original.tokenizer
    backend = getattr(wrapper, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    made = Tokenizer.from_str(backend.to_str())
    made.enable_padding(
        direction=wrapper.padding_side,
        pad_id=wrapper.pad_token_id,
        pad_token=wrapper.pad_token,
        length=original.context_length,
    )
    return made
