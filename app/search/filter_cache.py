"""FilterCache: the keys of the rows that a filter matches, as a set for the index, updated at every use.

A set is valid up to a position: the highest key there was, and the number of the last change to older rows. An update
reads only what is past it, so a filter that comes again costs what has changed, not how many rows there are.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from app.storage.database import Database
from app.storage.filters import sql
from app.storage.filters.model import Filter
from app.storage.sql import Connection
from index.idset import IdSet

MAX_BYTES = 64 << 20
OVERHEAD = 1024  # of an entry, beside its bitmap and its filter
SQL_GROWTH = 16  # a filter is kept as text, and as SQL of up to so many times the length
MAX_CHANGES = 20_000  # past so many, testing every row costs no more


@dataclass(slots=True)
class _Entry:
    """A filter's set; under `lock` one caller updates it while others that need it wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    ids: IdSet | None = None
    position: tuple[int, int] = (0, 0)
    bytes: int = 0


class FilterCache:
    """The sets of the filters that were used last, in at most `max_bytes` of memory."""

    def __init__(self, database: Database, max_bytes: int = MAX_BYTES) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, Filter], _Entry] = OrderedDict()
        self.nbytes = 0  # memory of the entries, about

    def allowed_ids(self, collection: str, filter: Filter) -> IdSet:
        """The keys of the rows that `filter` matches now. Raises Timeout."""
        name = (collection, filter)
        with self._lock:
            entry = self._entries.setdefault(name, _Entry())
            self._entries.move_to_end(name)
        try:
            with entry.lock:
                ids, entry.position = self._database.read(partial(_update, collection, filter, entry))
                entry.ids = ids
        finally:  # a set that could not be made leaves the cache in its turn, like the others
            self._account(name, entry)
        return ids

    def __len__(self) -> int:
        return len(self._entries)

    def _account(self, name: tuple[str, Filter], entry: _Entry) -> None:
        """Record the size of an entry, and remove the least recently used ones while there is too much."""
        size = OVERHEAD + SQL_GROWTH * len(name[1].text) + (entry.ids.nbytes if entry.ids is not None else 0)
        with self._lock:
            if self._entries.get(name) is not entry:
                return  # removed meanwhile
            self.nbytes += size - entry.bytes
            entry.bytes = size
            while self.nbytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self.nbytes -= oldest.bytes


def _update(collection: str, filter: Filter, entry: _Entry, c: Connection) -> tuple[IdSet, tuple[int, int]]:
    """The set as the rows are now, and the position up to which it is valid."""
    position = sql.change_position(c, filter.target)
    if entry.ids is not None and position == entry.position:
        return entry.ids, position
    key, change = entry.position
    changed = sql.changed_keys(c, filter.target, change) if entry.ids is not None else None
    if entry.ids is None or changed is None or len(changed) > MAX_CHANGES:
        return IdSet.of(_array(sql.select_keys(c, collection, filter))), position
    inside = sql.select_keys(c, collection, filter, after=key)
    if changed:
        inside += sql.select_passing(c, collection, filter, changed)
    return entry.ids.with_changes(_array([]), _array(changed)).with_changes(_array(inside), _array([])), position


def _array(keys: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(keys, np.int64)
