"""Evaluations: how good a search is on a set of pairs, or on the captions of a collection.

The set's own pictures are compared with its own texts, as benchmarks do. If they are those of a collection, the same
texts are also searched in it, as a user would, in every way in which a search can be done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app.core.errors import Busy, Overloaded, SightlineError, Validation
from app.core.types import AnswerWarning
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import CLOSED, NO_CHILD
from app.encoder.protocol import Embeddings, Encoder, Pixels, check_vectors
from app.encoder.reading import TextReader, guess_language
from app.search.evaluation import DEFAULT_K, MIN_QUERIES, Evaluation, Miss, Ranks, evaluate
from app.search.heads import Head
from app.search.query import SearchQuery, SearchResult
from app.search.query_encoder import QueryPart
from app.search.searcher import Searcher
from app.search.templates import PLAIN
from app.service.pair_sets import read_set, read_vectors
from app.service.search_service import SearchService
from app.service.tasks import TaskContext
from app.sources.base import SourcePolicy
from app.sources.pairs import (
    CAPTIONS,
    LeftOutNames,
    PairSet,
    StoredPairs,
    find_files,
    match_pairs,
    read_captions,
)
from app.storage.database import Database

T = TypeVar("T")

EVALUATE = "evaluate"  # the kind of its jobs
PICTURES_AT_ONCE = 8  # decoded and encoded, so that searches get their turn in between
TEXTS_AT_ONCE = 32
SEARCHED_TEXTS = 1_000  # of a set, that are searched in each way
BUSY_SECONDS = 0.5  # between two tries while the server is busy
BUSY_TRIES = 60
PROFILE_SECONDS = 120.0
POLL_SECONDS = 0.2
MAX_OWN_TEXTS = 3  # of a missed picture that are shown
SEARCHES: Mapping[str, Mapping[str, Any]] = {
    "vector, exact": {"exact": True},
    "vector": {"mode": "vector"},
    "vector, no templates": {"mode": "vector", "templates": PLAIN},
    "keyword": {"mode": "keyword"},
    "hybrid": {"mode": "hybrid"},
}
"""The ways in which texts are searched, by the name of their line: options of `SearchQuery`."""

Advance = Callable[[int], None]
"""Called with the number of steps that are done since the last call. It raises what ends the evaluation."""


@dataclass(frozen=True, slots=True)
class PairEncoder:
    """How an evaluation encodes: with the encoder itself, or in turn with the searches of a server."""

    encoder: Encoder
    pool: DecodePool
    encode_texts: Callable[[Sequence[str]], Embeddings]
    encode_images: Callable[[Pixels], Embeddings]

    def embed_texts(self, texts: Sequence[str], advance: Advance) -> Embeddings:
        """float32 [n, d]."""
        reader = TextReader(self.encoder)
        vectors = [np.zeros((0, self.encoder.space.d), np.float32)]
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = [reader.replace_emoji(text) for text in texts[start : start + TEXTS_AT_ONCE]]
            vectors.append(check_vectors(self.encode_texts(some)))
            advance(len(some))
        return np.concatenate(vectors)

    def embed_pictures(self, paths: Mapping[int, Path], advance: Advance) -> tuple[dict[int, Embeddings], list[int]]:
        """The vectors of these files by their numbers, and the numbers of those that cannot be read. Stores nothing."""
        vectors: dict[int, Embeddings] = {}
        numbers = list(paths)
        for start in range(0, len(numbers), PICTURES_AT_ONCE):
            some = numbers[start : start + PICTURES_AT_ONCE]
            args = (self.encoder.preprocessing, self.pool.picture_limits)
            tasks = [self.pool.submit(decode_picture, paths[n], *args) for n in some]
            decoded = [result_or_none(task) for task in tasks]
            pixels = {n: one.pixels for n, one in zip(some, decoded, strict=True) if one is not None}
            if pixels:
                rows = check_vectors(self.encode_images(np.stack(list(pixels.values()))))
                vectors |= dict(zip(pixels, rows, strict=True))
            advance(len(some))
        return vectors, [n for n in numbers if n not in vectors]


def result_or_none(task: Future[DecodedPicture]) -> DecodedPicture | None:
    """The picture; None if its file cannot be read. Raises Overloaded if no decoder runs."""
    try:
        return task.result()
    except SightlineError as error:
        if isinstance(error, Overloaded) and error.detail in (CLOSED, NO_CHILD):
            raise
        return None


@dataclass(slots=True)
class PreparedSet:
    """A set whose pictures have vectors: row n of `images` [n, d] is that of `pairs.pictures[n]`.

    `ids` are those of the stored pictures, if they are stored.
    """

    pairs: PairSet
    images: Embeddings
    ids: Sequence[str] | None = None
    unknown: LeftOutNames = field(default_factory=LeftOutNames)
    unreadable: LeftOutNames = field(default_factory=LeftOutNames)

    def name(self, n: int) -> dict[str, str]:
        """How a result names a picture."""
        if self.ids is None:
            return {"name": self.pairs.pictures[n]}
        return {"id": self.ids[n]}


def prepare_files(
    pairs: PairSet, files: Mapping[int, Path], unknown: LeftOutNames, encoder: PairEncoder, advance: Advance
) -> PreparedSet:
    """Embed the files of a set by their numbers in it. Raises Validation when none can be read."""
    vectors, failed = encoder.embed_pictures(files, advance)
    unreadable = LeftOutNames()
    for n in failed:
        unreadable.add(pairs.pictures[n])
    if not vectors:
        first = (unknown.names + unreadable.names)[0]
        raise Validation(f"none of the {len(pairs.pictures):,} pictures of the set can be read, such as {first}")
    kept = sorted(vectors)
    return PreparedSet(pairs.select(kept), np.stack([vectors[n] for n in kept]), None, unknown, unreadable)


def measure(
    prepared: PreparedSet, encoder: PairEncoder, ks: Sequence[int], advance: Advance, head: Head | None = None
) -> dict[str, Any]:
    """The result of an evaluation, without searches. `advance` is called for each text."""
    pairs = prepared.pairs
    texts = encoder.embed_texts(pairs.texts, advance)
    if head is not None:
        texts = head.map_texts(texts)
    languages = [guess_language(text) for text in pairs.texts]
    found = evaluate(prepared.images, texts, pairs.owners, ks, languages, lambda: advance(0))
    return {
        "model": encoder.encoder.space.model,
        "head": head.id if head is not None else None,
        "n": len(pairs.pictures),
        "texts": len(pairs.texts),
        "text_to_image": found.text_to_image,
        "image_to_text": found.image_to_text,
        "languages": dict(found.languages),
        "misses": describe_misses(prepared, found),
        "unknown": prepared.unknown.to_json(),
        "unreadable": prepared.unreadable.to_json(),
        "warnings": [{"code": one.code, "detail": one.detail} for one in warn_of_set(prepared)],
    }


def describe_misses(prepared: PreparedSet, found: Evaluation) -> dict[str, list[dict[str, Any]]]:
    pairs, name = prepared.pairs, prepared.name

    def describe_picture(miss: Miss) -> dict[str, Any]:
        own = [text for text, owner in zip(pairs.texts, pairs.owners, strict=True) if owner == miss.own]
        return {
            "image": name(miss.own),
            "texts": own[:MAX_OWN_TEXTS],
            "rank": miss.rank,
            "first": pairs.texts[miss.first],
        }

    return {
        "text_to_image": [
            {"text": pairs.texts[miss.query], "image": name(miss.own), "rank": miss.rank, "first": name(miss.first)}
            for miss in found.missed_texts
        ],
        "image_to_text": [describe_picture(miss) for miss in found.missed_pictures],
    }


def warn_of_set(prepared: PreparedSet) -> list[AnswerWarning]:
    """What makes the figures of a set say less."""
    pairs, found = prepared.pairs, []
    for code, left_out, what in (
        ("unknown_pictures", prepared.unknown, "pictures of the set are not there"),
        ("unreadable_pictures", prepared.unreadable, "pictures of the set cannot be read"),
        ("bad_rows", pairs.bad_rows, "rows of the set have no picture or no text"),
    ):
        if left_out.count:
            names = ", ".join(left_out.names)
            found.append(AnswerWarning(code, f"{left_out.count:,} {what}, and are left out: {names}"))
    if pairs.repeated:
        found.append(AnswerWarning("repeated_pairs", f"{pairs.repeated:,} pairs are there twice, and count twice"))
    if shared := pairs.shared_texts:
        detail = f"{shared:,} texts are those of another picture, too: only one of these can come first"
        found.append(AnswerWarning("shared_texts", detail))
    if len(pairs.pictures) < MIN_QUERIES:
        detail = f"{len(pairs.pictures)} pictures are too few to say how good the search is; {MIN_QUERIES} is the least"
        found.append(AnswerWarning("too_few", detail))
    return found


def search_texts(
    searcher: Searcher, collection: str, prepared: PreparedSet, ks: Sequence[int], advance: Advance
) -> list[dict[str, Any]]:
    """A line for each way of SEARCHES: the recall of the set's texts among all pictures of the collection."""
    wait_for_profile(searcher, collection, advance)
    chosen = choose_texts(prepared.pairs)
    return [
        {"name": name, **search_in_one_way(searcher, collection, prepared, chosen, ks, options, advance)}
        for name, options in SEARCHES.items()
    ]


def wait_for_profile(searcher: Searcher, collection: str, advance: Advance) -> None:
    """Have the collection measured: what helps its searches is not known before. A while is all that this may take."""
    retry_while_busy(partial(searcher.search, SearchQuery([QueryPart(text="a")], k=1, collection=collection)), advance)
    given_up_at = time.monotonic() + PROFILE_SECONDS
    while not searcher.profiles.is_measured(collection) and time.monotonic() < given_up_at:
        advance(0)
        time.sleep(POLL_SECONDS)


def search_in_one_way(
    searcher: Searcher,
    collection: str,
    prepared: PreparedSet,
    chosen: Sequence[int],
    ks: Sequence[int],
    options: Mapping[str, Any],
    advance: Advance,
) -> dict[str, Any]:
    """The figures of the texts of these numbers, how many pictures were searched, and what was applied."""
    assert prepared.ids is not None
    pairs, k = prepared.pairs, max(ks)
    ranks: list[int] = []
    searched, is_normalised, has_templates = 0, False, False
    for start in range(0, len(chosen), TEXTS_AT_ONCE):
        some = chosen[start : start + TEXTS_AT_ONCE]
        common: dict[str, Any] = {"k": k, "collection": collection, "calibrate": False, **options}
        queries = [SearchQuery([QueryPart(text=pairs.texts[n])], **common) for n in some]
        answers = retry_while_busy(partial(searcher.search_all, queries), advance)
        for n, answer in zip(some, answers, strict=True):
            own = prepared.ids[pairs.owners[n]]
            hits = answer.hits if isinstance(answer, SearchResult) else []
            ranks.append(next((rank for rank, hit in enumerate(hits, 1) if hit.id == own), k + 1))
            if isinstance(answer, SearchResult):
                searched = max(searched, answer.searched)
                is_normalised |= answer.is_normalised
                has_templates |= bool(answer.templates) and answer.mode != "keyword"
        advance(len(some))
    figures = Ranks(np.array(ranks), np.array([pairs.owners[n] for n in chosen])).summarize(ks)
    if (figures["median_rank"] or 0) > k:
        figures["median_rank"] = None  # it is not looked for beyond k
    return {"searched": searched, "normalised": is_normalised, "templates": has_templates, **figures}


def retry_while_busy(call: Callable[[], T], advance: Advance) -> T:
    """What `call` returns, once the server is not busy. Raises Busy if it stays so."""
    for _ in range(BUSY_TRIES):
        try:
            return call()
        except Busy:
            advance(0)
            time.sleep(BUSY_SECONDS)
    return call()


def choose_texts(pairs: PairSet) -> list[int]:
    """The numbers of up to SEARCHED_TEXTS texts, always the same ones of a set."""
    count = len(pairs.texts)
    return sorted(map(int, np.random.default_rng(0).permutation(count)[:SEARCHED_TEXTS]))


def validate_ks(ks: Sequence[int] | None) -> list[int]:
    """The k of an evaluation, in order. Raises Validation."""
    found = sorted(set(ks or DEFAULT_K))
    if not 1 <= found[0] <= found[-1] <= 100 or len(found) > 10:
        raise Validation("k takes up to 10 numbers from 1 to 100")
    return found


class EvaluationTask:
    """The handler of the jobs that measure the search of a server."""

    def __init__(self, database: Database, pool: DecodePool, search: SearchService, policy: SourcePolicy) -> None:
        self._database = database
        self._pool = pool
        self._search = search
        self._policy = policy

    def run(self, context: TaskContext) -> Mapping[str, Any]:
        """Raises Validation for a set that cannot be used, TaskStopped."""
        model = self._search.model
        encoder = PairEncoder(
            model.encoder,
            self._pool,
            lambda texts: model.batcher.submit_texts(texts).result(),
            lambda pixels: model.batcher.submit_images(pixels).result(),
        )
        ks: list[int] = context.parameters["k"]
        steps = _Steps(context)
        prepared = self._prepare(context, encoder, steps)
        texts = len(prepared.pairs.texts)
        is_stored = prepared.ids is not None
        steps.total = steps.done + texts + (len(SEARCHES) * len(choose_texts(prepared.pairs)) if is_stored else 0)
        result = measure(prepared, encoder, ks, steps.advance, model.searcher.heads.get(context.collection))
        if is_stored:
            result["searches"] = search_texts(model.searcher, context.collection, prepared, ks, steps.advance)
        if context.parameters.get("source") == CAPTIONS:
            detail = "the texts are the captions that a search by words looks in: keyword and hybrid find their own"
            result["warnings"].append({"code": "captions_searched", "detail": detail})
        return {"source": context.parameters.get("source", "set"), **result}

    def _prepare(self, context: TaskContext, encoder: PairEncoder, steps: _Steps) -> PreparedSet:
        source, folder = context.parameters.get("source"), context.parameters.get("pictures")
        if source == CAPTIONS:
            return self._with_vectors(read_captions(self._database, context.collection), context.check)
        pairs = read_set(context, self._pool, self._policy.folders)
        if folder is not None:
            files, unknown = find_files(self._policy.folders, folder, pairs)
            steps.total = len(files) + len(pairs.texts)
            return prepare_files(pairs, files, unknown, encoder, steps.advance)
        stored = match_pairs(self._database, context.collection, pairs)
        if not stored.keys:
            raise Validation(
                f"none of the {len(pairs.pictures):,} pictures of the set is in the collection {context.collection!r}"
                f" (the first are {', '.join(stored.unknown.names[:3])}): name them by id, SHA-256 or file, or give the"
                " folder of the pictures"
            )
        return self._with_vectors(stored, context.check)

    def _with_vectors(self, stored: StoredPairs, check: Callable[[], None]) -> PreparedSet:
        """Pictures that a re-embedding has not reached are left out."""
        found = read_vectors(self._database, stored.keys, check)
        kept = [n for n, key in enumerate(stored.keys) if key in found]
        for n in set(range(len(stored.keys))) - set(kept):
            stored.unknown.add(stored.pairs.pictures[n])
        images = np.frombuffer(b"".join(found[stored.keys[n]] for n in kept), "<f4").reshape(len(kept), -1)
        return PreparedSet(stored.pairs.select(kept), images, [stored.ids[n] for n in kept], stored.unknown)


@dataclass(slots=True)
class _Steps:
    """How far an evaluation is."""

    context: TaskContext
    done: int = 0
    total: int = 0

    def advance(self, count: int) -> None:
        self.done += count
        self.context.report(self.done, max(self.total, self.done))
