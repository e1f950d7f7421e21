"""Checks that given vectors are the model's: it embeds some of the pictures and compares."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.core.errors import Rejected, Validation
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.encoder.protocol import Encoder, Pixels
from app.sources.base import SourceItem

SAMPLE_SIZE = 16
MIN_MEDIAN_COSINE = 0.99  # two libraries that resize a picture for the same model differ by less


class ItemSample:
    """Up to SAMPLE_SIZE items with a vector, each with the same probability (reservoir sampling)."""

    def __init__(self) -> None:
        self.items: list[SourceItem] = []
        self._seen = 0
        self._random = random.Random(0)

    def pass_through(self, items: Iterable[SourceItem]) -> Iterator[SourceItem]:
        """The items, unchanged; those that have failed are not sampled."""
        for item in items:
            if "part" in item and "error" not in item:
                self._add(item)
            yield item

    def _add(self, item: SourceItem) -> None:
        self._seen += 1
        if len(self.items) < SAMPLE_SIZE:
            self.items.append(item)
        elif (n := self._random.randrange(self._seen)) < SAMPLE_SIZE:
            self.items[n] = item


def embed_files(encoder: Encoder, pool: DecodePool, paths: Sequence[Path]) -> list[npt.NDArray[np.float32] | None]:
    """The vector of each picture; None for one that cannot be decoded."""
    tasks = [pool.submit(decode_picture, path, encoder.preprocessing, pool.picture_limits) for path in paths]
    pixels: list[Pixels | None] = []
    for task in tasks:
        try:
            pixels.append(task.result().pixels)
        except Rejected:
            pixels.append(None)
    decoded = [one for one in pixels if one is not None]
    rows = iter(encoder.encode_images(np.stack(decoded)) if decoded else ())
    return [None if one is None else next(rows) for one in pixels]


def require_agreement(
    given: Sequence[npt.NDArray[np.float32]],
    made: Sequence[npt.NDArray[np.float32] | None],
    format_refusal: Callable[[str], str],
) -> None:
    """Raise Validation unless the given vectors are those that the model made; `format_refusal` adds the remedy."""
    cosines = [float(a @ b) for a, b in zip(given, made, strict=True) if b is not None]
    if not cosines:
        raise Validation(format_refusal("no picture could be decoded to compare the vectors with the model's"))
    if (median := statistics.median(cosines)) < MIN_MEDIAN_COSINE:
        raise Validation(
            format_refusal(
                f"the model embedded {len(cosines)} of the pictures, and half of the cosines with the given vectors are"
                f" below {median:.3f}, where {MIN_MEDIAN_COSINE} is the least: the vectors come from another model, or"
                " are not in this order"
            )
        )
