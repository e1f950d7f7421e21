"""One open index: how it is opened, and the log that it follows.

The seam for another kind of index is `Opener`: what it returns is handed out and followed by `app.indexes`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.builder import Builder, Failed, Site, Stopped
from app.errors import Overloaded
from app.store import collections, embeddings
from app.store.database import Database
from app.types import DEFAULT_COLLECTION, EmbeddingSpace, Target
from index.driver import BATCHES
from index.engine import Engine
from index.errors import EngineUnavailable
from index.factory import IndexConfig, OpenedIndex, drop_remote, open_index, open_live
from index.follower import Follower
from index.live import LiveIndex
from index.protocol import Measured, Remote, VectorIndex
from index.saver import SnapshotPolicy
from index.types import LogEntry, Op

log = logging.getLogger(__name__)

Key = tuple[str, Target]  # label of a collection, and which of its indexes

TOTALS = ("open", "vectors", "lag", "bytes", "tail", "tombstones", "building")  # numbers of open indexes
OVERHEAD = 32 << 10  # bytes of an open index besides its vectors
BUILD_FIRST = 200_000
"""So many log entries that no snapshot holds go into a base before anybody follows: in memory they would take 2 KB each
(at d = 512), and one third of the time."""
LEAST = 1_000
POLICY = SnapshotPolicy(least=LEAST)  # fewer are replayed in milliseconds: thousands of small ones need no files
FAULT_SECONDS = 20.0  # how long a log that cannot be read is tried again before the opening is given up


@dataclass(slots=True)
class Open:
    """One open index: searches read `index`, `follower` alone changes it, the builder of `site` gives it new bases.

    `used` is when it was asked for last.
    """

    index: VectorIndex
    follower: Follower
    site: Site | None
    users: int = 0
    used: float = 0.0

    def bytes(self) -> int:
        """What it holds in memory, about."""
        index = self.index
        if isinstance(index, Remote):
            return OVERHEAD
        return OVERHEAD + (index.nbytes if isinstance(index, Measured) else index.ntotal * index.d * 4)


@contextmanager
def reachable() -> Iterator[None]:
    """Turn an engine that cannot be asked into our error: the same request may succeed later."""
    try:
        yield
    except EngineUnavailable as error:
        raise Overloaded(str(error)) from error


class Log:
    """The log of one (collection, target) as a follower reads it."""

    def __init__(self, database: Database, space: EmbeddingSpace, label: str, target: Target) -> None:
        self._database = database
        self._space = space.fingerprint
        self._label = label
        self._target: Target = target

    def ahead(self, seq: int) -> int:
        """How many entries lie past `seq`."""
        return self._database.read(lambda c: embeddings.ahead(c, self._label, self._space, self._target, seq))

    def head(self) -> int:
        """The number of the last entry."""
        return self._database.read(lambda c: embeddings.head(c, self._label, self._space, self._target))

    def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Up to `limit` entries past `after`, in order."""
        rows = self._database.read(lambda c: embeddings.after(c, self._label, self._space, self._target, after, limit))
        return [
            LogEntry(seq, Op(op), key, None if vector is None else np.frombuffer(vector, dtype="<f4"))
            for seq, op, key, vector in rows
        ]


class News:
    """Which logs have grown since it was asked last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seq = database.read(embeddings.last)

    def __call__(self) -> list[Key]:
        last, grown = self._database.read(lambda c: (embeddings.last(c), embeddings.grown(c, self._seq)))
        self._seq = max(self._seq, last)
        return grown


class Opener:
    """Opens the indexes of one data directory, whose snapshots lie in `folder`. `wake` is told who has news.

    With an `engine` the vectors lie there, under the birth of the data directory.
    """

    def __init__(
        self,
        database: Database,
        space: EmbeddingSpace,
        folder: Path,
        builder: Builder,
        wake: Callable[[Key], None],
        engine: Engine | None = None,
    ) -> None:
        self._database = database
        self._space = space
        self._folder = folder
        self._builder = builder
        self._wake = wake
        self._engine = engine
        born = database.read(lambda c: collections.get(c, DEFAULT_COLLECTION))
        self._owner = born.created_at if born else ""

    def __call__(self, key: Key, check: Callable[[], None]) -> Open:
        """The index from its snapshot or base, brought up to what its log holds now.

        `check` is called now and then and raises when it is wanted no more. Raises Overloaded when the log cannot be
        read, or the engine cannot be asked.
        """
        label, target = key
        entries = Log(self._database, self._space, label, target)
        config = self._config(key)
        if self._engine is not None:
            with reachable():
                remote = open_index(config, head=entries.head())
            return Open(remote.index, self._follow(key, remote, entries, check), None)
        opened = open_live(config, head=entries.head())
        if entries.ahead(opened.applied_seq) > BUILD_FIRST:
            opened = self._built(opened, Site(label, target, config, opened.index, entries.head))
        follower = self._follow(key, opened, entries, check)
        return Open(opened.index, follower, Site(label, target, config, opened.index, entries.head))

    def discard(self, key: Key) -> None:
        """Remove the vectors of a dropped collection from the engine, if there is one."""
        if self._engine is None:
            return
        try:
            drop_remote(self._config(key), self._engine)
        except EngineUnavailable as error:  # nobody asks for them again: their name is never used a second time
            log.warning("the vectors of %s/%s stay in the engine: %s", *key, error)

    def _config(self, key: Key) -> IndexConfig:
        label, target = key
        folder = self._folder / label / target
        space = self._space
        return IndexConfig(
            f"{label}/{target}", space.fingerprint, space.d, folder, engine=self._engine, owner=self._owner
        )

    def _follow(self, key: Key, opened: OpenedIndex[VectorIndex], entries: Log, check: Callable[[], None]) -> Follower:
        name = f"{key[0]}/{key[1]}"
        if opened.refused:
            log.warning("snapshot of %s not used (%s); rebuilding from the log", name, opened.refused)
        follower = Follower(
            opened.index,
            entries.read,
            applied_seq=opened.applied_seq,
            name=name,
            head=entries.head,
            freeze=opened.freeze,
            tend=opened.tend,
            policy=POLICY if self._engine is None else SnapshotPolicy(),
            wake=lambda: self._wake(key),
        )
        try:
            catch_up(name, follower, entries.head(), check)
        except BaseException:
            follower.close(save=False)
            opened.index.close()
            raise
        return follower

    def _built(self, opened: OpenedIndex[LiveIndex], site: Site) -> OpenedIndex[LiveIndex]:
        """The index anew, with a base of all that its log holds; as it is where that fails."""
        log.info("building a base of %s first", site.config.name)
        try:
            self._builder.build(site)
            return open_live(site.config, head=site.head())
        except (Failed, Stopped) as error:
            log.warning("no base of %s, following without: %s", site.config.name, error)
            return opened


def catch_up(name: str, follower: Follower, head: int, check: Callable[[], None]) -> None:
    """Apply the log up to `head` on this thread; see `Opener`."""
    told = sound = time.monotonic()
    while follower.applied_seq < head:
        again = follower.step(BATCHES)
        check()
        now = time.monotonic()
        if isinstance(follower.error, EngineUnavailable):
            raise Overloaded(str(follower.error))
        if follower.error is None:
            sound = now
        elif now - sound > FAULT_SECONDS:
            raise Overloaded(f"the index of {collections.name_of(name)!r} cannot be opened at present")
        else:
            time.sleep(again or 0.0)
        if now - told > 1.0:
            told = now
            log.info("the index of %s is catching up: %d of %d", name, follower.applied_seq, head)


def count(total: dict[str, float], one: Open) -> None:
    """Add an open index to the numbers of its kind."""
    total["open"] += 1
    total["vectors"] += one.index.ntotal
    total["lag"] = max(total["lag"], one.follower.lag)
    total["bytes"] += one.bytes()
    if isinstance(one.index, LiveIndex) and one.site is not None:
        facts = one.index.facts()
        total["tail"] += facts.tail
        total["tombstones"] += facts.tombstones
        total["building"] += one.site.building
