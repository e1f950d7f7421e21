"""What a connection has read for searches since the last commit: rows of pictures, their texts, how many have a word.

Searches find the same pictures and ask for the same words again. A commit of any process, whatever it changed, empties
the cache, so it holds what a new read would give. Connections that write have none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, TypeVar

from app.core.types import Description, Image
from app.storage.sql import Connection, Row
from app.storage.tables import images

T = TypeVar("T")

MAX_ROWS = 2_000  # about 4 MB; SQLite has a cache for each thread that searches, PostgreSQL one for all
MAX_ANSWERS = 2_000


class RowCache:
    """Valid for one state of the database. What is not in it is read by the connection that is given."""

    def __init__(self, version: Hashable = None) -> None:
        self.version = version
        self._rows: dict[int, Row] = {}
        self._images: dict[int, Image] = {}
        self._descriptions: dict[int, Description] = {}
        self._answers: dict[Hashable, Any] = {}

    def get_rows(self, c: Connection, keys: Collection[int]) -> Mapping[int, Row]:
        """See `images.get_rows`."""
        return _complete(self._rows, keys, lambda missing: images.get_rows(c, missing))

    def get_image(self, key: int, row: Row) -> Image:
        """The picture of a row that `get_rows` gave."""
        image = self._images.get(key)
        if image is None:
            image = images.image_from_row(row)
            if len(self._images) >= MAX_ROWS:
                self._images.clear()
            self._images[key] = image
        return image

    def get_descriptions(self, c: Connection, keys: Collection[int]) -> Mapping[int, Description]:
        """See `images.get_descriptions`."""
        return _complete(self._descriptions, keys, lambda missing: images.get_descriptions(c, missing))

    def remember(self, question: Hashable, read: Callable[[], T]) -> T:
        """What `read` returned for the same question."""
        answer = self._answers.get(question, self)
        if answer is self:
            answer = read()
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[question] = answer
        known: T = answer
        return known


def open_cache(c: Connection) -> RowCache:
    """The cache of a connection inside a read; one that is empty, for this read, where it has none."""
    known: Callable[[], RowCache] = getattr(c, "open_row_cache", RowCache)
    return known()


def _complete(
    known: dict[int, T], keys: Collection[int], read: Callable[[Collection[int]], Mapping[int, T]]
) -> dict[int, T]:
    """What exists of these keys. Another thread may use `known` at the same time."""
    found = {key: row for key in keys if (row := known.get(key)) is not None}
    if missing := [key for key in keys if key not in found]:
        read_now = read(missing)
        if len(known) > MAX_ROWS:
            known.clear()
        if len(read_now) <= MAX_ROWS:
            known.update(read_now)
        found.update(read_now)
    return {key: found[key] for key in keys if key in found}
