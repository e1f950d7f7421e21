"""From queries to hits, in stages (see `Searcher.search_all`).

The queries of one call share each stage: one pass of the encoder for all their texts, one search of an index for all
that search it in the same way, one read of the rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np

from app.core.errors import SightlineError
from app.core.metrics import ProcessMetrics
from app.core.tracing import span
from app.core.types import AnswerWarning, Description, EmbeddingSpace, Hit, Image, Status, Target, Text
from app.decode.pool import DecodePool
from app.encoder.batcher import Batcher
from app.encoder.protocol import Embeddings, Encoder, check_vectors
from app.search import hubs
from app.search.arrange import (
    MAX_ARRANGED,
    apply_feedback,
    arrange,
    order_hits,
    warn_of_fields,
)
from app.search.collection_profile import UNKNOWN, CollectionProfiles, Profile
from app.search.explain import Explainer
from app.search.facets import Counts, FacetCounter
from app.search.fusion import (
    DEPTH,
    FusedHit,
    find_highlights,
    fuse,
    prepare_terms,
    rate_matches,
)
from app.search.heads import INACTIVE, Head, HeadCache
from app.search.query import PreparedQuery, SearchQuery, SearchResult
from app.search.query_encoder import EncodedParts, QueryEncoder, QueryPart, result_or_error
from app.search.templates import PLAIN, is_short
from app.search.time_words.finder import TimeWords
from app.search.verdict import Verdict, judge, judge_words
from app.search.zero_shot import ZeroShot
from app.storage import keywords
from app.storage.database import Database
from app.storage.filters import sql
from app.storage.filters.parser import join_filters, parse_days
from app.storage.filters.values import parse_order, select_ordered
from app.storage.row_cache import RowCache, open_cache
from app.storage.sql import Connection, Row
from app.storage.tables import embeddings, texts
from app.storage.tables.texts import text_from_row
from index.idset import IdSet
from index.protocol import SearchParams, VectorIndex
from index.types import Ids, Scores

RecordQuery = Callable[[tuple[str, Target], VectorIndex, Embeddings, SearchParams, int], None]

EXTRA_HITS = 16  # asked for beyond k, because rows may be deleted faster than the index follows
JUDGED_HITS = 3  # in which all words of a query are looked for
NEWEST = parse_order("-taken_at", "images")  # of a list that words of time alone ask for
TAKEN = parse_days(None, None)
NO_HEAD: tuple[Head | None, bool] = (None, False)


@dataclass(slots=True, eq=False)
class _Search:
    """The state of a query: how many hits it takes from the index, how many rows it reads, and what came back."""

    query: SearchQuery
    params: SearchParams
    limit: int
    rows: int
    vector: Embeddings = field(default_factory=lambda: np.empty(0, np.float32))
    scores: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    keys: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    by_vectors: Sequence[int] = ()  # the keys that the index has, best first, hubs ranked down
    terms: Sequence[keywords.Words] = ()
    word_keys: Sequence[int] = ()  # of what has words of the query, roughly best first
    described: dict[int, Description] = field(default_factory=dict)  # the words of the candidates of both rankings
    profile: Profile = UNKNOWN
    trust: float | None = None  # of the model, where words are ranked beside the vectors
    places: Sequence[FusedHit] = ()  # the best so far, whose rows are read
    is_cut: bool = False  # whether there are more places
    is_settled: bool = False  # whether more places would change nothing
    best: Sequence[Hit] = ()  # of the ranking, whichever are shown
    facets: Mapping[str, Counts] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    orphans: int = 0
    searched: int = 0
    error: SightlineError | None = None
    head: Head | None = None  # that the query goes through
    is_head_inactive: bool = False  # whether the collection has one, for another model
    time: TimeWords | None = None

    @classmethod
    def begin(cls, query: SearchQuery) -> _Search:
        search = cls(query, query.index_params, 0, 0)
        search.take(query.end + query.arrangement.min_places + len(query.unlike) + EXTRA_HITS)
        return search

    def take(self, places: int) -> None:
        """Take so many places next; what is arranged has MAX_ARRANGED, whatever k is."""
        self.limit = self.rows = places
        if self.query.arrangement.is_selective:
            self.rows = min(places, MAX_ARRANGED)

    def group_key(self) -> tuple[object, ...]:
        """Equal for those that one search of their index can answer; some then take up to twice as many hits."""
        params = self.params
        depth = (params.exact, params.effort, params.nprobe, params.refine_k)
        return *depth, id(params.allowed_ids), self.limit.bit_length()

    @property
    def ranks_vectors(self) -> bool:
        return self.query.applied_mode != "keyword" and not self.query.is_list

    def needs_more(self) -> bool:
        """Whether to take more from the index: rows were deleted or changed, and the index has others."""
        least = self.query.score_threshold
        is_full = bool(self.keys.size and self.keys[-1] >= 0) and (least is None or bool(self.scores[-1] >= least))
        if self.is_settled or (self.query.arrangement.is_selective and self.rows == MAX_ARRANGED):
            return False
        return self.is_cut or is_full


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
        facets: FacetCounter | None = None,
    ) -> None:
        """`record_query` gets each search of an index, after its answer (see `RecallSampler.record_query`)."""
        self._database = database
        self._encoder = encoder
        self._query_encoder = QueryEncoder(database, encoder, batcher, pool)
        self.reader = self._query_encoder.reader
        self._use = use
        self._metrics = metrics or ProcessMetrics()
        self._record_query = record_query
        self._facets = facets or FacetCounter(database)
        self._filter_cache = self._facets.filters
        self.heads = HeadCache(database, encoder.space.fingerprint)
        self.profiles = CollectionProfiles(database, encoder, self._query_encoder.encode_texts, use, self.heads.get)
        self.zero_shot = ZeroShot(encoder, self._query_encoder, self.profiles, self.heads, use)
        self.explainer = Explainer(encoder, batcher, self._query_encoder, self._begin_explanation)
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

        The stages: encode the parts, and meanwhile prepare (find what the filter allows and what has the words); search
        the index; fuse its ranking with that of the words; read the rows of the best; make hits of them. The last four
        are repeated with more while rows are missing. Raises Busy, and then answers none.
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
        searches = self._begin_all(queries)
        with span("encode", {"questions": len(queries)}):
            finish_encoding = self._query_encoder.begin([part for search in searches for part in search.query.parts])
            prepare_began = time.perf_counter()
            attempt(searches, self._prepare)
            self._find_words(searches)
            prepared = time.perf_counter() - prepare_began
            encoded = finish_encoding()
            attempt(searches, partial(self._add_vector, encoded))
        took = {"encode": time.perf_counter() - began - prepared, "search": prepared, "fetch": 0.0}
        together: dict[tuple[str, Target], list[_Search]] = {}
        for search in searches:
            if search.error is None:
                together.setdefault((search.query.collection, search.query.target), []).append(search)
        for some in together.values():
            error = result_or_error(partial(self._run, some, took))
            for search in some:
                search.error = error
        took["total"] = time.perf_counter() - began
        self._metrics.observe_search(took)
        took_ms = {name: round(seconds * 1000, 2) for name, seconds in took.items()}
        return [search.error or self._make_result(search, took_ms) for search in searches]

    def _begin_all(self, queries: Sequence[SearchQuery]) -> list[_Search]:
        """The state of each query. The heads are read once for all."""
        asked = {query.collection for query in queries if not query.exact}
        heads = {collection: self.heads.find(collection) for collection in asked}
        return [self._begin(query, *(NO_HEAD if query.exact else heads[query.collection])) for query in queries]

    def _begin(self, query: SearchQuery, head: Head | None, is_inactive: bool) -> _Search:
        """The state of a query, with its templates, its head, and its words of time."""
        query, time, error = self._take_time(query)
        if head is not None and not any(head.is_for(part.kind, query.target) for part in query.parts):
            head = None
        search = _Search.begin(self._fill_templates(query, head))
        search.head, search.is_head_inactive = head, is_inactive
        search.time, search.error = time, error
        return search

    def _take_time(self, query: SearchQuery) -> tuple[SearchQuery, TimeWords | None, SightlineError | None]:
        """The query with a condition in place of its words of time, these words, or why there is no answer."""
        rest, time = query.without_time()
        if time is None:
            return query, None, None
        if query.time_words is None:
            dated = result_or_error(partial(self._filter_cache.allowed_ids, query.collection, TAKEN))
            if isinstance(dated, SightlineError) or not len(dated):
                return query, None, dated if isinstance(dated, SightlineError) else None
        if rest.is_list:
            order = rest.arrangement.order
            is_ranked = order is None or order.field.name == "score"
            rest = replace(rest, arrangement=replace(rest.arrangement, order=NEWEST if is_ranked else order))
        return replace(rest, filter=join_filters(rest.filter, parse_days(time.first, time.last))), time, None

    def _fill_templates(self, query: SearchQuery, head: Head | None) -> SearchQuery:
        """The query with its templates; left to us, those that were measured to help, for few words."""
        templates = query.templates
        if templates is None:
            is_open = query.is_calibrated and is_short(query.words)
            templates = self.profiles.get(query.collection, 0, head).templates if is_open else PLAIN
        if templates == PLAIN:
            return replace(query, templates=PLAIN)
        parts = [part if part.text is None else replace(part, templates=templates) for part in query.parts]
        return replace(query, templates=templates, parts=parts)

    def _prepare(self, search: _Search) -> None:
        """Find out which rows the filter allows, and what the words are. Raises Timeout."""
        if (query := search.query).filter is not None:
            allowed_ids = self._filter_cache.allowed_ids(query.collection, query.filter)
            search.params = replace(search.params, allowed_ids=allowed_ids)
        if query.applied_mode != "vector":
            search.terms = keywords.split_query(self.reader.replace_emoji(query.words))

    def _find_words(self, searches: Sequence[_Search]) -> None:
        """Find the pictures that have words of the queries, in one read."""
        asked = [search for search in searches if search.terms and search.error is None]
        if not asked:
            return

        def work(c: Connection) -> None:
            for search in asked:
                find_words(search, c)

        error = result_or_error(partial(self._database.read, work))
        for search in asked:
            search.error = error
            if search.word_keys:  # the order must not depend on k
                search.limit = max(search.limit, DEPTH + EXTRA_HITS)

    def _add_vector(self, encoded: EncodedParts, search: _Search) -> None:
        """Raises Validation, NotFound, Rejected."""
        query, encoder = search.query, self._query_encoder
        search.vector = encoder.add_up(query.collection, query.parts, encoded, search.head, query.target)
        if query.like or query.unlike:
            liked, unliked = (encoder.read_pictures(query.collection, ids) for ids in (query.like, query.unlike))
            search.vector = apply_feedback(search.vector, liked, unliked, has_words=bool(query.words))

    def _run(self, searches: Sequence[_Search], took: dict[str, float]) -> None:
        """Do the searches of one index, and add to the seconds. Raises NotFound."""
        query = searches[0].query
        with self._use(query.collection, query.target) as index:
            waiting = searches
            for search in searches:
                self._use_profile(search, index.ntotal)
            while waiting:
                start = time.perf_counter()
                with span("search", {"target": query.target, "questions": len(waiting)}):
                    search_index(index, [search for search in waiting if search.ranks_vectors])
                middle = time.perf_counter()
                with span("fetch", {"target": query.target}):
                    self._fetch(query.target, waiting)
                took["search"] += middle - start
                took["fetch"] += time.perf_counter() - middle
                waiting = [search for search in waiting if search.needs_more()]
                for search in waiting:
                    search.take(search.limit * 4)
            start = time.perf_counter()
            for search in searches:
                self._count_facets(search)
            took["fetch"] += time.perf_counter() - start
            for search in searches:
                self._metrics.ghost_hits.labels(query.target).inc(search.orphans)
                if self._record_query is not None and search.ranks_vectors:
                    key = (query.collection, query.target)
                    self._record_query(key, index, search.vector, search.params, search.query.k + EXTRA_HITS)

    def _use_profile(self, search: _Search, size: int) -> None:
        """Take what is known of the collection, which has `size` pictures, for a search by words."""
        query = search.query
        if not (search.word_keys or query.is_calibrated):
            return
        known = self.profiles.get(query.collection, size, search.head)
        if query.applied_mode == "hybrid" and search.word_keys:
            search.trust = known.trust
        if query.is_calibrated:
            search.profile = known
            if known.hubs is not None:
                search.limit = max(search.limit, hubs.DEPTH + EXTRA_HITS)

    def _fetch(self, target: Target, searches: Sequence[_Search]) -> None:
        """Give them their hits: the rows that still exist, are ready and match the filter, in the order of the ranking.

        Raises Timeout.
        """

        def work(c: Connection) -> tuple[RowCache, Mapping[int, Row], list[Collection[int]], dict[int, bytes]]:
            cache = open_cache(c)
            describe_near(c, cache, searches)
            for search in searches:
                ranked = list(islice(rank_hits(c, search), search.rows + 1))
                search.places, search.is_cut = ranked[: search.rows], len(ranked) > search.rows
            wanted = {place.key for search in searches for place in search.places}
            rows = cache.get_rows(c, wanted) if target == "images" else texts.get_rows(c, wanted)
            unscored = {key for search in searches for key in list_unscored(search)}
            space = self._encoder.space.fingerprint
            vectors = embeddings.get_vectors(c, target, unscored, space) if unscored else {}
            return cache, rows, [filter_rows(c, search, rows) for search in searches], vectors

        cache, rows, passed, vectors = self._database.read(work)
        for search, keys in zip(searches, passed, strict=True):
            arrange_search(search, make_hits(search, cache, rows, keys, vectors), vectors)
            search.orphans = sum(place.key not in rows for place in search.places)

    def _count_facets(self, search: _Search) -> None:
        """Count over what the filter lets through, and in keyword mode over what has the words. Raises Timeout."""
        query, arrangement = search.query, search.query.arrangement
        if not arrangement.facets:
            return
        matching = None
        if query.applied_mode == "keyword":
            found = self._database.read(lambda c: [*keywords.find(c, query.collection, search.terms)])
            matching = IdSet.of(np.array(found, np.int64))
        fields, size = arrangement.facets, arrangement.facet_size
        search.facets = self._facets.count(query.collection, query.target, fields, size, query.filter, matching)

    def _make_result(self, search: _Search, took_ms: dict[str, float]) -> SearchResult:
        mode, warnings = search.query.applied_mode, self._warn(search)
        templates = tuple(search.query.templates or ()) if search.query.templates != PLAIN else ()
        is_normalised = search.profile.hubs is not None and mode != "keyword"
        return SearchResult(
            search.hits,
            took_ms,
            search.searched,
            mode,
            search.trust,
            templates,
            is_normalised,
            self._judge(search),
            search.facets,
            warnings,
            search.head.id if search.head is not None else None,
            self._encoder.space.model,
            search.query.arranged,
            search.time,
        )

    def _judge(self, search: _Search) -> Verdict | None:
        """Whether anything fits a search for pictures by words; None for every other."""
        query = search.query
        if not (query.is_calibrated and query.calibrate) or query.like or query.unlike:
            return None
        found = [hit.image for hit in search.best[:JUDGED_HITS] if hit.image is not None and "keyword" in hit.ranks]
        described = {image.key: image.description for image in found}
        said = max(rate_matches(search.terms, described).values(), default=0.0) if described else 0.0
        best = float(search.scores[0]) if search.keys.size and search.keys[0] >= 0 else None
        if query.applied_mode == "keyword":
            return judge_words(said, bool(search.best))
        unknown = self.reader.measure_unknown(query.words)
        return judge(search.profile.calibration, search.profile.spread, search.vector, best, said, unknown)

    def _warn(self, search: _Search) -> list[AnswerWarning]:
        """What is odd about the texts of a query, once each, and about its filter where that left too few hits."""
        query = search.query
        texts = [part for part in query.parts if part.text is not None and not query.is_list]
        found = list(dict.fromkeys(one for part in texts for one in self.reader.warn(part.text or "", part.field)))
        found += warn_of_fields(search.hits, query.arrangement)
        found += [INACTIVE] * search.is_head_inactive
        if (filter := query.filter) is None or len(search.hits) >= query.k or not filter.compared:
            return found
        return found + self._database.read(lambda c: sql.explain_filter(c, query.collection, filter))

    @property
    def space(self) -> EmbeddingSpace:
        """Of the vectors that it compares."""
        return self._encoder.space

    def prepare(self, query: SearchQuery) -> PreparedQuery:
        """Make of a query what pictures are compared with. Raises Validation, NotFound, Rejected, Busy."""
        (search,) = self._begin_all([query])
        self._add_vector(self._query_encoder.begin(search.query.parts)(), search)
        has_words = query.applied_mode != "vector"
        terms = keywords.split_query(self.reader.replace_emoji(query.words)) if has_words else []
        return PreparedQuery(search.query, search.vector, terms, self.reader.measure_unknown(query.words))

    def _begin_explanation(self, query: SearchQuery) -> tuple[SearchQuery, Head | None]:
        """The query as it is searched for, and the head that it goes through. Raises Validation, NotFound."""
        (search,) = self._begin_all([query])
        if search.error is not None:
            raise search.error
        return search.query, search.head

    def embed(self, collection: str, parts: Sequence[QueryPart]) -> Embeddings:
        """The vector of a query. Raises Validation, NotFound, Rejected, Busy."""
        return self._query_encoder.embed(collection, parts)

    def encode_texts(self, sentences: Sequence[str]) -> list[bytes]:
        """The vectors of texts as the log stores them."""
        if not sentences:
            return []
        vectors = check_vectors(np.stack(self._query_encoder.encode_texts(sentences)))
        return [vector.astype("<f4").tobytes() for vector in vectors]


def attempt(searches: Sequence[_Search], stage: Callable[[_Search], None]) -> None:
    """Do a stage for each search that has no error yet. Raises Busy."""
    for search in searches:
        if search.error is None:
            search.error = result_or_error(partial(stage, search))


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
            search.by_vectors = rank_vectors(search)
            allowed = search.params.allowed_ids
            search.searched = index.ntotal if allowed is None else min(len(allowed), index.ntotal)


def find_words(search: _Search, c: Connection) -> None:
    """Give it the keys of pictures that have words of the query and that the filter allows."""
    allowed = search.params.allowed_ids
    depth = DEPTH
    if search.query.applied_mode == "keyword":
        depth = MAX_ARRANGED if search.query.arrangement.is_selective else max(DEPTH, search.limit)

    def read() -> list[int]:
        keys: dict[int, None] = {}  # in their order
        for key in keywords.find(c, search.query.collection, search.terms):
            if allowed is None or allowed.contains(np.array([key]))[0]:
                keys[key] = None
            if len(keys) == depth:
                break
        return list(keys)

    asked = (search.query.collection, tuple(search.terms))
    is_plain = allowed is None and depth == DEPTH  # longer lists would take much memory
    search.word_keys = open_cache(c).remember(asked, read) if is_plain else read()


def filter_rows(c: Connection, search: _Search, rows: Mapping[int, Row]) -> Collection[int]:
    """The keys whose rows match its filter now."""
    query = search.query
    if query.filter is None:
        return rows.keys()
    keys = (place.key for place in search.places if place.key in rows)
    return set(sql.select_passing(c, query.collection, query.filter, keys))


def rank_hits(c: Connection, search: _Search) -> Iterable[FusedHit]:
    """The keys that a search has found, best first; those of a list in its order."""
    if (query := search.query).is_list:
        order, limit = query.arrangement.order or NEWEST, search.rows + 1
        places = select_ordered(c, query.collection, query.filter, order, limit, None)
        search.searched = len(search.params.allowed_ids or ())
        return (FusedHit(place.key, {}) for place in places)
    by_vectors = search.by_vectors
    if not search.word_keys:
        ranked: Iterable[FusedHit] = (FusedHit(key, {"vector": n}) for n, key in enumerate(by_vectors, 1))
    else:
        trust, weights = search.trust or 0.0, search.query.weights
        ranked = fuse(search.terms, search.described, by_vectors, search.word_keys, weights, trust)
    if (least := search.query.score_threshold) is None:
        return ranked
    below = set(search.keys[search.scores < least].tolist())
    return (place for place in ranked if place.key not in below)


def rank_vectors(search: _Search) -> list[int]:
    """The keys that the index has found, best first."""
    by_hubs = search.profile.hubs
    keys = search.keys if by_hubs is None else by_hubs.rerank(search.scores, search.keys)
    return [key for key in keys.tolist() if key >= 0]


def describe_near(c: Connection, cache: RowCache, searches: Sequence[_Search]) -> None:
    """Give searches by words what describes the candidates of both rankings."""
    near: dict[int, list[int]] = {}
    for n, search in enumerate(searches):
        if search.word_keys:
            near[n] = [*search.word_keys[:DEPTH], *search.by_vectors[:DEPTH]]
    described = cache.get_descriptions(c, {key for keys in near.values() for key in keys}) if near else {}
    for n, keys in near.items():
        searches[n].described = {key: described[key] for key in keys if key in described}


def arrange_search(search: _Search, found: Iterator[Hit], vectors: Mapping[int, bytes]) -> None:
    """Give a search the hits that it shows; `vectors` has those that the arrangement needs."""
    query, arrangement = search.query, search.query.arrangement
    if arrangement.is_selective:
        search.best = list(found)
        arranged = arrange(search.best, vectors, arrangement, query.k)
        hits, search.is_settled = arranged.hits, arranged.is_settled
    else:
        search.best = hits = list(islice(found, query.end))
        search.is_settled = len(hits) == query.end
    search.hits = order_hits(hits[arrangement.offset :], arrangement.order)


def list_unscored(search: _Search) -> list[int]:
    """The keys of places that need a vector of the log: only words found them, or the arrangement compares them."""
    needs_all = search.query.arrangement.needs_vectors
    return [place.key for place in search.places if needs_all or "vector" not in place.ranks]


def make_hits(
    search: _Search, cache: RowCache, rows: Mapping[int, Row], passed: Collection[int], vectors: Mapping[int, bytes]
) -> Iterator[Hit]:
    """The hits of a search whose rows exist, best first; `vectors` has those of `list_unscored`."""
    scores = dict(zip(search.keys.tolist(), search.scores.tolist(), strict=True))
    for key in list_unscored(search):  # not of every vector: other searches of the call have theirs
        if key in vectors:
            scores[key] = float(np.frombuffer(vectors[key], "<f4") @ search.vector)
    is_images = search.query.target == "images"
    wanted = prepare_terms(search.terms)
    least = -np.inf if search.query.score_threshold is None else search.query.score_threshold
    for place in search.places:
        if place.key not in rows or place.key not in scores or place.key not in passed:
            continue
        row: Image | Text
        row = cache.get_image(place.key, rows[place.key]) if is_images else text_from_row(rows[place.key])
        if row.collection != search.query.collection or scores[place.key] < least:
            continue
        if is_images and row.id in search.query.unlike:
            continue
        if isinstance(row, Text):
            yield Hit(row.id, scores[place.key], text=row, ranks=place.ranks)
        elif row.status is Status.READY:
            found = find_highlights(wanted, row.description) if wanted else {}
            yield Hit(row.id, scores[place.key], image=row, ranks=place.ranks, highlights=found)
