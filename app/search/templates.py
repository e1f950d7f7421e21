"""Prompt templates: a short query is also asked as whole sentences, and the mean of their vectors searches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from app.encoder.protocol import Embeddings
from app.search.hubs import MIN_QUERIES, is_first, is_gain

AUTOMATIC = ("{}", "a picture of {}", "a photo of {}", "an image of {}", "there is {}")
SHORT = 3  # words, or as many characters of a language without spaces twice over
PLAIN = ("{}",)


def is_short(text: str) -> bool:
    return len(text.split()) <= SHORT and len(text) <= 32


def fill(template: str, text: str) -> str:
    return template.replace("{}", text)


def average(vectors: Sequence[Embeddings]) -> Embeddings:
    """The unit vector in the direction of the mean; the first one where they cancel each other out."""
    if len(vectors) == 1:
        return vectors[0]
    total = np.sum(vectors, axis=0, dtype=np.float32)
    length = float(np.linalg.norm(total))
    return np.asarray(total / length, np.float32) if length > 1e-6 else vectors[0]


def do_templates_help(
    encode: Callable[[Sequence[str]], Embeddings],
    texts: Mapping[int, str],
    plain: Mapping[int, Embeddings],
    pictures: Embeddings,
) -> bool:
    """Whether more short texts find their own picture first by AUTOMATIC than alone. Keys are rows of `pictures`."""
    rows = [row for row, text in texts.items() if is_short(text)]
    if len(rows) < MIN_QUERIES:
        return False
    filled = encode([fill(template, texts[row]) for row in rows for template in AUTOMATIC[1:]])
    width = len(AUTOMATIC) - 1
    means = [average([plain[row], *filled[n * width : (n + 1) * width]]) for n, row in enumerate(rows)]
    own = np.array(rows)
    before = is_first(np.stack([plain[row] for row in rows]) @ pictures.T, own)
    return is_gain(is_first(np.stack(means) @ pictures.T, own) ^ before, before)
