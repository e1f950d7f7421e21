"""Which rows a filter lets through, as a set of keys for the index: kept, and brought up to date at every use.

A set is true up to a position: the highest key there was, and the number of the last change to older rows. Later
only what lies past it is asked, so a filter that comes again costs what has changed, not what is there.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

import apsw
import numpy as np

from app.storage.database import Database
from app.storage.filters import sql
from app.storage.filters.model import Filter
from index.idset import IdSet

MAX_BYTES = 64 << 20
OVERHEAD = 1024  # of a kept set, beside its bitmap and its filter, which is kept as text and as a tree
MAX_CHANGES = 20_000  # past so many, asking every row costs no more


@dataclass(slots=True)
class _Kept:
    """A filter's set; `lock` lets one caller bring it up to date while others that want it wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    ids: IdSet | None = None
    position: tuple[int, int] = (0, 0)
    bytes: int = 0


class FilterCache:
    """The sets of the filters that were used last, in at most `max_bytes`."""

    def __init__(self, database: Database, max_bytes: int = MAX_BYTES) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, Filter], _Kept] = OrderedDict()
        self._bytes = 0

    def among(self, collection: str, filter: Filter) -> IdSet:
        """The keys of the rows that `filter` lets through, as of now. Raises Timeout."""
        name = (collection, filter)
        with self._lock:
            kept = self._kept.setdefault(name, _Kept())
            self._kept.move_to_end(name)
        try:
            with kept.lock:
                ids, kept.position = self._database.read(partial(_up_to_date, collection, filter, kept))
                kept.ids = ids
        finally:  # one that could not be made is let go by and by, like the others
            self._account(name, kept)
        return ids

    @property
    def nbytes(self) -> int:
        """The memory of what is kept, about."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)

    def _account(self, name: tuple[str, Filter], kept: _Kept) -> None:
        """Note the size of a set, and let go of those that were not used for longest while there is too much."""
        size = OVERHEAD + 2 * len(name[1].text) + (kept.ids.nbytes if kept.ids is not None else 0)
        with self._lock:
            if self._kept.get(name) is not kept:
                return  # let go meanwhile
            self._bytes += size - kept.bytes
            kept.bytes = size
            while self._bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.bytes


def _up_to_date(collection: str, filter: Filter, kept: _Kept, c: apsw.Connection) -> tuple[IdSet, tuple[int, int]]:
    """The set as the rows are now, and the position up to which it is true."""
    position = sql.change_position(c, filter.target)
    if kept.ids is not None and position == kept.position:
        return kept.ids, position
    key, change = kept.position
    changed = sql.changed_keys(c, filter.target, change) if kept.ids is not None else None
    if kept.ids is None or changed is None or len(changed) > MAX_CHANGES:
        return IdSet.of(_array(sql.select_keys(c, collection, filter))), position
    inside = sql.select_keys(c, collection, filter, after=key)
    if changed:
        inside += sql.select_passing(c, collection, filter, changed)
    return kept.ids.changed(_array([]), _array(changed)).changed(_array(inside), _array([])), position


def _array(keys: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(keys, np.int64)
