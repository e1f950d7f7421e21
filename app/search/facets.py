"""FacetCounter: how many rows have each value of a field, among those that a filter and a query let through.

The values of a field are kept in memory as numbers, and brought up to date at every use like the sets of FilterCache:
only rows that are new or changed are read. Counting is then one pass over an array.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from app.core.types import Target
from app.search.filter_cache import MAX_CHANGES, FilterCache
from app.storage.database import Database
from app.storage.filters import sql
from app.storage.filters.model import Field, Filter
from app.storage.filters.values import Value, field_name, rank_value, select_values
from app.storage.sql import Connection
from app.storage.tables import collections, images
from index.idset import IdSet
from index.types import Ids

MAX_BYTES = 128 << 20
VALUE_BYTES = 150  # of a value as an object, about
Counts = list[tuple[Value, int]]


@dataclass(slots=True)
class _Column:
    """The values of one field of a collection: entry n says that row `keys[n]` has the value `values[codes[n]]`.

    Under `lock` one caller brings it up to date while others wait.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    position: tuple[int, int] | None = None
    keys: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    codes: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    values: list[Value] = field(default_factory=list)
    numbers: dict[tuple[int, Value], int] = field(default_factory=dict)  # the code of each value
    places: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))  # of the values in order
    bytes: int = 0

    def remove(self, keys: Ids) -> None:
        """Remove the entries of these rows."""
        stays = ~np.isin(self.keys, keys)
        self.keys, self.codes = self.keys[stays], self.codes[stays]

    def append(self, found: Sequence[tuple[int, Value]]) -> None:
        """Add the values of rows that have none here."""
        codes = np.empty(len(found), np.int32)
        for n, (_, value) in enumerate(found):
            name = rank_value(value)
            code = self.numbers.setdefault(name, len(self.values))
            if code == len(self.values):
                self.values.append(value)
            codes[n] = code
        self.keys = np.concatenate([self.keys, np.fromiter((key for key, _ in found), np.int64, len(found))])
        self.codes = np.concatenate([self.codes, codes])
        if len(self.places) < len(self.values):
            order = sorted(range(len(self.values)), key=lambda code: rank_value(self.values[code]))
            self.places = np.empty(len(order), np.int32)
            self.places[order] = np.arange(len(order), dtype=np.int32)

    def count(self, passes: Callable[[Ids], npt.NDArray[np.bool_]], size: int) -> Counts:
        """The `size` most frequent values of the rows that pass, with their counts; equal counts by value."""
        counts = np.bincount(self.codes[passes(self.keys)], minlength=len(self.values))
        there = np.flatnonzero(counts)
        best = there[np.lexsort((self.places[there], -counts[there]))[:size]]
        return [(self.values[code], int(counts[code])) for code in best.tolist()]


class FacetCounter:
    """Counts facets; it keeps the values of the fields that were asked for last, in about `max_bytes` of memory."""

    def __init__(self, database: Database, max_bytes: int = MAX_BYTES) -> None:
        self.filters = FilterCache(database)
        self._database = database
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._columns: OrderedDict[tuple[str, Target, Field], _Column] = OrderedDict()
        self.nbytes = 0

    def count(
        self,
        collection: str,
        target: Target,
        fields: Sequence[Field],
        size: int,
        filter: Filter | None = None,
        matching: IdSet | None = None,
        *,
        is_search: bool = True,
    ) -> dict[str, Counts]:
        """The `size` most frequent values of each field, with their counts.

        They are those of the rows that `filter` lets through, and that are in `matching` if it is given; a search finds
        ready pictures alone. Raises NotFound, Timeout.
        """
        allowed = None if filter is None else self.filters.allowed_ids(collection, filter)
        among = [ids for ids in (allowed, matching) if ids is not None]

        def look(c: Connection) -> tuple[str, list[int]]:
            label = collections.require(c, collection).label
            return label, images.list_unready_keys(c, label) if is_search and target == "images" else []

        label, unready = self._database.read(look)
        hidden = IdSet.of(np.array(unready, np.int64))

        def passes(keys: Ids) -> npt.NDArray[np.bool_]:
            found = ~hidden.contains(keys) if unready else np.ones(len(keys), np.bool_)
            for ids in among:
                found &= ids.contains(keys)
            return found

        counted = {}
        for one in fields:
            column = self._open(name := (label, target, one))
            with column.lock:
                self._database.read(partial(_update, label, target, one, column))
                counted[field_name(one)] = column.count(passes, size)
            self._account(name, column)
        return counted

    def _open(self, name: tuple[str, Target, Field]) -> _Column:
        with self._lock:
            column = self._columns.setdefault(name, _Column())
            self._columns.move_to_end(name)
        return column

    def _account(self, name: tuple[str, Target, Field], column: _Column) -> None:
        """Record the size of a column, and remove the least recently used ones while there is too much."""
        size = column.keys.nbytes + column.codes.nbytes + VALUE_BYTES * len(column.values)
        with self._lock:
            if self._columns.get(name) is not column:
                return  # removed meanwhile
            self.nbytes += size - column.bytes
            column.bytes = size
            while self.nbytes > self._max_bytes:
                _, oldest = self._columns.popitem(last=False)
                self.nbytes -= oldest.bytes


def _update(label: str, target: Target, field: Field, column: _Column, c: Connection) -> None:
    """Read what has changed since the position of the column."""
    position = sql.change_position(c, target)
    if position == column.position:
        return
    key, change = column.position or (0, 0)
    changed = sql.changed_keys(c, target, change) if column.position else None
    column.position = None  # until it is up to date: a read may end in the middle
    if changed is None or len(changed) > MAX_CHANGES or len(column.values) > 2 * len(column.keys) + MAX_CHANGES:
        column.keys, column.codes, column.values, column.numbers = _Column().keys, _Column().codes, [], {}
        column.places = np.empty(0, np.int32)
        key, changed = 0, []
    found = select_values(c, target, label, field, after=key)
    if changed:
        column.remove(np.array(changed, np.int64))
        found += select_values(c, target, label, field, [one for one in changed if one <= key])
    column.append(found)
    column.position = position
