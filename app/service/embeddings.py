"""Vectors for callers that keep them elsewhere: texts and pictures through the encoder, and nothing is stored.

A text is embedded as it is: without templates, without names for emoji, and without the head of a collection.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app.core.errors import NotFound, SightlineError, UrlNotAllowed, Validation
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.pool import DecodePool
from app.encoder.catalogue import CATALOGUE
from app.encoder.protocol import Embeddings, Encoder, normalise
from app.service.search_service import LoadedModel, SearchService
from app.sources.fetch.http import FetchRequest, HttpFetcher

TEXTS_PER_PASS = 32  # of one request, so that searches get their turn in between
PICTURES_PER_PASS = 8
CHARS_PER_TOKEN = 64  # of a text: what comes after so many for each token that the model reads is not looked at
MAX_URLS = 32  # of one request
FETCHES_AT_ONCE = 4  # of one request
MIN_LENGTH = 1e-6  # a sum of vectors shorter than this has no direction
ANY_MODEL = frozenset({"", "default", "default/not-specified"})  # the last one is infinity's
NO_FETCHING = "this server does not fetch pictures by URL; send the picture itself, or set SIGHTLINE_FETCH"


class ModelNotServed(NotFound):
    """The request names another model than the one that is loaded."""


@dataclass(frozen=True, slots=True)
class EmbeddingPart:
    """Exactly one of `text`, `picture` and `url`. `field` is what the client sent it as, for errors."""

    field: str
    text: str | None = None
    picture: Path | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """float32 [n, d], rows of length 1, and what they took: tokens that the model read, pictures and their pixels."""

    model: str
    vectors: Embeddings
    tokens: int
    pictures: int
    pixels: int


class EmbeddingService:
    """Embeds inputs. Its methods block."""

    def __init__(
        self, search: SearchService, pool: DecodePool, fetcher: HttpFetcher | None, served_names: str = ""
    ) -> None:
        self.since = int(time.time())  # when models are "created", as OpenAI calls it: the start of the server
        self._search = search
        self._pool = pool
        self._fetcher = fetcher
        self._served_names = tuple(name.strip() for name in served_names.split(",") if name.strip())

    def list_names(self) -> list[str]:
        """Every name of the loaded model, the full one first."""
        model = self._search.model.encoder.space.model
        short = next((one.names for one in CATALOGUE if one.name == model), [])
        return list(dict.fromkeys([model, *short, *self._served_names]))

    def require_model(self, name: str | None) -> None:
        """Raise ModelNotServed unless this is a name of the loaded model, or none."""
        names = self.list_names()
        if name is not None and name not in ANY_MODEL and name.lower() not in map(str.lower, names):
            shown = name[:100].encode("utf-8", "replace").decode()
            raise ModelNotServed(
                f"the model {shown!r} is not served here; this server has {names[0]!r}"
                " (SIGHTLINE_SERVED_NAMES gives it further names)"
            )

    def fetch(self, inputs: Sequence[Sequence[EmbeddingPart]], folder: Path) -> list[list[EmbeddingPart]]:
        """The inputs with files in `folder` in place of URLs. Raises UrlNotAllowed, UrlUnreachable, Validation."""
        parts = [part for parts in inputs for part in parts if part.url is not None]
        if parts and self._fetcher is None:
            raise UrlNotAllowed(f"{parts[0].field}: {NO_FETCHING}")
        if len(parts) > MAX_URLS:
            raise Validation(f"the pictures of one request may have {MAX_URLS} URLs, these have {len(parts)}")
        fetched: dict[str, EmbeddingPart] = {}
        if parts and self._fetcher is not None:
            requests = [FetchRequest(part.url or "", folder / f"url-{n}") for n, part in enumerate(parts)]
            with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:  # each is tried once: the client waits
                results = list(pool.map(self._fetcher.fetch, requests))
            for part, result in zip(parts, results, strict=True):
                if result.error is not None:
                    raise name_part(part, result.error)
                fetched[part.field] = replace(part, url=None, picture=result.request.path)
        return [[fetched.get(part.field, part) for part in parts] for parts in inputs]

    def embed(
        self, inputs: Sequence[Sequence[EmbeddingPart]], dimensions: int | None = None, *, truncate: bool = True
    ) -> EmbeddingResult:
        """One vector for each input: that of its part, or the mean of its parts. None of them is a URL.

        Without `truncate` a text that the model does not read whole is an error. Raises Validation, Rejected, Busy.
        """
        model = self._search.model
        width = choose_width(model, dimensions)
        texts = [part for parts in inputs for part in parts if part.text is not None]
        pictures = [part for parts in inputs for part in parts if part.picture is not None]
        words = [cut_text(part.text or "", model.encoder) for part in texts]
        if not truncate:
            require_whole(texts, words, model.encoder)
        vectors = dict(zip((part.field for part in texts), self._encode_texts(model, words), strict=True))
        pixels = 0
        for part, picture, vector in self._encode_pictures(model, pictures):
            vectors[part.field] = vector
            pixels += picture.width * picture.height
        rows = average_parts(inputs, vectors)
        if width < rows.shape[1]:
            rows = normalise(rows[:, :width])
        tokens = model.encoder.count_tokens(words)
        return EmbeddingResult(model.encoder.space.model, rows, tokens, len(pictures), pixels)

    def _encode_texts(self, model: LoadedModel, words: Sequence[str]) -> Iterator[Embeddings]:
        for start in range(0, len(words), TEXTS_PER_PASS):
            yield from model.batcher.submit_texts(words[start : start + TEXTS_PER_PASS]).result()

    def _encode_pictures(
        self, model: LoadedModel, parts: Sequence[EmbeddingPart]
    ) -> Iterator[tuple[EmbeddingPart, DecodedPicture, Embeddings]]:
        """The vectors of pictures. While some are encoded, the next are decoded."""
        batches = [parts[start : start + PICTURES_PER_PASS] for start in range(0, len(parts), PICTURES_PER_PASS)]
        decoding = self._decode(model, batches[0]) if batches else []
        for n, batch in enumerate(batches):
            decoded = [finish(part, task) for part, task in zip(batch, decoding, strict=True)]
            encoding = model.batcher.submit_images(np.stack([one.pixels for one in decoded]))
            decoding = self._decode(model, batches[n + 1]) if n + 1 < len(batches) else []
            yield from zip(batch, decoded, encoding.result(), strict=True)

    def _decode(self, model: LoadedModel, parts: Iterable[EmbeddingPart]) -> list[Future[DecodedPicture]]:
        preprocessing, limits = model.encoder.preprocessing, self._pool.picture_limits
        return [self._pool.submit(decode_picture, part.picture, preprocessing, limits) for part in parts]


def finish(part: EmbeddingPart, task: Future[DecodedPicture]) -> DecodedPicture:
    """The decoded picture. Raises the error of the decoder, with the name of the part."""
    try:
        return task.result()
    except SightlineError as error:
        raise name_part(part, error) from None


def name_part(part: EmbeddingPart, error: SightlineError) -> SightlineError:
    """The same error, whose sentence begins with the name of the part."""
    error.detail = f"{part.field}: {error.detail}"
    return error


def choose_width(model: LoadedModel, dimensions: int | None) -> int:
    """How many numbers a vector is to have. Raises Validation unless the model was trained to be cut there."""
    space = model.encoder.space
    if not dimensions or dimensions == space.d:
        return space.d
    if dimensions in model.widths and dimensions < space.d:
        return dimensions
    if widths := [width for width in model.widths if width < space.d]:
        raise Validation(f"dimensions: the model {space.model} can be cut to {', '.join(map(str, widths))}")
    raise Validation(
        f"dimensions: the model {space.model} has vectors of {space.d} numbers and was not trained to be cut;"
        " leave dimensions out"
    )


def cut_text(text: str, encoder: Encoder) -> str:
    """The text without what comes long after the last token that the model reads: a tokenizer would look at it."""
    return text if encoder.max_tokens is None else text[: CHARS_PER_TOKEN * encoder.max_tokens]


def require_whole(parts: Sequence[EmbeddingPart], words: Sequence[str], encoder: Encoder) -> None:
    """Raise Validation for the first text that the model does not read whole."""
    for part, text in zip(parts, words, strict=True):
        if len(text) < len(part.text or "") or encoder.count_words_read(text) is not None:
            raise Validation(
                f"{part.field}: the text has more than the {encoder.max_tokens} tokens that the model reads"
            )


def average_parts(inputs: Sequence[Sequence[EmbeddingPart]], vectors: Mapping[str, Embeddings]) -> Embeddings:
    """float32 [n, d]: the vector of each input's part, or the mean of several, of length 1. Raises Validation."""
    return np.stack([average([vectors[part.field] for part in parts], parts[0].field) for parts in inputs])


def average(vectors: Sequence[Embeddings], field: str) -> Embeddings:
    if len(vectors) == 1:
        return vectors[0]
    mean = np.mean(vectors, axis=0)
    if np.linalg.norm(mean) < MIN_LENGTH:
        raise Validation(f"{field}: the parts of this input cancel each other out")
    return np.asarray(normalise(mean[None])[0])
