"""Why a stored picture meets words: its file is decoded, and the model compares its parts with the words."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.core.types import AnswerWarning, Image
from app.decode.picture import Pixels, decode_picture, draw_heat_map, find_seen_area
from app.decode.pool import DecodePool
from app.search.explain import Explanation
from app.search.query import SearchQuery
from app.service.search_service import SearchService
from app.storage.library import Library


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedPicture:
    """An explanation, and where its grid lies: left, top, width and height in shares of the picture's sides."""

    found: Explanation
    area: tuple[float, float, float, float]
    warnings: Sequence[AnswerWarning]


class ExplainService:
    """Explains hits. Its methods block."""

    def __init__(self, library: Library, pool: DecodePool, search: SearchService) -> None:
        self._library = library
        self._pool = pool
        self._search = search

    def explain(self, id: str, query: SearchQuery) -> ExplainedPicture:
        """Raises NotFound, BlobMissing, Rejected, Validation, Busy."""
        image = self._library.get(query.collection, id)
        searcher, preprocessing = self._search.searcher, self._search.model.encoder.preprocessing

        def read() -> Pixels:
            with self._open(image) as path:
                task = self._pool.submit(decode_picture, path, preprocessing, self._pool.picture_limits)
                return task.result().pixels

        found = searcher.explainer.explain(query, image.sha256, read)
        area = find_seen_area((image.width or 1, image.height or 1), preprocessing)
        warnings = dict.fromkeys(one for part in query.parts for one in searcher.reader.warn(part.text or "", "q"))
        return ExplainedPicture(found, area, list(warnings))

    def draw(self, id: str, query: SearchQuery, side: int) -> bytes:
        """The picture with its heat map, as a PNG. Raises as `explain`."""
        grid = self.explain(id, query).found.heat.tolist()
        preprocessing, limits = self._search.model.encoder.preprocessing, self._pool.picture_limits
        with self._open(self._library.get(query.collection, id)) as path:
            return base64.b64decode(self._pool.submit(draw_heat_map, path, grid, preprocessing, limits, side).result())

    @contextmanager
    def _open(self, image: Image) -> Iterator[Path]:
        """The file of a picture. Raises BlobMissing."""
        with self._library.blobs.fetch(image.sha256) as file:
            yield file.path
