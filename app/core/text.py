"""The words of a caption, as a filter compares them: whole words, whatever their case or width.

Unicode says where a word begins and ends (UAX #29), so a Chinese or Japanese sign is a word of its own.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from apsw import unicode


def split_words(text: str) -> frozenset[str]:
    """The distinct words of `text`; signs that belong to no word are none."""
    spaced = unicodedata.normalize("NFKC", text).replace("_", " ")  # as in names of files
    return frozenset(unicode.word_iter(unicode.casefold(spaced)))


_wanted = lru_cache(maxsize=256)(split_words)


def has_words(text: str, wanted: str) -> bool:
    """Whether every word of `wanted` is one of `text`."""
    return _wanted(wanted) <= split_words(text)
