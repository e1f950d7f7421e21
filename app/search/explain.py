"""Which part of a picture met the words of a query, and which of the words: by leaving parts out.

Parts of the picture are covered one after another, and parts of the query left out. What makes the cosine fall counted.
No model needs to be opened for that, and the vectors of a picture's parts serve every query
(docs/decisions/0075-explain-by-leaving-out.md).
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, tanh

import numpy as np
import numpy.typing as npt

from app.core.errors import Validation
from app.encoder.batcher import Batcher
from app.encoder.protocol import Embeddings, Encoder, Pixels
from app.search.collection_profile import read_generic_captions
from app.search.heads import Head
from app.search.query import SearchQuery
from app.search.query_encoder import QueryEncoder, QueryPart
from app.search.verdict import Match, Verdict

Grid = npt.NDArray[np.float32]

SIDE = 6  # cells of the grid a side
WINDOW = 2  # cells a side of what is covered at once
WINDOWS = [
    (y, x) for y in range(SIDE - WINDOW + 1) for x in range(SIDE - WINDOW + 1) if (y + x) % 2 == 0
]  # the upper left cells: every other one, and each cell is in one at least
ROWS_PER_PASS = 1  # a search waits for one such pass at most; two take a third less time for each picture
MAX_CACHED = 64  # pictures whose vectors are kept: 14 × 4 d bytes each
MAX_UNITS = 24  # parts of the words that are left out one by one; of more words, some go together
OTHERS = 40  # generic captions that the words are compared with
LEAST_DROP, CLEAR_DROP = 0.5, 1.0  # of temperature × cosine: below one no place counts, from the other on one does
FITS, DOES_NOT_FIT = 0.05, 0.25  # the share of other texts that are as near to the picture
UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]+|(?:(?![\u3040-\u30ff\u3400-\u9fff])\S)+")
CHINESE_UNIT = re.compile(r"[的在和与及是有了着]|[^的在和与及是有了着]+")  # between its small words
ONLY_TIME = "the query has no words besides those of time, and a picture does not show when it was taken"


@dataclass(frozen=True, slots=True)
class WordWeight:
    """A part of the query, and how much the cosine falls without it; None if nothing is left without it."""

    text: str
    weight: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """`grid` is float32 [SIDE, SIDE]: how much the cosine falls when that part of the model's input is covered."""

    score: float
    grid: Grid
    words: Sequence[WordWeight]
    verdict: Verdict
    model: str

    @property
    def heat(self) -> Grid:
        """The grid from 0 (nothing) to 1 (the most); nothing where the model does not know."""
        top = float(self.grid.max())
        if self.verdict.match == "none" or top <= 0:
            return np.zeros_like(self.grid)
        return np.asarray(np.clip(self.grid / top, 0, 1), np.float32)


class Explainer:
    """Explains hits of one model. Its methods block; callers run them in threads."""

    def __init__(
        self,
        encoder: Encoder,
        batcher: Batcher,
        query_encoder: QueryEncoder,
        begin: Callable[[SearchQuery], tuple[SearchQuery, Head | None]],
    ) -> None:
        """`begin` gives a query its templates, and the head that it goes through, as a search does."""
        self._encoder = encoder
        self._batcher = batcher
        self._query_encoder = query_encoder
        self._begin = begin
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, Embeddings] = OrderedDict()
        self._others: Embeddings | None = None

    def explain(self, query: SearchQuery, digest: str, read: Callable[[], Pixels]) -> Explanation:
        """Compare a query of words with a picture and its parts.

        `digest` is that of the picture's file; `read` gives its pixels as the model takes them. Raises Validation, what
        `read` raises, Busy.
        """
        query, head = self._begin(query)
        if query.is_list:
            raise Validation(ONLY_TIME)
        shorter = leave_out(query.parts)
        finish = self._query_encoder.begin([*query.parts, *(part for _, rest in shorter for part in rest)])
        vectors = self._encode_picture(digest, read)
        encoded, others = finish(), self._encode_others()
        collection = query.collection
        vector = self._query_encoder.add_up(collection, query.parts, encoded, head)
        whole = vectors[0]
        score = float(whole @ vector)
        words = []
        for text, rest in shorter:
            left = self._query_encoder.add_up(collection, rest, encoded, head) if rest else None
            words.append(WordWeight(text, None if left is None else score - float(whole @ left)))
        grid = spread(score - vectors[1:] @ vector)
        others = others if head is None else head.map_texts(others)
        share = find_share(others @ whole, score)
        verdict = judge_place(self._encoder.temperature * float(grid.max()), share)
        return Explanation(score, grid, words, verdict, self._encoder.space.model)

    def _encode_picture(self, digest: str, read: Callable[[], Pixels]) -> Embeddings:
        """The vectors of the picture and of it without each of its parts, [1 + len(WINDOWS), d]."""
        with self._lock:
            if (known := self._vectors.get(digest)) is not None:
                self._vectors.move_to_end(digest)
                return known
        pixels = read()
        views = np.concatenate([pixels[None], cover_parts(pixels)])
        parts = [
            self._batcher.submit_images(views[start : start + ROWS_PER_PASS], is_patient=True)
            for start in range(0, len(views), ROWS_PER_PASS)
        ]
        try:
            vectors = np.concatenate([part.result() for part in parts])
        finally:
            for part in parts:
                part.cancel()
        with self._lock:
            self._vectors[digest] = vectors
            while len(self._vectors) > MAX_CACHED:
                self._vectors.popitem(last=False)
        return vectors

    def _encode_others(self) -> Embeddings:
        """The vectors of texts that mean nothing to this picture in particular, [OTHERS, d]."""
        if self._others is None:
            captions = read_generic_captions(())
            self._others = np.stack(self._query_encoder.encode_texts(captions[:: len(captions) // OTHERS][:OTHERS]))
        return self._others


def cover_parts(pixels: Pixels) -> Pixels:
    """uint8 [size, size, 3] to [len(WINDOWS), size, size, 3]: each has the picture's mean colour in one window."""
    edges = np.round(np.linspace(0, len(pixels), SIDE + 1)).astype(int)
    colour = pixels.mean(axis=(0, 1)).astype(np.uint8)
    views = np.repeat(pixels[None], len(WINDOWS), axis=0)
    for view, (y, x) in zip(views, WINDOWS, strict=True):
        view[edges[y] : edges[y + WINDOW], edges[x] : edges[x + WINDOW]] = colour
    return views


def spread(drops: Embeddings) -> Grid:
    """A weight for each cell: the sum of the drops of the windows that cover it, over the most that cover one.

    With their mean, a cell of the margin would count as much as the cell beside it, which two windows cover.
    """
    sums, counts = np.zeros((2, SIDE, SIDE), np.float32)
    for drop, (y, x) in zip(drops, WINDOWS, strict=True):
        sums[y : y + WINDOW, x : x + WINDOW] += drop
        counts[y : y + WINDOW, x : x + WINDOW] += 1
    return np.asarray(sums / counts.max(), np.float32)


def find_share(others: Embeddings, score: float) -> float:
    """The share of texts, this one with them, that are as near to the picture; `others` are their cosines."""
    return (1 + int((others > score + 1e-6).sum())) / (1 + len(others))


def judge_place(drop: float, share: float) -> Verdict:
    """Whether the model knows where in the picture the words are met.

    `drop` is that of the strongest place, times the temperature; `share` that of other texts as near to the picture. A
    model without knowledge finds all texts as near, and misses no place.
    """
    match: Match = "weak"
    if drop < LEAST_DROP or share > DOES_NOT_FIT:
        match = "none"
    elif drop >= CLEAR_DROP and share <= FITS:
        match = "good"
    sure = (1 - share) * tanh(max(0.0, drop))
    return Verdict(match, round({"good": sure, "none": 1 - sure, "weak": 0.0}[match], 3))


def leave_out(parts: Sequence[QueryPart]) -> list[tuple[str, list[QueryPart]]]:
    """Each word, or group of words, with the parts of the query that are left without it."""
    found = []
    for n, part in enumerate(parts):
        others = [*parts[:n], *parts[n + 1 :]]
        if part.weight < 0:  # what is turned away from is one thing
            found.append((part.text or "", others))
            continue
        text = part.text or ""
        for start, end in group_words(text):
            rest = " ".join((text[:start].rstrip() + " " + text[end:].lstrip()).split())
            found.append((text[start:end], [*parts[:n], replace(part, text=rest), *parts[n + 1 :]] if rest else others))
    return found


def group_words(text: str) -> list[tuple[int, int]]:
    """Where the words of a text are; at most MAX_UNITS places, each of as many words as it takes."""
    places = []
    for unit in UNIT.finditer(text):
        is_chinese = "\u3040" <= unit[0][0] <= "\u9fff"
        inner = CHINESE_UNIT.finditer(unit[0]) if is_chinese else [None]
        places += [
            (unit.start(), unit.end()) if one is None else (unit.start() + one.start(), unit.start() + one.end())
            for one in inner
        ]
    size = max(1, ceil(len(places) / MAX_UNITS))
    return [(some[0][0], some[-1][1]) for some in (places[n : n + size] for n in range(0, len(places), size))]
