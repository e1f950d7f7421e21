"""The heads of collections: taught by a task, listed, put to use, taken off and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from app.core.errors import HeadRefused, NotFound, Validation
from app.core.types import CollectionInfo, HeadInfo
from app.decode.pool import DecodePool
from app.encoder.protocol import Embeddings, check_vectors
from app.search.head_training import Pairs, require_gain, select_pairs, split_pairs, teach
from app.service.pair_sets import read_set, read_vectors
from app.service.search_service import LoadedModel, SearchService
from app.service.tasks import TaskContext
from app.sources.base import SourcePolicy
from app.sources.pairs import CAPTIONS, StoredPairs, match_pairs, read_captions
from app.storage.database import Database
from app.storage.library import load_contents
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings, heads
from app.storage.tables.collections import Collection

TEACH = "teach"  # the kind of the task
MAX_PICTURES = 20_000  # that a head is taught by
TEXTS_AT_ONCE = 32  # encoded, so that searches get their turn in between
STEPS = 1_000  # in which a task says how far it is
ENCODING = 0.5  # of them


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a head is taught by: pairs, and the vectors of their pictures, in the order of `ids`."""

    collection: Collection
    pairs: Pairs
    ids: Sequence[str]
    images: Embeddings
    left_out: Mapping[str, Any]


class HeadService:
    def __init__(self, database: Database, pool: DecodePool, search: SearchService, policy: SourcePolicy) -> None:
        self._database = database
        self._pool = pool
        self._search = search
        self._policy = policy

    def list_all(self, collection: str | None = None) -> list[HeadInfo]:
        """The heads of a collection, or of all; newest first. Raises NotFound."""

        def work(c: Connection) -> list[HeadInfo]:
            if collection is not None:
                collections.require(c, collection)
            return heads.list_all(c, collection)

        return self._database.read(work)

    def get(self, id: str) -> HeadInfo:
        """Raises NotFound."""
        return self._database.read(lambda c: require_head(c, id))

    def delete(self, id: str) -> None:
        """Delete a head; a collection that uses it has none then. Raises NotFound."""

        def work(c: Connection) -> None:
            require_head(c, id)
            heads.delete(c, id)

        self._database.write(work)

    def use(self, collection: str, id: str | None) -> CollectionInfo:
        """Let a collection use one of its heads, or none. Raises NotFound, and Validation for one of another space."""

        def work(c: Connection) -> CollectionInfo:
            changed = collections.require(c, collection)
            if id is not None:
                head = require_head(c, id)
                if head.collection != collection:
                    raise Validation(f"the head {id!r} is one of the collection {head.collection!r}")
                require_space(c, head, changed)
            heads.use(c, collection, id)
            return load_contents(c, collections.require(c, collection))

        return self._database.write(work)

    def teach(self, context: TaskContext) -> Mapping[str, Any]:
        """Do a task: teach a collection a head, measure it, keep it if it helps, and use it.

        Its result has the figures also where the head is refused. Raises HeadRefused, Validation, NotFound.
        """
        model = self._search.model
        parameters = context.parameters
        lesson = self._prepare(context, model)
        pairs = lesson.pairs
        context.result |= {
            "model": model.encoder.space.model,
            "texts": len(pairs.texts),
            "pictures": sum(len(own) > 0 for own in pairs.own_texts),
            "shared": pairs.left_out,
            **lesson.left_out,
        }
        split = split_pairs(pairs, lesson.ids)
        texts = self._encode(context, model, pairs.texts)

        def report(share: float) -> None:
            context.report(int(STEPS * (ENCODING + (1 - ENCODING) * share)), STEPS)

        taught = teach(texts, lesson.images, pairs, split, model.encoder.temperature, report)
        context.result |= taught.figures
        require_gain(taught)
        context.check()
        if not parameters["dry_run"]:
            matrix = taught.head.astype("<f4").tobytes()
            save = partial(save_head, lesson=lesson, matrix=matrix, figures=context.result)
            keep = partial(save, maps_pictures=taught.maps_pictures, take_on=parameters["take_on"])
            return {"head": context.write(keep)}
        return {}

    def _prepare(self, context: TaskContext, model: LoadedModel) -> Lesson:
        """Read the pairs and the vectors of their pictures."""
        name = context.collection
        if context.parameters.get("source") == CAPTIONS:
            stored = read_captions(self._database, name, MAX_PICTURES)
        else:
            stored = match_pairs(self._database, name, read_set(context, self._pool, self._policy.folders))
        collection = self._database.read(lambda c: collections.require(c, name))
        if collection.space != model.encoder.space.fingerprint:
            raise HeadRefused(f"the collection {name!r} has no vectors of the model {model.encoder.space.model}")
        vectors = read_vectors(self._database, stored.keys, context.check, collection.space)
        return make_lesson(collection, stored, vectors)

    def _encode(self, context: TaskContext, model: LoadedModel, texts: Sequence[str]) -> Embeddings:
        """float32 [n, d], in turn with the searches."""
        parts: list[Embeddings] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            context.report(int(STEPS * ENCODING * start / len(texts)), STEPS)
            encoded = model.searcher.encode_texts(texts[start : start + TEXTS_AT_ONCE])
            parts.append(np.stack([np.frombuffer(vector, "<f4") for vector in encoded]))
        return np.concatenate(parts)


def make_lesson(collection: Collection, stored: StoredPairs, vectors: Mapping[int, bytes]) -> Lesson:
    """The pairs of pictures that have a vector."""
    kept = [n for n, key in enumerate(stored.keys) if key in vectors][:MAX_PICTURES]
    if not kept:
        raise HeadRefused(f"none of the pictures of the set is one of the collection {collection.name!r} and ready")
    pairs = stored.pairs.select(kept)
    ids = [stored.ids[n] for n in kept]
    rows = np.stack([np.frombuffer(vectors[stored.keys[n]], "<f4") for n in kept])
    left_out = {"unknown": stored.unknown.to_json(), "bad_rows": pairs.bad_rows.to_json()}
    return Lesson(collection, select_pairs(pairs.texts, pairs.owners, ids), ids, check_vectors(rows), left_out)


def require_head(c: Connection, id: str) -> HeadInfo:
    """Raises NotFound."""
    if (head := heads.get(c, id)) is None:
        raise NotFound(f"there is no head {id!r}")
    return head


def require_space(c: Connection, head: HeadInfo, collection: Collection) -> None:
    """Raise Validation unless the vectors of the collection are of the head's space."""
    if collection.space != head.space:
        space = embeddings.get_space(c, collection.space) if collection.space else None
        now = f"are of {space.model}" if space else "are gone"
        raise Validation(f"the head {head.id!r} was taught for {head.model}; the vectors of the collection {now}")


def save_head(
    c: Connection,
    lesson: Lesson,
    matrix: bytes,
    figures: Mapping[str, Any],
    *,
    maps_pictures: bool,
    take_on: bool,
) -> str:
    """Store a head, and let the collection use it if `take_on`; returns its id.

    Raises HeadRefused where the collection was deleted or got vectors of another space meanwhile.
    """
    before = lesson.collection
    now = collections.get(c, before.name)
    if now is None or (now.label, now.space) != (before.label, before.space):
        raise HeadRefused("the collection was changed while the head was taught; teach it again")
    assert now.space is not None
    id = heads.save(c, now.label, now.space, matrix, figures, maps_pictures=maps_pictures)
    if take_on:
        heads.use(c, now.name, id)
    return id
