"""Keyword searches: which pictures have the words of a query in their caption, tags, file name or other texts.

SQLite's FTS5 keeps two indexes, which triggers fill in the transaction of the row (`migrations/0018_carried.sql`):
`image_words` has the stems of words, `image_parts` their trigrams. `Fts5Index` is all that is SQLite's own here;
`app.storage.postgresql.keywords` has the index of PostgreSQL, with the same stems.
"""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import apsw

from app.storage.row_cache import open_cache
from app.storage.sql import Connection, fetch_all, fetch_number
from app.storage.tables.collections import IN_COLLECTION

Words = tuple[tuple[str, str], ...]
"""The words of a text in their order: the stem of each, and the word as it is written."""

MAX_TERMS = 16  # of a query that are looked up
MAX_MATCHES = 1_000  # a term that more pictures have is no reason to rank all of them: 1,000 cost 0.6 ms
MANY = 30  # pictures that have a term: one that is named so might not be among the best of them
MAX_PART = 40  # pictures that have a term as a part of a word
MIN_PART = 3  # characters: a trigram
STOP_WORD = re.compile(
    "an?|and|are|as|at|be|by|for|from|in|into|is|its?|my|of|on|our|or|some|that|the|their|there|this|to|with|your",
    re.IGNORECASE,
)
CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"  # written without spaces
CJK_CHARACTER = re.compile(f"([{CJK}])")
CJK_RUN = re.compile(f"[{CJK}]+|[^{CJK}]+")
PARTICLES = re.compile("[的了和在是]")  # of Chinese; the stop words of a language without spaces
SEAM = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])|_")  # greenFrog, frog2, green_frog
HOST = re.compile(r"^[a-z][a-z0-9+.-]*://[^/]*/?|[?#].*$")  # of a URL, and what follows its path

_tokenizers = threading.local()


def spell(text: str) -> str:
    """The text as the index reads it: words apart, each Chinese, Japanese or Korean character a word of its own."""
    if text.isascii():
        return SEAM.sub(" ", text)
    return CJK_CHARACTER.sub(r" \1 ", SEAM.sub(" ", unicodedata.normalize("NFKC", text)))


def words_of(column: str, value: str | None) -> str:
    """What `column` of the index holds of a picture's text, tags (JSON) or source (a path or URL)."""
    if not value:
        return ""
    if column == "tags":
        return " . ".join(spell(tag) for tag in json.loads(value))
    if column in ("name", "folder"):
        folder, name = split_source(value)
        return spell(name if column == "name" else folder)
    return spell(value)


def split_source(source: str | None) -> tuple[str, str]:
    """The folder and the file name of a path, or of the path of a URL."""
    folder, _, name = HOST.sub("", source or "").rpartition("/")
    return folder, name


def register_functions(c: apsw.Connection) -> None:
    """Give a connection the function that the triggers of the index call."""
    c.create_scalar_function("words_of", lambda *of: words_of(str(of[0]), of[1]), 2, deterministic=True)


@lru_cache(maxsize=16_384)
def split_words(text: str) -> Words:
    """The words of a text and their stems, as the index splits it."""
    spelled = spell(text).encode("utf-8", "replace")
    found = _tokenizer()(spelled, apsw.FTS5_TOKENIZE_DOCUMENT, None, include_colocated=False)
    return tuple((stem, spelled[start:end].decode("utf-8", "replace")) for start, end, stem in found)


def join_stems(text: str) -> str:
    """The stems of a text in their order, each with a space before and after it."""
    spelled = spell(text).encode("utf-8", "replace")
    stems = _tokenizer()(spelled, apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False, include_colocated=False)
    return f" {' '.join(stems)} "


def _tokenizer() -> Any:
    tokenizer = getattr(_tokenizers, "porter", None)
    if tokenizer is None:  # one for each thread: a connection must not be used by two at once
        _tokenizers.connection = apsw.Connection(":memory:")
        tokenizer = _tokenizers.connection.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])
        _tokenizers.porter = tokenizer
    return tokenizer


def split_query(text: str) -> list[Words]:
    """The distinct terms of a query. Runs of Chinese, Japanese and Korean give each pair of neighbours."""
    terms: list[Words] = []
    for run in CJK_RUN.findall(unicodedata.normalize("NFKC", text)):
        if CJK_CHARACTER.match(run):
            for part in filter(None, PARTICLES.split(run)):
                terms += [split_words(part[n : n + 2]) for n in range(max(1, len(part) - 1))]
        else:
            terms += [(word,) for word in split_words(run)]
    telling = [term for term in terms if drop_stop_words(term)] or [term for term in terms if term]
    return list({tuple(stem for stem, _ in term): term for term in telling}.values())[:MAX_TERMS]


def drop_stop_words(words: Words) -> Words:
    """The words without those that tell nothing, such as "the"."""
    return tuple((stem, written) for stem, written in words if not STOP_WORD.fullmatch(written))


class WordIndex(Protocol):
    """The index of words of one database. An expression is in its own language."""

    def quote(self, term: Words) -> str:
        """The pictures that have a term: its words in their order."""

    def all_of(self, expressions: Sequence[str]) -> str: ...

    def any_of(self, expressions: Sequence[str]) -> str: ...

    def named(self, term: Words) -> str:
        """The pictures of which a tag has the term, or whose name or caption begins with it."""

    def count(self, expression: str) -> int:
        """How many pictures match, in all collections; no more than MAX_MATCHES + 1 are counted."""

    def read(self, collection: str, expression: str, terms: Mapping[Words, int] | None) -> Iterator[int]:
        """The keys of ready pictures that match: by BM25 of these terms, which so many pictures have, or the newest
        first."""

    def read_parts(self, collection: str, term: Words) -> list[int]:
        """The newest ready pictures that have a term as a part of a word, MAX_PART at most."""

    def select(self, expression: str, keys: Sequence[int]) -> set[int]:
        """Those of the keys that match."""


def open_index(c: Connection) -> WordIndex:
    """The index of a connection to a database that has another one than SQLite's, or SQLite's."""
    index: WordIndex | None = getattr(c, "word_index", None)
    return Fts5Index(c) if index is None else index


def find(c: Connection, collection: str, terms: Sequence[Words]) -> Iterator[int]:
    """The keys of ready pictures that have some of the terms, roughly best first; a key may come more than once.

    First come those that are named so, where many have all terms; then those that have all terms, then those that have
    some of the rarer ones, last those that have a term as a part of a word.
    """
    index = open_index(c)
    quoted = {term: index.quote(term) for term in terms}
    if not quoted:
        return
    cache = open_cache(c)
    counts = {term: cache.remember(("word", one), partial(index.count, one)) for term, one in quoted.items()}
    if min(counts.values()) > MANY:
        phrase = tuple(word for term in terms for word in term)
        named = index.named(phrase)
        count = index.count(named)
        yield from index.read(collection, named, {phrase: count} if count <= MAX_MATCHES else None)
    if all(counts.values()):
        every = index.all_of(list(quoted.values()))
        is_few = min(counts.values()) <= MAX_MATCHES or (len(quoted) > 1 and index.count(every) <= MAX_MATCHES)
        yield from index.read(collection, every, counts if is_few else None)
    rare: dict[Words, int] = {}
    total = 0
    for term in sorted(counts, key=counts.__getitem__):
        total += counts[term]
        if counts[term] and total <= MAX_MATCHES:
            rare[term] = counts[term]
    if rare and len(quoted) > 1:
        yield from index.read(collection, index.any_of([quoted[term] for term in rare]), rare)
    for term in terms:
        if not counts[term] and len(term) == 1 and len(term[0][1]) >= MIN_PART:
            yield from cache.remember(("part", collection, term), partial(index.read_parts, collection, term))


def select_having(c: Connection, terms: Sequence[Words], keys: Sequence[int]) -> set[int]:
    """Those of the keys whose pictures have all of the terms."""
    if not terms or not keys:
        return set()
    index = open_index(c)
    return index.select(index.all_of([index.quote(term) for term in terms]), keys)


class Fts5Index:
    """SQLite's index: expressions are those of FTS5."""

    def __init__(self, c: Connection) -> None:
        self._c = c

    def quote(self, term: Words) -> str:
        """As a phrase, in which nothing is an operator."""
        return '"' + " ".join(written.replace('"', '""') for _, written in term) + '"'

    def all_of(self, expressions: Sequence[str]) -> str:
        return " AND ".join(expressions)

    def any_of(self, expressions: Sequence[str]) -> str:
        return " OR ".join(expressions)

    def named(self, term: Words) -> str:
        phrase = self.quote(term)
        return f"tags : {phrase} OR name : ^{phrase} OR caption : ^{phrase}"

    def count(self, expression: str) -> int:
        sql = "SELECT count(*) FROM (SELECT 1 FROM image_words WHERE image_words MATCH ? LIMIT ?)"
        return fetch_number(self._c, sql, (expression, MAX_MATCHES + 1))

    def read(self, collection: str, expression: str, terms: Mapping[Words, int] | None) -> Iterator[int]:
        """Rows are read as they are taken."""
        sql = "SELECT rowid FROM image_words WHERE image_words MATCH ? AND EXISTS (SELECT 1 FROM images WHERE "
        sql += IN_COLLECTION + " AND key = image_words.rowid AND status = 'ready')"
        order = " ORDER BY rank" if terms else " ORDER BY rowid DESC"
        for (key,) in self._c.execute(sql + order, (expression, collection)):
            yield int(key)

    def read_parts(self, collection: str, term: Words) -> list[int]:
        sql = "SELECT rowid FROM image_parts WHERE image_parts MATCH ? AND EXISTS (SELECT 1 FROM images WHERE "
        sql += IN_COLLECTION + " AND key = image_parts.rowid AND status = 'ready') ORDER BY rowid DESC LIMIT ?"
        return [key for (key,) in fetch_all(self._c, sql, (self.quote(term), collection, MAX_PART))]

    def select(self, expression: str, keys: Sequence[int]) -> set[int]:
        sql = "SELECT rowid FROM image_words WHERE image_words MATCH ? AND rowid BETWEEN ? AND ?"
        found = fetch_all(self._c, sql, (expression, min(keys), max(keys)))
        return {key for (key,) in found}.intersection(keys)
