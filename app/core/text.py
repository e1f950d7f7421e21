"""The words of a caption, as filters compare them: whole words, in any case and width.

UAX #29 says where a word begins and ends, so each Chinese or Japanese character is a word of its own.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from apsw import unicode


def split_words(text: str) -> frozenset[str]:
    """The distinct words of `text`, without punctuation."""
    spaced = unicodedata.normalize("NFKC", text).replace("_", " ")  # "_" joins words in file names
    return frozenset(unicode.word_iter(unicode.casefold(spaced)))


_split_wanted = lru_cache(maxsize=256)(split_words)


def has_words(text: str, wanted: str) -> bool:
    """Whether `text` has every word of `wanted`."""
    return _split_wanted(wanted) <= split_words(text)
