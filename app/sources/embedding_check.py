"""Whether vectors are what they are said to be: a few of the pictures are embedded anew and compared."""

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
MIN_MEDIAN_COSINE = 0.99  # two libraries that scale a picture for the same model differ by less


class ItemSample:
    """SAMPLE of the lines that pass and have a vector, any of them as likely as another."""

    def __init__(self) -> None:
        self.lines: list[SourceItem] = []
        self._seen = 0
        self._random = random.Random(0)

    def passing(self, lines: Iterable[SourceItem]) -> Iterator[SourceItem]:
        """The lines, as they are; those that have failed already are no sample."""
        for line in lines:
            if "part" in line and "error" not in line:
                self._note(line)
            yield line

    def _note(self, line: SourceItem) -> None:
        self._seen += 1
        if len(self.lines) < SAMPLE_SIZE:
            self.lines.append(line)
        elif (n := self._random.randrange(self._seen)) < SAMPLE_SIZE:
            self.lines[n] = line


def embed_files(encoder: Encoder, pool: DecodePool, paths: Sequence[Path]) -> list[npt.NDArray[np.float32] | None]:
    """The vector of each picture; None for one that cannot be decoded."""
    tasks = [pool.submit(decode_picture, path, encoder.preprocessing, pool.picture_limits) for path in paths]
    pixels: list[Pixels | None] = []
    for task in tasks:
        try:
            pixels.append(task.result().pixels)
        except Rejected:
            pixels.append(None)
    good = [one for one in pixels if one is not None]
    rows = iter(encoder.encode_images(np.stack(good)) if good else ())
    return [None if one is None else next(rows) for one in pixels]


def require_agreement(
    given: Sequence[npt.NDArray[np.float32]], made: Sequence[npt.NDArray[np.float32] | None], say: Callable[[str], str]
) -> None:
    """Raise Validation unless the given vectors are those that the model makes; `say` adds what to do then."""
    cosines = [float(a @ b) for a, b in zip(given, made, strict=True) if b is not None]
    if not cosines:
        raise Validation(say("no picture could be decoded to compare the vectors with the model's"))
    if (median := statistics.median(cosines)) < MIN_MEDIAN_COSINE:
        raise Validation(
            say(
                f"{len(cosines)} pictures were embedded anew, and half of their cosines with the given vectors are "
                f"below {median:.3f}, where {MIN_MEDIAN_COSINE} is the least: the vectors are another model's, "
                "or not in this order"
            )
        )
