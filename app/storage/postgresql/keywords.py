"""The words of pictures in PostgreSQL: a tsvector of the stems that FTS5 makes, and the text for parts of words.

A weight says where a word is: A in the file name, B in a tag, C in the caption, D in the folder, the text that was read
or a caption that a model wrote. `^` stands before the first word of each, so that a phrase can ask for the beginning.
"""

from __future__ import annotations

import json
import math
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from app.storage.keywords import MAX_MATCHES, MAX_PART, Words, split_words, words_of
from app.storage.row_cache import open_cache
from app.storage.sql import Connection, fetch_all, fetch_number
from app.storage.tables.collections import IN_COLLECTION

BEGIN = "^"
GAP = 2  # positions between two columns: no phrase spans them
COLUMNS = (
    ("caption", 0, "C"),
    ("tags", 1, "B"),
    ("name", 2, "A"),
    ("folder", 2, "D"),
    ("ocr", 3, "D"),
    ("generated", 4, "D"),
)
"""The columns of FTS5, where each comes from, and its weight."""
SHARES = {"A": 3.0, "B": 2.0, "C": 1.0, "D": 0.5}  # those of `bm25` in migrations/0018_carried.sql
K1, B = 1.2, 0.75  # of BM25, as in FTS5
MAX_STEM = 400  # characters: PostgreSQL takes 2,046 bytes
MAX_POSITION = 16_383
MAX_COUNTED = 10_000  # pictures that are counted one by one; of more, PostgreSQL's estimate will do
FILLED_AT_ONCE = 500
PAGE = 200
# A value, no join: the planner would begin a join with all pictures of the collection.
READY = " AND (SELECT status = 'ready' FROM images WHERE " + IN_COLLECTION + " AND key = image_words.key)"
MATCHES = (
    "SELECT key, size, lexeme, positions, weights FROM image_words, unnest(words) AS one WHERE words @@ ?::tsquery"
    + READY
    + " AND lexeme = ANY(?::text[])"
)
MISSING = (
    "SELECT i.key, i.caption, i.tags, i.source, i.ocr_text, i.generated_caption FROM image_words w"
    " JOIN images i ON i.key = w.key WHERE w.words IS NULL ORDER BY w.key LIMIT ?"
)
FILL = (
    "UPDATE image_words SET words = new.words::tsvector, size = new.size, parts = new.parts"
    " FROM unnest(?::bigint[], ?::text[], ?::bigint[], ?::text[]) AS new (key, words, size, parts)"
    " WHERE image_words.key = new.key"
)


def fill(c: Connection) -> None:
    """Index the words of the pictures that were added or changed, before the transaction ends."""
    while rows := fetch_all(c, MISSING, (FILLED_AT_ONCE,)):
        made = [index_words(texts) for _, *texts in rows]
        keys = [key for key, *_ in rows]
        c.execute(FILL, (keys, *(list(column) for column in zip(*made, strict=True))))
        if len(rows) < FILLED_AT_ONCE:
            return


def index_words(texts: Sequence[str | None]) -> tuple[str, int, str]:
    """The tsvector of a picture as text, how many words it has, and the text for parts of words."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    parts = []
    position, size = 1, 0
    for column, n, weight in COLUMNS:
        spelled = words_of(column, texts[n])
        if column != "folder":
            parts.append(spelled)
        stems = [stem for stem, _ in split_words(spelled)]
        for place, stem in enumerate((BEGIN, *stems) if stems else ()):
            places[stem[:MAX_STEM]].append(f"{min(position + place, MAX_POSITION)}{weight}")
        position += len(stems) + GAP
        size += len(stems)
    return " ".join(f"{_quote(stem)}:{','.join(at)}" for stem, at in places.items()), size, fold(" ".join(parts))


def fold(text: str) -> str:
    """The text without cases and accents."""
    plain = unicodedata.normalize("NFKD", text.replace("\0", "").lower())
    return "".join(one for one in plain if not unicodedata.combining(one))


def _quote(stem: str) -> str:
    return "'" + stem.replace("\\", "\\\\").replace("'", "''") + "'"


class TsvectorIndex:
    """PostgreSQL's index: expressions are those of tsquery."""

    def __init__(self, c: Connection) -> None:
        self._c = c

    def quote(self, term: Words) -> str:
        return "(" + " <-> ".join(_quote(stem[:MAX_STEM]) for stem, _ in term) + ")"

    def all_of(self, expressions: Sequence[str]) -> str:
        return " & ".join(expressions)

    def any_of(self, expressions: Sequence[str]) -> str:
        return " | ".join(expressions)

    def named(self, term: Words) -> str:
        stems = [_quote(stem[:MAX_STEM]) for stem, _ in term]
        phrases = ((stems, "B"), ([_quote(BEGIN), *stems], "A"), ([_quote(BEGIN), *stems], "C"))
        return " | ".join("(" + " <-> ".join(f"{stem}:{weight}" for stem in of) + ")" for of, weight in phrases)

    def count(self, expression: str) -> int:
        sql = "SELECT count(*) FROM (SELECT 1 FROM image_words WHERE words @@ ?::tsquery LIMIT ?) AS found"
        return fetch_number(self._c, sql, (expression, MAX_MATCHES + 1))

    def read(self, collection: str, expression: str, terms: Mapping[Words, int] | None) -> Iterator[int]:
        if terms:
            asked = ("rank", collection, expression, tuple(terms))
            ranked = open_cache(self._c).remember(asked, lambda: array("q", self._rank(collection, expression, terms)))
            yield from ranked
            return
        sql = "SELECT key FROM image_words WHERE words @@ ?::tsquery AND key < ?" + READY + " ORDER BY key DESC LIMIT ?"
        below = 1 << 62
        while rows := fetch_all(self._c, sql, (expression, below, collection, PAGE)):
            for (below,) in rows:
                yield below

    def read_parts(self, collection: str, term: Words) -> list[int]:
        wanted = fold(term[0][1])
        for special in "\\%_":
            wanted = wanted.replace(special, "\\" + special)
        sql = "SELECT key FROM image_words WHERE parts LIKE ?" + READY + " ORDER BY key DESC LIMIT ?"
        return [key for (key,) in fetch_all(self._c, sql, (f"%{wanted}%", collection, MAX_PART))]

    def select(self, expression: str, keys: Sequence[int]) -> set[int]:
        sql = "SELECT key FROM image_words WHERE words @@ ?::tsquery AND key IN (SELECT value FROM json_each(?))"
        return {key for (key,) in fetch_all(self._c, sql, (expression, json.dumps(list(keys))))}

    def _rank(self, collection: str, expression: str, terms: Mapping[Words, int]) -> list[int]:
        """The keys that match by BM25, as FTS5 computes it."""
        phrases = [tuple(stem[:MAX_STEM] for stem, _ in term) for term in terms]
        sizes: dict[int, int] = {}
        places: defaultdict[int, dict[str, dict[int, str]]] = defaultdict(dict)
        wanted = sorted({stem for phrase in phrases for stem in phrase})
        for key, size, lexeme, positions, weights in fetch_all(self._c, MATCHES, (expression, collection, wanted)):
            sizes[key] = size
            places[key][lexeme] = dict(zip(positions, weights, strict=True))
        if not sizes:
            return []
        usual = sum(sizes.values()) / len(sizes)
        rarities = [1.0]  # of one term alone: it weighs nothing against others
        if len(terms) > 1:
            total = self._estimate_count()
            rarities = [_rarity(total, count) for count in terms.values()]
        scores = {
            key: sum(
                rarity * _weigh(_frequency(held, phrase), sizes[key] / usual)
                for phrase, rarity in zip(phrases, rarities, strict=True)
            )
            for key, held in places.items()
        }
        return sorted(scores, key=lambda key: (-scores[key], key))

    def _estimate_count(self) -> int:
        sql = "SELECT reltuples FROM pg_class WHERE oid = 'image_words'::regclass"
        estimated = fetch_number(self._c, sql)
        return estimated if estimated > MAX_COUNTED else fetch_number(self._c, "SELECT count(*) FROM image_words")


def _rarity(total: int, count: int) -> float:
    return max(math.log((total - count + 0.5) / (count + 0.5)) if total >= count else 0.0, 1e-6)


def _frequency(held: dict[str, dict[int, str]], phrase: Sequence[str]) -> float:
    """How often a picture has a phrase, each place counted by its weight."""
    first, *others = phrase
    return sum(
        SHARES[weight]
        for position, weight in held.get(first, {}).items()
        if all(position + n in held.get(stem, {}) for n, stem in enumerate(others, 1))
    )


def _weigh(frequency: float, length: float) -> float:
    return frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length))
