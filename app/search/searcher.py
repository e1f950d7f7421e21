"""From queries to hits: encode their parts, add them up, search the index, read the rows.

The queries of one call share each step: one pass of the encoder for all their texts, one search of an index for all
that search it in the same way, one read of the rows.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import apsw
import numpy as np

from app.core.errors import Busy, NotFound, SightlineError, Validation
from app.core.metrics import ProcessMetrics
from app.core.tracing import span
from app.core.types import DEFAULT_COLLECTION, AnswerWarning, Hit, Image, Mode, Status, Target, Text
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.encoder.batcher import Batcher
from app.encoder.protocol import Embeddings, Encoder, check_vectors
from app.encoder.reading import TextReader
from app.search.filter_cache import FilterCache
from app.search.fusion import DEPTH, EQUAL_WEIGHTS, FusedHit, Weights, find_highlights, fuse
from app.search.heads import INACTIVE, Head, HeadCache
from app.search.model_trust import ModelTrust
from app.storage import keywords
from app.storage.database import Database
from app.storage.filters import sql
from app.storage.filters.model import Filter
from app.storage.tables import embeddings, images, texts
from index.protocol import SearchParams, VectorIndex
from index.types import Ids, Scores

T = TypeVar("T")
RecordQuery = Callable[[tuple[str, Target], VectorIndex, Embeddings, SearchParams, int], None]

EXTRA_HITS = 16  # asked for beyond k, because rows may be deleted faster than the index follows
LABEL_PLACEHOLDER = re.compile(r"\{label\}|\{\}")  # where a label goes in a template
TEXTS_PER_PASS = 32  # texts of one caller in one forward pass
PICTURES_AT_ONCE = 8  # of one caller decoded at once, likewise
MIN_LENGTH = 1e-6  # a sum of parts shorter than this has no direction


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One part of a query: exactly one of the first five fields is set. The weight may be negative.

    `field` is what the client sent the text as, for warnings.
    """

    text: str | None = None
    image_id: str | None = None
    text_id: str | None = None
    picture: Path | None = None
    vector: Sequence[float] | None = None
    weight: float = 1.0
    field: str | None = None

    @property
    def kind(self) -> Target | None:
        """Whether it is a picture or a text; None for a vector, of which nobody knows."""
        if self.vector is not None:
            return None
        return "texts" if self.text is not None or self.text_id is not None else "images"


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search: its parts, what it searches, which rows `filter` allows, and how.

    `exact` compares with every vector; `nprobe` and `refine_k` replace what an approximate index was calibrated to.
    Without `mode`, a search for pictures by words alone is hybrid.
    """

    parts: Sequence[QueryPart]
    target: Target = "images"
    k: int = 10
    collection: str = DEFAULT_COLLECTION
    filter: Filter | None = None
    exact: bool = False
    nprobe: int | None = None
    refine_k: int | None = None
    mode: Mode | None = None
    weights: Weights = EQUAL_WEIGHTS

    @property
    def applied_mode(self) -> Mode:
        """The mode; without one, that which fits the query."""
        is_words = bool(self.words) and all(part.text is not None for part in self.parts)
        return self.mode or ("hybrid" if is_words and self.target == "images" and not self.exact else "vector")

    @property
    def words(self) -> str:
        """What a keyword search looks for: the texts that are not turned away from."""
        return " ".join(part.text for part in self.parts if part.text is not None and part.weight > 0)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer: hits, best first; milliseconds by stage; how many vectors were compared; what is odd in the query.

    `trust` is that of the model if words were ranked beside the vectors; `head` is that which the query went
    through.
    """

    hits: list[Hit]
    took_ms: dict[str, float]
    searched: int
    mode: Mode
    trust: float | None = None
    warnings: list[AnswerWarning] = field(default_factory=list)
    head: str | None = None


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The vectors of texts and pictures; for a picture without one, the error."""

    texts: Mapping[str, Embeddings]
    pictures: Mapping[Path, Embeddings | SightlineError]


@dataclass(slots=True, eq=False)
class _Search:
    """The state of a query: how many hits it takes from the index, how many rows it reads, and what came back."""

    query: SearchQuery
    params: SearchParams
    vector: Embeddings
    limit: int
    rows: int
    scores: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    keys: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    terms: Sequence[keywords.Words] = ()
    word_keys: Sequence[int] = ()
    trust: float | None = None  # of the model, where words are ranked beside the vectors
    places: Sequence[FusedHit] = ()  # the best so far, whose rows are read
    is_cut: bool = False  # whether there are more places
    hits: list[Hit] = field(default_factory=list)
    orphans: int = 0
    searched: int = 0
    error: SightlineError | None = None
    head: Head | None = None
    is_head_inactive: bool = False

    def group_key(self) -> tuple[object, ...]:
        """Equal for those that one search of their index can answer; some then take up to twice as many hits."""
        params = self.params
        return params.exact, params.nprobe, params.refine_k, id(params.allowed_ids), self.limit.bit_length()

    def needs_more(self) -> bool:
        """Whether to take more from the index: rows were deleted or changed, and the index has others."""
        return len(self.hits) < self.query.k and (self.is_cut or bool(self.keys.size and self.keys[-1] >= 0))


class Searcher:
    """Answers queries. Its methods block; callers run them in threads."""

    def __init__(
        self,
        database: Database,
        encoder: Encoder,
        batcher: Batcher,
        pool: DecodePool,
        use: Callable[[str, Target], AbstractContextManager[VectorIndex]],
        metrics: ProcessMetrics | None = None,
        record_query: RecordQuery | None = None,
    ) -> None:
        """`record_query` gets each search of an index, after its answer (see `RecallSampler.record_query`)."""
        self._database = database
        self._encoder = encoder
        self._batcher = batcher
        self.reader = TextReader(encoder)
        self._pool = pool
        self._use = use
        self._metrics = metrics or ProcessMetrics()
        self._record_query = record_query
        self._filter_cache = FilterCache(database)
        self.heads = HeadCache(database, encoder.space.fingerprint)
        self.trust = ModelTrust(database, self._encode_texts, self.heads.get)
        self.running = 0  # calls that are being answered right now
        self._lock = threading.Lock()  # of `running`

    def search(self, query: SearchQuery) -> SearchResult:
        """The k nearest pictures or texts. Raises Validation, NotFound, Rejected, Timeout, Busy."""
        (found,) = self.search_all([query])
        if isinstance(found, SightlineError):
            raise found
        return found

    def search_all(self, queries: Sequence[SearchQuery]) -> list[SearchResult | SightlineError]:
        """The answers, in order; for a query without one, its error. The times are those of all together.

        Raises Busy, and then answers none.
        """
        with self._lock:
            self.running += 1
        try:
            return self._search_all(queries)
        finally:
            with self._lock:
                self.running -= 1

    def _search_all(self, queries: Sequence[SearchQuery]) -> list[SearchResult | SightlineError]:
        began = time.perf_counter()
        with span("encode", {"questions": len(queries)}):
            encoded = self._encode_parts([part for query in queries for part in query.parts])
        begun = [result_or_error(partial(self._begin, query, encoded)) for query in queries]
        took = {"encode": time.perf_counter() - began, "search": 0.0, "fetch": 0.0}
        together: dict[tuple[str, Target], list[_Search]] = {}
        for search in begun:
            if isinstance(search, _Search):
                search.error = result_or_error(partial(self._prepare, search, took))
                if search.error is None:
                    together.setdefault((search.query.collection, search.query.target), []).append(search)
        for searches in together.values():
            error = result_or_error(partial(self._run, searches, took))
            for search in searches:
                search.error = error
        took["total"] = time.perf_counter() - began
        self._metrics.observe_search(took)
        took_ms = {name: round(seconds * 1000, 2) for name, seconds in took.items()}
        return [
            search.error or self._make_result(search, took_ms) if isinstance(search, _Search) else search
            for search in begun
        ]

    def _make_result(self, search: _Search, took_ms: dict[str, float]) -> SearchResult:
        mode, warnings = search.query.applied_mode, self._warn(search)
        head = search.head.id if search.head is not None else None
        return SearchResult(search.hits, took_ms, search.searched, mode, search.trust, warnings, head)

    def _warn(self, search: _Search) -> list[AnswerWarning]:
        """What is odd about the texts of a query, once each, and about its filter where that left too few hits."""
        query = search.query
        texts = [part for part in query.parts if part.text is not None]
        found = list(dict.fromkeys(one for part in texts for one in self.reader.warn(part.text or "", part.field)))
        found += [INACTIVE] * search.is_head_inactive
        if (filter := query.filter) is None or len(search.hits) >= query.k or not filter.compared:
            return found
        return found + self._database.read(lambda c: sql.explain_filter(c, query.collection, filter))

    def _begin(self, query: SearchQuery, encoded: _Encoded) -> _Search:
        """The query with its vector. Raises Validation, NotFound, Rejected."""
        params = SearchParams(exact=query.exact, nprobe=query.nprobe, refine_k=query.refine_k)
        head, is_inactive = (None, False) if query.exact else self.heads.find(query.collection)
        vector = self._sum_parts(query.collection, query.parts, encoded, head, query.target)
        search = _Search(query, params, vector, query.k + EXTRA_HITS, query.k + EXTRA_HITS)
        if head is not None and any(head.is_for(part.kind, query.target) for part in query.parts):
            search.head = head
        search.is_head_inactive = is_inactive
        return search

    def _prepare(self, search: _Search, took: dict[str, float]) -> None:
        """Find out which rows the filter allows, and which have the words. Raises Timeout."""
        start = time.perf_counter()
        if (query := search.query).filter is not None:
            allowed_ids = self._filter_cache.allowed_ids(query.collection, query.filter)
            search.params = replace(search.params, allowed_ids=allowed_ids)
        if query.applied_mode != "vector":
            search.terms = keywords.split_query(self.reader.replace_emoji(query.words))
            search.word_keys = self._database.read(partial(find_words, search))
        if search.word_keys:  # the order must not depend on k
            search.limit = max(query.k, DEPTH) + EXTRA_HITS
        took["search"] += time.perf_counter() - start

    def _run(self, searches: Sequence[_Search], took: dict[str, float]) -> None:
        """Do the searches of one index, and add to the seconds. Raises NotFound."""
        query = searches[0].query
        with self._use(query.collection, query.target) as index:
            waiting = searches
            while waiting:
                start = time.perf_counter()
                with span("search", {"target": query.target, "questions": len(waiting)}):
                    search_index(index, [search for search in waiting if search.query.applied_mode != "keyword"])
                middle = time.perf_counter()
                with span("fetch", {"target": query.target}):
                    for search in waiting:
                        if search.query.applied_mode == "hybrid" and search.word_keys:
                            head = search.head.id if search.head is not None else None
                            search.trust = self.trust.get(query.collection, index.ntotal, head)
                    self._fetch(query.target, waiting)
                took["search"] += middle - start
                took["fetch"] += time.perf_counter() - middle
                waiting = [search for search in waiting if search.needs_more()]
                for search in waiting:
                    search.limit *= 4
                    search.rows *= 4
            for search in searches:
                self._metrics.ghost_hits.labels(query.target).inc(search.orphans)
                if self._record_query is not None and search.query.applied_mode != "keyword":
                    key = (query.collection, query.target)
                    self._record_query(key, index, search.vector, search.params, search.query.k + EXTRA_HITS)

    def embed(self, collection: str, parts: Sequence[QueryPart]) -> Embeddings:
        """The weighted sum of the parts' unit vectors, float32 [d], of length 1.

        One pass of the encoder takes the texts of all parts. Raises Validation when the sum is nearly zero.
        """
        return self._sum_parts(collection, parts, self._encode_parts(parts))

    def _sum_parts(
        self,
        collection: str,
        parts: Sequence[QueryPart],
        encoded: _Encoded,
        head: Head | None = None,
        target: Target = "images",
    ) -> Embeddings:
        if not parts:
            raise Validation("the query is empty")
        total = np.zeros(self._encoder.space.d, dtype=np.float32)
        for part in parts:
            vector = self._part_vector(collection, part, encoded)
            if head is not None:
                vector = head.map_query(vector, part.kind, target)
            total += np.float32(part.weight) * vector
        length = float(np.linalg.norm(total))
        if not np.isfinite(length) or length < MIN_LENGTH:
            raise Validation("the parts of the query cancel each other out")
        return np.asarray(total / length, dtype=np.float32)

    def warn_of_labels(self, labels: Sequence[str], template: str) -> list[AnswerWarning]:
        """What is odd about the labels and the template of a classification, and which labels it makes too long."""
        words = " ".join(LABEL_PLACEHOLDER.split(template))
        found = [one for one in self.reader.warn(words, "template") if one.code == "language_unknown"]
        for n, label in enumerate(labels):
            found += self.reader.warn(label, f"labels.{n}", fill_template(template, label))
        return found

    def classify(
        self, collection: str, part: QueryPart, labels: Sequence[str], template: str
    ) -> list[tuple[str, float]]:
        """Labels with their probabilities, likeliest first: a softmax with the model's own temperature.

        The labels go through the head of the collection, if it uses one.
        """
        with self._use(collection, "images"):  # raises NotFound
            pass
        sentences = [fill_template(template, label) for label in labels]
        image = self.embed(collection, [part])
        vectors = np.stack(self._encode_texts(sentences))
        if (head := self.heads.get(collection)) is not None:
            vectors = head.map_texts(vectors)
        logits = self._encoder.temperature * (vectors @ image)
        odds = np.exp(logits - logits.max())
        shares = odds / odds.sum()
        order = np.argsort(-shares, kind="stable")
        return [(labels[n], float(shares[n])) for n in order]

    def encode_texts(self, sentences: Sequence[str]) -> list[bytes]:
        """The vectors of texts as the log stores them."""
        if not sentences:
            return []
        return [vector.astype("<f4").tobytes() for vector in check_vectors(np.stack(self._encode_texts(sentences)))]

    def _encode_texts(self, words: Sequence[str]) -> list[Embeddings]:
        """A vector for each text. Many are encoded a few at a time, so that other queries get their turn in between."""
        words = [self.reader.replace_emoji(text) for text in words]
        vectors: list[Embeddings] = []
        for start in range(0, len(words), TEXTS_PER_PASS):
            vectors.extend(self._batcher.submit_texts(words[start : start + TEXTS_PER_PASS]).result())
        return vectors

    def _encode_parts(self, parts: Sequence[QueryPart]) -> _Encoded:
        """Everything in `parts` that must go through the encoder. Raises Busy."""
        words = list(dict.fromkeys(part.text for part in parts if part.text is not None))
        paths = [part.picture for part in parts if part.picture is not None]
        return _Encoded(dict(zip(words, self._encode_texts(words), strict=True)), self._encode_pictures(paths))

    def _encode_pictures(self, paths: Sequence[Path]) -> dict[Path, Embeddings | SightlineError]:
        vectors: dict[Path, Embeddings | SightlineError] = {}
        for start in range(0, len(paths), PICTURES_AT_ONCE):
            some = paths[start : start + PICTURES_AT_ONCE]
            limits, preprocessing = self._pool.picture_limits, self._encoder.preprocessing
            tasks = [self._pool.submit(decode_picture, path, preprocessing, limits) for path in some]
            decoded = [result_or_error(task.result) for task in tasks]
            pixels = [one.pixels for one in decoded if not isinstance(one, SightlineError)]
            seen = iter(self._batcher.submit_images(np.stack(pixels)).result() if pixels else ())
            for path, one in zip(some, decoded, strict=True):
                vectors[path] = one if isinstance(one, SightlineError) else np.asarray(next(seen))
        return vectors

    def _part_vector(self, collection: str, part: QueryPart, encoded: _Encoded) -> Embeddings:
        if part.text is not None:
            return encoded.texts[part.text]
        if part.picture is not None:
            vector = encoded.pictures[part.picture]
            if isinstance(vector, SightlineError):
                raise vector
            return vector
        if part.vector is not None:
            return self._normalize(part.vector)
        return self._read_vector(collection, part)

    def _normalize(self, values: Sequence[float]) -> Embeddings:
        d = self._encoder.space.d
        if len(values) != d:
            raise Validation(f"a vector of this model has {d} numbers, not {len(values)}")
        vector = np.asarray(values, dtype=np.float64)  # float32 cannot hold the squares of large numbers
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length < MIN_LENGTH:
            raise Validation("the vector must be finite and not zero")
        return np.asarray(vector / length, dtype=np.float32)

    def _read_vector(self, collection: str, part: QueryPart) -> Embeddings:
        """The vector of a stored picture or text."""
        target: Target = "images" if part.image_id is not None else "texts"
        id = part.image_id or part.text_id or ""

        def work(c: apsw.Connection) -> tuple[bool, bytes | None]:
            row = images.get(c, collection, id) if target == "images" else texts.get(c, collection, id)
            return row is not None, embeddings.get_vectors(c, target, [row.key]).get(row.key) if row else None

        there, vector = self._database.read(work)
        if not there:
            raise NotFound(f"there is no {target[:-1]} {id!r} in {collection!r}")
        if vector is None:
            raise Validation(f"{target[:-1]} {id!r} has no vector (yet)")
        return np.frombuffer(vector, dtype="<f4")

    def _fetch(self, target: Target, searches: Sequence[_Search]) -> None:
        """Give them their hits: the rows that still exist, are ready and match the filter, in the order of the scores.

        Raises Timeout.
        """

        def work(c: apsw.Connection) -> tuple[Mapping[int, Image | Text], list[Collection[int]], dict[int, bytes]]:
            for search in searches:
                ranked = list(islice(rank_hits(c, search), search.rows + 1))
                search.places, search.is_cut = ranked[: search.rows], len(ranked) > search.rows
            wanted = {place.key for search in searches for place in search.places}
            rows: Mapping[int, Image | Text]
            rows = images.get_by_keys(c, wanted) if target == "images" else texts.get_by_keys(c, wanted)
            unscored = {place.key for search in searches for place in search.places if "vector" not in place.ranks}
            vectors = embeddings.get_vectors(c, target, unscored) if unscored else {}
            return rows, [filter_rows(c, search, rows) for search in searches], vectors

        rows, passed, vectors = self._database.read(work)
        for search, keys in zip(searches, passed, strict=True):
            search.hits = list(islice(make_hits(search, rows, keys, vectors), search.query.k))
            search.orphans = sum(place.key not in rows for place in search.places)


def fill_template(template: str, label: str) -> str:
    """The template with the label in each of its blanks."""
    return label.join(LABEL_PLACEHOLDER.split(template))


def result_or_error(work: Callable[[], T]) -> T | SightlineError:
    """What `work` returns, or the error that it raises. Raises Busy: that concerns every query, not only this one."""
    try:
        return work()
    except Busy:
        raise
    except SightlineError as error:
        return error


def search_index(index: VectorIndex, searches: Sequence[_Search]) -> None:
    """Give them their scores and keys: one search of the index for all that can share it."""
    groups: dict[tuple[object, ...], list[_Search]] = {}
    for search in searches:
        groups.setdefault(search.group_key(), []).append(search)
    for group in groups.values():
        most = max(search.limit for search in group)
        scores, keys = index.search(np.stack([search.vector for search in group]), most, group[0].params)
        for n, search in enumerate(group):
            search.limit, search.scores, search.keys = most, scores[n], keys[n]
            allowed = search.params.allowed_ids
            search.searched = index.ntotal if allowed is None else min(len(allowed), index.ntotal)


def find_words(search: _Search, c: apsw.Connection) -> list[int]:
    """The keys of pictures that have words of the query and that the filter allows, roughly best first."""
    found = keywords.find(c, search.query.collection, search.terms)
    allowed = search.params.allowed_ids
    depth = max(DEPTH, search.limit) if search.query.applied_mode == "keyword" else DEPTH
    keys: dict[int, None] = {}  # in their order
    for key in found:
        if allowed is None or allowed.contains(np.array([key]))[0]:
            keys[key] = None
        if len(keys) == depth:
            break
    return list(keys)


def filter_rows(c: apsw.Connection, search: _Search, rows: Mapping[int, Image | Text]) -> Collection[int]:
    """The keys whose rows match its filter now."""
    query = search.query
    if query.filter is None:
        return rows.keys()
    keys = (place.key for place in search.places if place.key in rows)
    return set(sql.select_passing(c, query.collection, query.filter, keys))


def rank_hits(c: apsw.Connection, search: _Search) -> Iterable[FusedHit]:
    """The keys that a search has found, best first."""
    by_vectors = [key for key in search.keys.tolist() if key >= 0]
    if not search.word_keys:
        return (FusedHit(key, {"vector": n}) for n, key in enumerate(by_vectors, 1))
    described = images.get_descriptions(c, {*search.word_keys[:DEPTH], *by_vectors[:DEPTH]})
    return fuse(search.terms, described, by_vectors, search.word_keys, search.query.weights, search.trust or 0.0)


def make_hits(
    search: _Search, rows: Mapping[int, Image | Text], passed: Collection[int], vectors: Mapping[int, bytes]
) -> Iterator[Hit]:
    """The hits of a search whose rows exist, best first; `vectors` are those of keys that only the words found."""
    scores = dict(zip(search.keys.tolist(), search.scores.tolist(), strict=True))
    scores |= {key: float(np.frombuffer(vector, "<f4") @ search.vector) for key, vector in vectors.items()}
    for place in search.places:
        row = rows.get(place.key)
        if row is None or place.key not in scores or place.key not in passed:
            continue
        if row.collection != search.query.collection:
            continue
        if isinstance(row, Text):
            yield Hit(row.id, scores[place.key], text=row, ranks=place.ranks)
        elif row.status is Status.READY:
            found = find_highlights(search.terms, (row.caption, row.tags, row.source)) if search.terms else {}
            yield Hit(row.id, scores[place.key], image=row, ranks=place.ranks, highlights=found)
