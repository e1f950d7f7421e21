"""How far the model knows a collection, measured on the captions and file names of its own pictures.

A fused ranking needs it: a model that was made for other pictures returns noise, and must not drag the words down.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import apsw
import numpy as np

from app.core.background import BackgroundLoop
from app.core.types import Image
from app.encoder.protocol import Embeddings
from app.search.heads import Head
from app.storage.database import Database
from app.storage.keywords import drop_stop_words, split_source, split_words
from app.storage.tables import embeddings, images

DEFAULT_TRUST = 0.8  # where there is nothing to measure it by
SAMPLE = 1_000  # pictures that each text is compared with
TEXTS = 128  # texts that are tried, each of which should find its own picture
MIN_TEXTS = 16  # fewer say nothing
FOUND_WITHIN = 0.01  # of the sample: where the right picture counts as found
MAX_SHARED = 0.01  # of the sample: a text that more pictures have names none of them
CAMERA_WORD = re.compile(
    "img|image|dsc[nf]?|pxl|mvimg|vid|gopr|dji|pic|picture|photo|foto|scan|screenshot|whatsapp|signal|unnamed|untitled"
    "|file|download|copy|edited|burst|pano|cover|portrait|night",
    re.IGNORECASE,
)  # in the names that cameras and programs give


@dataclass(frozen=True, slots=True)
class _Measured:
    trust: float
    size: int  # of the collection
    head: str | None


class ModelTrust:
    """What is known of each collection; a thread measures it, again whenever a collection has doubled or changed its
    head."""

    def __init__(
        self,
        database: Database,
        encode: Callable[[Sequence[str]], Sequence[Embeddings]],
        find_head: Callable[[str], Head | None] = lambda collection: None,
    ) -> None:
        self._database = database
        self._encode = encode
        self._find_head = find_head
        self._lock = threading.Lock()
        self._measured: dict[str, _Measured] = {}
        self._waiting: dict[str, tuple[int, str | None]] = {}
        self._loop = BackgroundLoop("model-trust", self._step, "the model is not measured on the collections")

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        self._loop.close()

    def get(self, collection: str, size: int, head: str | None = None) -> float:
        """0 (the vectors find nothing of what they should) to 1; `size` is how many pictures there are now."""
        known = self._measured.get(collection)
        if known is None or size >= 2 * known.size or known.head != head:
            with self._lock:
                self._waiting[collection] = size, head
            self._loop.wake()
        return known.trust if known else DEFAULT_TRUST

    def is_measured(self, collection: str) -> bool:
        """Whether the thread has looked at this collection."""
        return collection in self._measured

    def _step(self) -> None:
        """Measure each collection that was asked for. Raises what the encoder raises."""
        while self._waiting and not self._loop.is_closing():
            with self._lock:
                collection, (size, head) = self._waiting.popitem()
            found = self.measure(collection)
            trust = DEFAULT_TRUST if found is None else found
            self._measured[collection] = _Measured(trust, max(size, MIN_TEXTS), head)

    def measure(self, collection: str) -> float | None:
        """The share of texts that find their own picture; None if too few pictures have a text that names them."""
        sample, vectors = self._database.read(lambda c: read_sample(c, collection))
        described = {key: text for key, image in sample.items() if (text := describe(image))}
        shared = Counter(described.values())
        most = max(1, int(MAX_SHARED * len(sample)))
        chosen = [key for key, text in described.items() if shared[text] <= most and key in vectors][:TEXTS]
        if len(chosen) < MIN_TEXTS:
            return None
        keys = list(vectors)
        table = np.stack([vectors[key] for key in keys])
        queries = np.stack(self._encode([described[key] for key in chosen]))
        if (head := self._find_head(collection)) is not None:
            queries = head.map_texts(queries)
        scores = queries @ table.T
        own = scores[np.arange(len(chosen)), [keys.index(key) for key in chosen]]
        better = (scores > own[:, None]).sum(axis=1)
        return float((better < max(1, FOUND_WITHIN * len(keys))).mean())


def read_sample(c: apsw.Connection, collection: str) -> tuple[dict[int, Image], dict[int, Embeddings]]:
    """Up to SAMPLE pictures of a collection and their vectors, always the same while it does not change."""
    keys = np.array(images.list_ready_keys(c, collection), np.int64)
    chosen = np.random.default_rng(0).choice(keys, min(SAMPLE, len(keys)), replace=False).tolist()
    stored = embeddings.get_vectors(c, "images", chosen)
    return images.get_by_keys(c, chosen), {key: np.frombuffer(vector, "<f4") for key, vector in stored.items()}


def describe(image: Image) -> str | None:
    """What the picture is said to show: its caption, or its file name unless a camera made that."""
    if image.caption:
        return image.caption
    name = split_source(image.source)[1].rpartition(".")[0]
    words = [written for _, written in drop_stop_words(split_words(name)) if written.isalpha()]
    telling = [word for word in words if len(word) > 2 and not CAMERA_WORD.fullmatch(word)]
    return " ".join(words) if telling else None
