"""From a question to hits: encode its parts, add them up, ask the index, look up the rows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import apsw
import numpy as np

from app.decode.pool import DecodePool, DecodeTask
from app.encoder.batcher import Batcher
from app.encoder.protocol import Embeddings, Encoder, checked
from app.errors import NotFound, Validation
from app.store import embeddings, images, texts
from app.store.database import Database
from app.types import Hit, Image, Status, Target, Text
from index.protocol import VectorIndex

SPARE = 16  # asked for beyond k, because rows may be deleted faster than the index follows
BLANK = re.compile(r"\{label\}|\{\}")  # where a label goes in a template
SHARE = 32  # texts of one caller in one forward pass
SHORTEST = 1e-6  # a sum of parts shorter than this has no direction


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a question: exactly one of the fields says what, `weight` how much (it may be negative)."""

    text: str | None = None
    image_id: str | None = None
    text_id: str | None = None
    picture: Path | None = None
    vector: Sequence[float] | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """The answer: hits, best first; milliseconds by stage; how many vectors were compared."""

    hits: list[Hit]
    took_ms: dict[str, float]
    searched: int


class Searcher:
    """Answers questions about one collection at a time. Its methods block; callers run them in threads."""

    def __init__(
        self,
        database: Database,
        encoder: Encoder,
        batcher: Batcher,
        pool: DecodePool,
        use: Callable[[str, Target], AbstractContextManager[VectorIndex]],
    ) -> None:
        self._database = database
        self._encoder = encoder
        self._batcher = batcher
        self._pool = pool
        self._use = use

    def search(self, collection: str, parts: Sequence[Part], target: Target, k: int) -> Found:
        """The k nearest pictures or texts. Raises Validation, NotFound, Rejected, Overloaded."""
        began = time.perf_counter()
        with self._use(collection, target) as index:
            query = self.embed(collection, parts)
            encoded = time.perf_counter()
            searching = fetching = 0.0
            asked = k + SPARE
            while True:
                start = time.perf_counter()
                scores, keys = index.search(query[None, :], asked)
                middle = time.perf_counter()
                hits = self._fetch(target, keys[0], scores[0])[:k]
                searching += middle - start
                fetching += time.perf_counter() - middle
                searched = index.ntotal
                if len(hits) == k or asked >= searched:
                    break
                asked *= 4
        stages = {"encode": encoded - began, "search": searching, "fetch": fetching}
        stages["total"] = time.perf_counter() - began
        return Found(hits, {name: round(s * 1000, 2) for name, s in stages.items()}, searched)

    def embed(self, collection: str, parts: Sequence[Part]) -> Embeddings:
        """The weighted sum of the parts' unit vectors, float32 [d], of length 1.

        The words of all parts go through the encoder together. Raises Validation when nothing is left.
        """
        if not parts:
            raise Validation("the query is empty")
        words = [part.text for part in parts if part.text is not None]
        encoded = iter(self._encode(words))
        total = np.zeros(self._encoder.space.d, dtype=np.float32)
        for part in parts:
            vector = next(encoded) if part.text is not None else self._vector(collection, part)
            total += np.float32(part.weight) * vector
        length = float(np.linalg.norm(total))
        if not np.isfinite(length) or length < SHORTEST:
            raise Validation("the parts of the query cancel each other out")
        return np.asarray(total / length, dtype=np.float32)

    def classify(self, collection: str, part: Part, labels: Sequence[str], template: str) -> list[tuple[str, float]]:
        """Labels with their probabilities, likeliest first: a softmax by the model's own temperature."""
        with self._use(collection, "images"):  # which is there, or NotFound
            pass
        sentences = [label.join(BLANK.split(template)) for label in labels]
        image = self.embed(collection, [part])
        vectors = np.stack(self._encode(sentences))
        logits = self._encoder.temperature * (vectors @ image)
        odds = np.exp(logits - logits.max())
        shares = odds / odds.sum()
        order = np.argsort(-shares, kind="stable")
        return [(labels[n], float(shares[n])) for n in order]

    def encode_texts(self, words: Sequence[str]) -> list[bytes]:
        """The vectors of texts as they stand in the log."""
        if not words:
            return []
        return [vector.astype("<f4").tobytes() for vector in checked(np.stack(self._encode(words)))]

    def _encode(self, words: Sequence[str]) -> list[Embeddings]:
        """A vector for each text. Many go a few at a time, so that other queries get their turn between."""
        vectors: list[Embeddings] = []
        for start in range(0, len(words), SHARE):
            vectors.extend(self._batcher.texts(words[start : start + SHARE]).result())
        return vectors

    def _vector(self, collection: str, part: Part) -> Embeddings:
        if part.picture is not None:
            decoded = self._pool.submit(DecodeTask(part.picture, self._encoder.preprocessing)).result()
            return np.asarray(self._batcher.images(decoded.pixels[None]).result()[0])
        if part.vector is not None:
            return self._given(part.vector)
        return self._stored(collection, part)

    def _given(self, values: Sequence[float]) -> Embeddings:
        d = self._encoder.space.d
        if len(values) != d:
            raise Validation(f"a vector of this model has {d} numbers, not {len(values)}")
        vector = np.asarray(values, dtype=np.float64)  # float32 cannot hold the squares of large numbers
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length < SHORTEST:
            raise Validation("the vector must be finite and not zero")
        return np.asarray(vector / length, dtype=np.float32)

    def _stored(self, collection: str, part: Part) -> Embeddings:
        """The vector of a picture or text that is here already."""
        target: Target = "images" if part.image_id is not None else "texts"
        id = part.image_id or part.text_id or ""

        def work(c: apsw.Connection) -> tuple[bool, bytes | None]:
            row = images.get(c, collection, id) if target == "images" else texts.get(c, collection, id)
            return row is not None, embeddings.vectors(c, target, [row.key]).get(row.key) if row else None

        there, vector = self._database.read(work)
        if not there:
            raise NotFound(f"there is no {target[:-1]} {id!r} in {collection!r}")
        if vector is None:
            raise Validation(f"{target[:-1]} {id!r} has no vector (yet)")
        return np.frombuffer(vector, dtype="<f4")

    def _fetch(self, target: Target, keys: Sequence[int], scores: Sequence[float]) -> list[Hit]:
        """The hits whose rows are still there and ready, in the order of the scores."""
        wanted = [int(key) for key in keys if key >= 0]
        rows: Mapping[int, Image | Text]
        if target == "images":
            found = self._database.read(lambda c: images.by_keys(c, wanted))
            rows = {key: image for key, image in found.items() if image.status is Status.READY}
        else:
            rows = self._database.read(lambda c: texts.by_keys(c, wanted))
        return [hit_of(rows[int(key)], float(score)) for key, score in zip(keys, scores, strict=True) if key in rows]


def hit_of(row: Image | Text, score: float) -> Hit:
    """A row as a hit."""
    if isinstance(row, Image):
        return Hit(row.id, score, image=row)
    return Hit(row.id, score, text=row)
