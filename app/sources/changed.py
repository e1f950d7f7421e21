"""Which items of a source the collection does not hold yet, by their `origin` and `tag`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from app.sources.base import SourceItem
from app.sources.stop_signal import ShouldStop, raise_if_stopping
from app.storage.database import Database
from app.storage.tables import source_cache

BATCH = 1_000  # items of one query


def skip_unchanged(
    database: Database, collection: str, items: Iterable[SourceItem], should_stop: ShouldStop
) -> Iterator[SourceItem]:
    """The items without those whose bytes have not changed and are a picture of the collection.

    Raises Overloaded when the worker stops.
    """
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        raise_if_stopping(should_stop)
        origins = [item["origin"] for item in batch if item.get("origin")]
        tags = database.read(
            lambda c, origins=origins: source_cache.find_held_tags(c, collection, origins)  # type: ignore[misc]
        )
        for item in batch:
            if item.get("tag") is None or tags.get(item.get("origin", "")) != item["tag"]:
                yield item
