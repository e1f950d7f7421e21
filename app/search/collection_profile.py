"""What the model makes of a collection, measured in the background on a sample of its own pictures.

A search uses it: how far the vectors count beside the words, which pictures are hubs, whether templates help, and how
near something must be to fit. It never waits for it.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from app.core.background import BackgroundLoop
from app.core.errors import NotFound
from app.core.types import Image, Target
from app.encoder.catalogue import find_facts
from app.encoder.protocol import Embeddings, Encoder
from app.search.heads import Head
from app.search.hubs import STRENGTH, HubBiases, do_biases_help, measure_biases
from app.search.templates import AUTOMATIC, PLAIN, do_templates_help
from app.search.verdict import (
    MIN_PICTURES,
    Calibration,
    Floats,
    Spread,
    calibrate_by_captions,
    calibrate_by_noise,
    make_noise,
)
from app.storage.database import Database
from app.storage.keywords import drop_stop_words, split_source, split_words
from app.storage.sql import Connection
from app.storage.tables import embeddings, images, texts
from index.protocol import VectorIndex
from index.types import Ids

Encode = Callable[[Sequence[str]], Sequence[Embeddings]]
Use = Callable[[str, Target], AbstractContextManager[VectorIndex]]

DEFAULT_TRUST = 0.8  # where there is nothing to measure it by
SAMPLE = 2_000  # pictures that each text is compared with
TEXTS = 1_000  # texts that are tried, each of which should find its own picture
MIN_TEXTS = 16  # fewer say nothing
MIN_CAPTIONS = 64  # fewer say nothing of what is near enough
FOUND_WITHIN = 0.01  # of the sample: where the right picture counts as found
MAX_SHARED = 0.01  # of the sample: a text that more pictures have names none of them
SAME = 0.9  # the cosine of two texts that say the same
NEAREST = 16  # pictures among which the nearest wrong one is
DIGITS = 4  # of cosines and deviations: what differs less is as near
AT_ONCE = 32  # texts, or queries of the index: others get their turn in between
VECTORS_AT_ONCE = 2_000
PAUSE = 0.01  # seconds between two blocks of work
MAX_PROFILES = 64  # collections that were searched last; a sample has 4 MB at d = 512, and a bias 12 bytes a picture
GENERIC = Path(__file__).with_name("generic_captions.txt")
CAMERA_WORD = re.compile(
    "img|image|dsc[nf]?|pxl|mvimg|vid|gopr|dji|pic|picture|photo|foto|scan|screenshot|whatsapp|signal|unnamed|untitled"
    "|file|download|copy|edited|burst|pano|cover|portrait|night",
    re.IGNORECASE,
)  # in the names that cameras and programs give


@dataclass(frozen=True, slots=True)
class Sample:
    """Pictures chosen at random: `keys` and the rows of `vectors` [n, d], and the rows that a text names alone."""

    keys: Ids
    vectors: Embeddings
    texts: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a collection that had `size` pictures; `trust` is 0 where the vectors find nothing, up to 1."""

    size: int = 0
    trust: float = DEFAULT_TRUST
    spread: Spread | None = None  # of its pictures
    hubs: HubBiases | None = None
    templates: Sequence[str] = PLAIN
    calibration: Calibration | None = None
    head: str | None = None  # that its texts went through


UNKNOWN = Profile()


def read_generic_captions(languages: Collection[str]) -> list[str]:
    """The captions that come with the service: the English ones, and with `zh` among the languages all."""
    lines = GENERIC.read_text("utf-8").splitlines()
    return [line for line in lines if "zh" in languages or line.isascii()]


class CollectionProfiles:
    """The profile of each collection; a thread measures it, again whenever a collection has doubled or changed its
    head."""

    def __init__(
        self,
        database: Database,
        encoder: Encoder,
        encode: Encode,
        use: Use,
        find_head: Callable[[str], Head | None] = lambda collection: None,
    ) -> None:
        self._database = database
        self._encoder = encoder
        self._encode_texts = encode
        self._use = use
        self._find_head = find_head
        self._lock = threading.Lock()
        self._measured: OrderedDict[str, Profile] = OrderedDict()
        self._waiting: dict[str, int] = {}
        self._bank: Embeddings | None = None
        self._loop = BackgroundLoop("profiles", self._step, "the model is not measured on the collections")

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        self._loop.close()

    def get(self, collection: str, size: int, head: Head | None = None) -> Profile:
        """What is known now of texts that go through `head`; `size` is how many pictures there are."""
        used = head.id if head is not None else None
        with self._lock:
            known = self._measured.get(collection, UNKNOWN)
            if known is not UNKNOWN:
                self._measured.move_to_end(collection)
            if size and (size >= 2 * known.size or known.head != used):
                self._waiting[collection] = size
                self._loop.wake()
        return known if known.head == used else UNKNOWN

    def read_bank(self, collection: str) -> Embeddings:
        """Vectors of texts that people may ask the collection for: [n, d]. Raises what the encoder raises."""
        try:
            return self._read_bank(collection, self._find_head(collection))
        except _Closing:
            return np.empty((0, 0), np.float32)

    def is_measured(self, collection: str) -> bool:
        """Whether the thread has looked at this collection."""
        return collection in self._measured

    def is_calibrated(self, collection: str) -> bool:
        """Whether it is known how near a text must be to fit."""
        return self._measured.get(collection, UNKNOWN).calibration is not None

    def forget(self, collection: str) -> None:
        """Drop what is known of a deleted collection."""
        with self._lock:
            self._measured.pop(collection, None)

    def _step(self) -> None:
        """Measure each collection that was asked for. Raises what the encoder raises."""
        while self._waiting and not self._loop.is_closing():
            with self._lock:
                collection, size = self._waiting.popitem()
            try:
                found = self.measure(collection, max(size, MIN_TEXTS))
            except (NotFound, _Closing):
                continue
            with self._lock:
                self._measured[collection] = found
                if self._waiting.get(collection, 0) < 2 * found.size:  # asked for meanwhile
                    self._waiting.pop(collection, None)
                while len(self._measured) > MAX_PROFILES:
                    self._measured.popitem(last=False)

    def measure(self, collection: str, size: int = MIN_TEXTS) -> Profile:
        """Look at the collection now. Raises NotFound if it has been deleted."""
        sample = self._database.read(lambda c: read_sample(c, collection))
        rows = list(sample.texts)
        if not len(sample.keys):
            return Profile(size)
        head = self._find_head(collection)
        queries = self._encode(list(sample.texts.values()), head) if len(rows) >= MIN_TEXTS else sample.vectors[:0]
        trust = measure_trust(queries, rows, sample.vectors) if len(queries) else DEFAULT_TRUST
        bank = self._read_bank(collection, head)
        hubs = self._measure_hubs(collection, sample, queries, bank) if len(queries) else None
        plain = dict(zip(rows, queries, strict=False))
        encode = partial(self._encode, head=head)
        helps = do_templates_help(encode, sample.texts, plain, sample.vectors) if plain else False
        calibration = self._calibrate(collection, sample, queries, head) if len(sample.keys) >= MIN_PICTURES else None
        used = head.id if head is not None else None
        return Profile(size, trust, Spread.of(sample.vectors), hubs, AUTOMATIC if helps else PLAIN, calibration, used)

    def _encode(self, words: Sequence[str], head: Head | None = None) -> Embeddings:
        """float32 [n, d], a few at a time. Raises what the encoder raises."""
        found: list[Embeddings] = []
        for start in range(0, len(words), AT_ONCE):
            found.extend(self._encode_texts(words[start : start + AT_ONCE]))
            self._pause()
        return map_texts(head, np.stack(found))

    def _pause(self) -> None:
        """Let searches go first."""
        if self._loop.pause(PAUSE):
            raise _Closing

    def _read_generic(self) -> Embeddings:
        """The vectors of the captions that come with the service, in the languages that the model knows."""
        if self._bank is None:
            self._bank = self._encode(read_generic_captions(find_facts(self._encoder.space.model).languages))
        return self._bank

    def _read_bank(self, collection: str, head: Head | None = None) -> Embeddings:
        """Texts that people may ask for: generic captions, and the texts that the collection stores."""
        stored = self._database.read(partial(read_stored_texts, collection))
        return map_texts(head, np.concatenate([self._read_generic(), stored]) if len(stored) else self._read_generic())

    def _measure_hubs(self, collection: str, sample: Sample, queries: Embeddings, bank: Embeddings) -> HubBiases | None:
        """The biases of all pictures; None where they would not help."""
        temperature = self._encoder.temperature
        if not do_biases_help(queries, list(sample.texts), sample.vectors, bank, temperature):
            return None
        whole = np.concatenate([queries, bank])
        keys = np.array(self._database.read(lambda c: images.list_ready_keys(c, collection)), np.int64)
        biases = np.empty(len(keys), np.float32)
        known = np.zeros(len(keys), np.bool_)
        for start in range(0, len(keys), VECTORS_AT_ONCE):
            some = keys[start : start + VECTORS_AT_ONCE]
            stored = self._database.read(lambda c, k=some: embeddings.get_vectors(c, "images", k.tolist()))  # type: ignore[misc]
            there = np.array([key in stored for key in some.tolist()], np.bool_)
            if stored:
                vectors = np.stack([np.frombuffer(stored[key], "<f4") for key in some[there].tolist()])
                measured = STRENGTH * measure_biases(vectors, whole, temperature)
                biases[start : start + len(some)][there] = measured
                known[start : start + len(some)] = there
            self._pause()
        return HubBiases(keys[known], biases[known], float(np.median(biases[known])))

    def _calibrate(self, collection: str, sample: Sample, queries: Embeddings, head: Head | None) -> Calibration | None:
        """By the captions and names of the pictures if there are enough, else by texts without a meaning."""
        if len(queries) >= MIN_CAPTIONS:
            present, absent = self._find_best(collection, queries, sample, is_own=True)
            noise, _ = self._find_best(collection, make_noise(queries, len(queries)), sample)
            return calibrate_by_captions(present, absent[np.isfinite(absent[:, 0])], noise)
        generic = map_texts(head, self._read_generic())
        asked, _ = self._find_best(collection, generic, sample)
        noise, _ = self._find_best(collection, make_noise(generic, len(generic)), sample)
        return calibrate_by_noise(asked, noise)

    def _find_best(
        self, collection: str, queries: Embeddings, sample: Sample, *, is_own: bool = False
    ) -> tuple[Floats, Floats]:
        """(cosine, deviations) [n, 2] of the nearest picture, and of the nearest that no text like the query names.

        The second is for the texts of the sample itself, in their order (`is_own`); NaN where all NEAREST are own.
        """
        rows = list(sample.texts)
        best, wrong = np.empty((len(queries), 2)), np.empty((len(queries), 2))
        for start in range(0, len(queries), AT_ONCE):
            part = queries[start : start + AT_ONCE]
            with self._use(collection, "images") as index:
                scores, keys = index.search(part, NEAREST)
            alike = part @ queries.T >= SAME if is_own else np.zeros((len(part), 0), np.bool_)
            for n, like in enumerate(alike):
                own = sample.keys[[rows[m] for m in np.flatnonzero(like)]]
                others = scores[n][~np.isin(keys[n], own)]
                wrong[start + n, 0] = others[0] if len(others) else np.nan
            best[start : start + len(part), 0] = scores[:, 0]
            self._pause()
        spread = Spread.of(sample.vectors)
        best[:, 1] = spread.measure_deviations(best[:, 0], queries)
        wrong[:, 1] = spread.measure_deviations(wrong[:, 0], queries) if is_own else 0
        return best.round(DIGITS), wrong.round(DIGITS)


class _Closing(Exception):
    """The service stops."""


def map_texts(head: Head | None, vectors: Embeddings) -> Embeddings:
    """Unit vectors of texts as searches compare them with pictures."""
    return vectors if head is None else head.map_texts(vectors)


def measure_trust(queries: Embeddings, own: Sequence[int], pictures: Embeddings) -> float:
    """The share of texts that find their own picture, the row `own`, near the top."""
    scores = queries @ pictures.T
    mine = scores[np.arange(len(queries)), list(own)]
    better = (scores > mine[:, None]).sum(axis=1)
    return float((better < max(1, FOUND_WITHIN * len(pictures))).mean())


def read_sample(c: Connection, collection: str) -> Sample:
    """Up to SAMPLE pictures of a collection, always the same while it does not change."""
    ready = np.array(images.list_ready_keys(c, collection), np.int64)
    chosen = np.random.default_rng(0).choice(ready, min(SAMPLE, len(ready)), replace=False).tolist()
    stored = embeddings.get_vectors(c, "images", chosen)
    keys = [key for key in chosen if key in stored]
    vectors = [np.frombuffer(stored[key], "<f4") for key in keys]
    rows = images.get_by_keys(c, keys)
    described = {n: text for n, key in enumerate(keys) if key in rows and (text := describe(rows[key]))}
    shared = Counter(described.values())
    most = max(1, int(MAX_SHARED * len(keys)))
    telling = [(n, text) for n, text in described.items() if shared[text] <= most][:TEXTS]
    return Sample(
        np.array(keys, np.int64), np.stack(vectors) if vectors else np.empty((0, 0), np.float32), dict(telling)
    )


def read_stored_texts(collection: str, c: Connection) -> Embeddings:
    """The vectors of up to TEXTS texts of the collection."""
    keys = [text.key for text in texts.list_page(c, collection, TEXTS, None)]
    stored = embeddings.get_vectors(c, "texts", keys)
    found = [np.frombuffer(vector, "<f4") for vector in stored.values()]
    return np.stack(found) if found else np.empty((0, 0), np.float32)


def describe(image: Image) -> str | None:
    """What the picture is said to show: its caption, or its file name unless a camera made that."""
    if image.caption:
        return image.caption
    name = split_source(image.source)[1].rpartition(".")[0]
    words = [written for _, written in drop_stop_words(split_words(name)) if written.isalpha()]
    telling = [word for word in words if len(word) > 2 and not CAMERA_WORD.fullmatch(word)]
    return " ".join(words) if telling else None
