"""The indexes that are open: one for each (collection, target), each kept equal to its log by a follower.

The seam for another kind of index is `open_index`: what it returns is handed out and followed here. Whoever
searches takes an index by `use` once, and keeps that one until the answer is put together. A `Builder` gives
large ones a base; when it goes bad on the disk, the index is opened anew while searches are turned away.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.builder import Builder, Failed, Site, Stopped
from app.errors import NotFound, Overloaded, StartupError
from app.store import collections, embeddings
from app.store.database import Database
from app.types import DEFAULT_COLLECTION, EmbeddingSpace, Target
from index import snapshot
from index.engine import Engine
from index.errors import BaseDamaged, EngineUnavailable
from index.factory import IndexConfig, OpenedIndex, open_engine, open_index, open_live
from index.follower import Follower
from index.live import LiveIndex, RebuildPolicy
from index.protocol import Remote, VectorIndex
from index.types import LogEntry, Op

log = logging.getLogger(__name__)

TARGETS: tuple[Target, ...] = ("images", "texts")
BUILD_FIRST = 200_000
"""So many log entries that no snapshot holds go into a base before anybody follows: in memory they would take 2 KB each
(at d = 512), and one third of the time."""


@dataclass(frozen=True, slots=True)
class Open:
    """One open index: searches read `index`, `follower` alone changes it; at `site` the builder gives it new bases."""

    index: VectorIndex
    follower: Follower
    site: Site | None


def engine_at(where: str, token: str) -> Engine | None:
    """The engine that the settings name; None where the indexes are in this process. Raises StartupError."""
    try:
        return open_engine(where, token)
    except ValueError as error:
        raise StartupError(f"--index (SIGHTLINE_INDEX): {error}") from None


@contextmanager
def reachable() -> Iterator[None]:
    """Turn an engine that cannot be asked into our error: the same request may succeed later."""
    try:
        yield
    except EngineUnavailable as error:
        raise Overloaded(str(error)) from error


class Log:
    """The log of one (collection, target) as a follower reads it."""

    def __init__(self, database: Database, space: EmbeddingSpace, collection: str, target: Target) -> None:
        self._database = database
        self._space = space.fingerprint
        self._collection = collection
        self._target: Target = target

    def ahead(self, seq: int) -> int:
        """How many entries lie past `seq`."""
        return self._database.read(lambda c: embeddings.ahead(c, self._collection, self._space, self._target, seq))

    def head(self) -> int:
        """The number of the last entry."""
        return self._database.read(lambda c: embeddings.head(c, self._collection, self._space, self._target))

    def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Up to `limit` entries past `after`, in order."""
        rows = self._database.read(
            lambda c: embeddings.after(c, self._collection, self._space, self._target, after, limit)
        )
        return [
            LogEntry(seq, Op(op), key, None if vector is None else np.frombuffer(vector, dtype="<f4"))
            for seq, op, key, vector in rows
        ]


class Indexes:
    """Opens, follows and closes the indexes of one data directory. Any thread may call any method.

    Snapshots lie in `folder`, under the names of collection and target, unless the indexes are in `engine`: there
    they go by the birth of the data directory, so that several can share an engine. `policy` says when those in this
    process get a base.
    """

    def __init__(
        self,
        database: Database,
        space: EmbeddingSpace,
        folder: Path,
        engine: Engine | None = None,
        policy: RebuildPolicy | None = None,
    ) -> None:
        self._database = database
        self._space = space
        self._folder = folder
        self._engine = engine
        born = database.read(lambda c: collections.get(c, DEFAULT_COLLECTION))
        self._owner = born.created_at if born else ""
        self._builder = Builder(database.path, policy, damaged=self._reopen)
        self._open: dict[tuple[str, Target], Open] = {}

    def open(self, collection: str) -> None:
        """Open both indexes of a collection from their snapshots and wait until they hold its log.

        Raises Overloaded where the engine cannot be asked; then try again.
        """
        with reachable():
            for target in TARGETS:
                if (collection, target) not in self._open:
                    self._open[collection, target] = self._follow(collection, target)
            for target in TARGETS:
                follower = self._open[collection, target].follower
                head = follower.applied_seq + follower.lag
                while not follower.wait_for(head, 1.0) and follower.alive():
                    if isinstance(follower.error, EngineUnavailable):
                        raise follower.error
                    log.info("the index of %s is catching up: %d of %d", target, follower.applied_seq, head)

    @contextmanager
    def use(self, collection: str, target: Target) -> Iterator[VectorIndex]:
        """The index as it is now, not closed before the `with` ends.

        Raises NotFound, and Overloaded while a damaged one is built again, or where its engine cannot be asked inside
        the `with`.
        """
        with reachable():
            try:
                yield self._of(collection, target).index
            except BaseDamaged:
                raise Overloaded(f"the index of {target} was damaged on the disk and is being built again") from None

    def settle(self, collection: str, target: Target, seq: int, timeout: float) -> bool:
        """Whether the index holds the log up to `seq`, after `timeout` seconds at most; not waited for while the
        engine is known to be away."""
        one = self._of(collection, target)
        away = isinstance(one.index, Remote) and one.index.fault is not None
        return one.follower.wait_for(seq, 0.0 if away else timeout) and not away

    def faults(self) -> list[str]:
        """Why searches cannot be answered before a restart; empty when they can."""
        return [
            f"the index of {target} has stopped following"
            for (_, target), one in self._open.items()
            if not one.follower.alive()
        ]

    def away(self) -> list[str]:
        """Why searches cannot be answered until an engine is back; empty when they can."""
        return [
            f"the index of {target}: {one.index.fault}"
            for (_, target), one in self._open.items()
            if isinstance(one.index, Remote) and one.index.fault
        ]

    def stats(self, collection: str) -> dict[str, object]:
        """Kind, size and lag of each index of a collection."""
        return {target: _stats(one) for (name, target), one in self._open.items() if name == collection}

    def close(self) -> None:
        """Save and close every index."""
        self._builder.close()
        for one in self._open.values():
            one.follower.close()
        for one in self._open.values():
            one.index.close()

    def _of(self, collection: str, target: Target) -> Open:
        one = self._open.get((collection, target))
        if one is None:
            raise NotFound(f"there is no collection {collection!r}")
        return one

    def _follow(self, collection: str, target: Target) -> Open:
        """Open an index from its snapshot and let it follow the log."""
        entries = Log(self._database, self._space, collection, target)
        name, space = f"{collection}/{target}", self._space
        folder = self._folder / collection / target
        config = IndexConfig(name, space.fingerprint, space.d, folder, engine=self._engine, owner=self._owner)
        if self._engine is not None:
            remote = open_index(config, head=entries.head())
            return Open(remote.index, self._following(remote, entries, name), None)
        opened = self._opened(config, collection, target, entries)
        follower = self._following(opened, entries, name)
        site = Site(collection, target, config, opened.index, entries.head)
        self._builder.take(site)
        return Open(opened.index, follower, site)

    def _opened(self, config: IndexConfig, collection: str, target: Target, entries: Log) -> OpenedIndex[LiveIndex]:
        """An index of this process; one that has very much to catch up with gets its base first."""
        opened = open_live(config, head=entries.head())
        if entries.ahead(opened.applied_seq) > BUILD_FIRST:
            log.info("building a base of %s first", config.name)
            try:
                self._builder.build(Site(collection, target, config, opened.index, entries.head))
                opened = open_live(config, head=entries.head())
            except (Failed, Stopped) as error:
                log.warning("no base of %s, following without: %s", config.name, error)
        return opened

    def _following(self, opened: OpenedIndex[VectorIndex], entries: Log, name: str) -> Follower:
        if opened.refused:
            log.warning("snapshot of %s not used (%s); rebuilding from the log", name, opened.refused)
        follower = Follower(
            opened.index,
            entries.read,
            applied_seq=opened.applied_seq,
            name=name,
            changed=self._database.watch(),
            head=entries.head,
            freeze=opened.freeze,
            tend=opened.tend,
        )
        follower.start()
        return follower

    def _reopen(self, site: Site) -> None:
        """Drop a damaged base, and the index with it; build both again. On the builder's thread."""
        key = site.collection, site.target
        damaged = self._open.get(key)
        if damaged is None or damaged.site is not site or site.config.bases is None:
            return
        snapshot.discard(site.config.bases)
        fresh = self._follow(*key)
        while not fresh.follower.wait_for(fresh.follower.applied_seq + fresh.follower.lag, 1.0):
            if not fresh.follower.alive():
                break
        self._open[key] = fresh
        self._builder.release(site)
        damaged.follower.close()
        damaged.index.close()


def _stats(one: Open) -> dict[str, object]:
    told: dict[str, object] = {
        "kind": one.index.kind,
        "ntotal": one.index.ntotal,
        "applied_seq": one.follower.applied_seq,
        "lag": one.follower.lag,
    }
    if isinstance(one.index, Remote):
        told["ghosts"] = one.index.ghosts
    if isinstance(one.index, LiveIndex) and one.site is not None:
        facts, base = one.index.facts(), one.index.base
        told |= {
            "kind": facts.kind,
            "base": facts.base,
            "tail": facts.tail,
            "tombstones": facts.tombstones,
            "built_seq": base.manifest.applied_seq if base else None,
            "built_at": base.manifest.created_at if base else None,
            "building": one.site.building,
            "build_error": one.site.error,
            "probes": facts.probes,
            "rerank": facts.rerank,
            "effort": facts.effort,
        }
    return told
