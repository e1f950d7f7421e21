"""What of a source is not here yet, by the `origin` and the `tag` of its lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from app.sources.base import ShouldStop, SourceItem, raise_if_stopping
from app.storage.database import Database
from app.storage.tables import source_cache

BATCH = 1_000  # lines that are looked up at once


def skip_unchanged(
    database: Database, collection: str, lines: Iterable[SourceItem], stopping: ShouldStop
) -> Iterator[SourceItem]:
    """The lines without those whose bytes, unchanged since, are a picture of the collection.

    Raises Overloaded when it is `stopping`.
    """
    rest = iter(lines)
    while part := list(islice(rest, BATCH)):
        raise_if_stopping(stopping)
        names = [line["origin"] for line in part if line.get("origin")]
        held = database.read(lambda c, names=names: source_cache.find_held_tags(c, collection, names))  # type: ignore[misc]
        for line in part:
            if line.get("tag") is None or held.get(line.get("origin", "")) != line["tag"]:
                yield line
