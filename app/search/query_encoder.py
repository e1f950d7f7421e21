"""The vector of a query: the encoder takes its texts and pictures, and the vectors of the parts are added up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from app.core.errors import Busy, NotFound, SightlineError, Validation
from app.core.types import Target
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.encoder.batcher import Batcher
from app.encoder.protocol import Embeddings, Encoder
from app.encoder.reading import TextReader
from app.search.heads import Head
from app.search.templates import PLAIN, average, fill
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import embeddings, images, texts

T = TypeVar("T")

TEXTS_PER_PASS = 32  # texts of one caller in one forward pass
PICTURES_AT_ONCE = 8  # of one caller decoded at once, likewise
MIN_LENGTH = 1e-6  # a sum of parts shorter than this has no direction


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One part of a query: exactly one of the first five fields is set. The weight may be negative.

    `field` is what the client sent the text as, for warnings. The vector of a text is the mean of its filled
    `templates`.
    """

    text: str | None = None
    image_id: str | None = None
    text_id: str | None = None
    picture: Path | None = None
    vector: Sequence[float] | None = None
    weight: float = 1.0
    field: str | None = None
    templates: Sequence[str] = PLAIN

    @property
    def kind(self) -> Target | None:
        """Whether it is a picture or a text; None for a vector, of which nobody knows."""
        if self.vector is not None:
            return None
        return "texts" if self.text is not None or self.text_id is not None else "images"


@dataclass(frozen=True, slots=True)
class EncodedParts:
    """The vectors of texts and pictures; for a picture without one, the error."""

    texts: Mapping[str, Embeddings]
    pictures: Mapping[Path, Embeddings | SightlineError]


class QueryEncoder:
    """Makes the vectors of queries. Its methods block; callers run them in threads."""

    def __init__(self, database: Database, encoder: Encoder, batcher: Batcher, pool: DecodePool) -> None:
        self._database = database
        self._encoder = encoder
        self._batcher = batcher
        self._pool = pool
        self.reader = TextReader(encoder)

    def begin(self, parts: Sequence[QueryPart]) -> Callable[[], EncodedParts]:
        """Hand the first texts of `parts` to the encoder.

        The function that this returns waits for them, and encodes the rest. It raises Busy.
        """
        texts = ((part.text, part.templates) for part in parts if part.text is not None)
        words = list(dict.fromkeys(fill(template, text) for text, templates in texts for template in templates))
        paths = [part.picture for part in parts if part.picture is not None]
        finish = self._begin_texts(words)
        return lambda: EncodedParts(dict(zip(words, finish(), strict=True)), self._encode_pictures(paths))

    def encode_texts(self, words: Sequence[str]) -> list[Embeddings]:
        """A vector for each text."""
        return self._begin_texts(words)()

    def embed(self, collection: str, parts: Sequence[QueryPart]) -> Embeddings:
        """The vector of a query. Raises Validation, NotFound, Rejected, Busy."""
        return self.add_up(collection, parts, self.begin(parts)())

    def add_up(
        self,
        collection: str,
        parts: Sequence[QueryPart],
        encoded: EncodedParts,
        head: Head | None = None,
        target: Target = "images",
    ) -> Embeddings:
        """The weighted sum of the parts' unit vectors, float32 [d], of length 1; with `head`, to look for `target`.

        Raises Validation when the sum is nearly zero, NotFound, Rejected.
        """
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

    def read_pictures(self, collection: str, ids: Sequence[str]) -> Embeddings:
        """The vectors of stored pictures, [n, d]. Raises NotFound, and Validation for a picture without one."""
        vectors = [self._read_vector(collection, QueryPart(image_id=id)) for id in ids]
        return np.stack(vectors) if vectors else np.empty((0, self._encoder.space.d), np.float32)

    def _begin_texts(self, words: Sequence[str]) -> Callable[[], list[Embeddings]]:
        """Many are encoded a few at a time, so that other queries get their turn in between."""
        words = [self.reader.replace_emoji(text) for text in words]
        first = self._batcher.submit_texts(words[:TEXTS_PER_PASS]) if words else None

        def finish() -> list[Embeddings]:
            vectors: list[Embeddings] = [] if first is None else list(first.result())
            for start in range(TEXTS_PER_PASS, len(words), TEXTS_PER_PASS):
                vectors.extend(self._batcher.submit_texts(words[start : start + TEXTS_PER_PASS]).result())
            return vectors

        return finish

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

    def _part_vector(self, collection: str, part: QueryPart, encoded: EncodedParts) -> Embeddings:
        if part.text is not None:
            return average([encoded.texts[fill(template, part.text)] for template in part.templates])
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
        id, space = part.image_id or part.text_id or "", self._encoder.space.fingerprint

        def work(c: Connection) -> tuple[bool, bytes | None]:
            row = images.get(c, collection, id) if target == "images" else texts.get(c, collection, id)
            return row is not None, embeddings.get_vectors(c, target, [row.key], space).get(row.key) if row else None

        there, vector = self._database.read(work)
        if not there:
            raise NotFound(f"there is no {target[:-1]} {id!r} in {collection!r}")
        if vector is None:
            raise Validation(f"{target[:-1]} {id!r} has no vector (yet)")
        return np.frombuffer(vector, dtype="<f4")


def result_or_error(work: Callable[[], T]) -> T | SightlineError:
    """What `work` returns, or the error that it raises. Raises Busy: that concerns every query, not only this one."""
    try:
        return work()
    except Busy:
        raise
    except SightlineError as error:
        return error
