"""What the parsers of headers share: reads of a few bytes, a bound on steps, and the boxes of ISO media files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from app.core.errors import ImageCorrupt
from app.core.picture_formats import Format

Size = tuple[int, int]
MAX_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class ParsedHeader:
    """Width and height before EXIF turns the picture, whether it is animated (None if unknown), its pages, and its
    format where the first bytes did not tell."""

    size: Size
    animated: bool | None = False
    pages: int = 1
    format: Format | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A box of an ISO media file (ISO 14496-12): its content begins at `start` and ends before `end`."""

    name: bytes
    start: int
    end: int


def count_steps(what: str) -> Iterator[None]:
    """MAX_STEPS steps. Raises ImageCorrupt after them."""
    for _ in range(MAX_STEPS):
        yield None
    raise ImageCorrupt(f"the file has too many {what} before its picture")


def read_at(file: IO[bytes], position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def iter_boxes(file: IO[bytes], start: int, end: int, steps: Iterator[None], what: str) -> Iterator[Box]:
    """The boxes between two places of a file. Raises ImageCorrupt, struct.error."""
    position = start
    while position + 8 <= end:
        next(steps)
        length, name = struct.unpack(">I4s", read_at(file, position, 8))
        body = position + 8
        if length == 1:
            (length,) = struct.unpack(">Q", read_at(file, body, 8))
            body += 8
        length = length or end - position
        if length < body - position or position + length > end:
            raise ImageCorrupt(f"a box of the {what} file has an impossible length")
        yield Box(name, body, position + length)
        position += length


def largest(sizes: list[Size]) -> Size:
    """The one with the most pixels; one without a side counts least."""
    return max(sizes, key=lambda size: (min(size) > 0, size[0] * size[1]))
