"""The indexes that are open: one for each (collection, target), each kept equal to its log by a follower.

The seam for another kind of index is `open_index`: what it returns is handed out and followed here. Whoever
searches takes an index by `use` once, and keeps that one until the answer is put together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.errors import NotFound, Overloaded, StartupError
from app.store import collections, embeddings
from app.store.database import Database
from app.types import DEFAULT_COLLECTION, EmbeddingSpace, Target
from index.engine import Engine
from index.errors import EngineUnavailable
from index.factory import IndexConfig, open_engine, open_index
from index.follower import Follower
from index.protocol import Remote, VectorIndex
from index.types import LogEntry, Op

log = logging.getLogger(__name__)

TARGETS: tuple[Target, ...] = ("images", "texts")


@dataclass(frozen=True, slots=True)
class Open:
    """One open index: searches read `index`, `follower` alone changes it."""

    index: VectorIndex
    follower: Follower


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
    they go by the birth of the data directory, so that several can share an engine.
    """

    def __init__(self, database: Database, space: EmbeddingSpace, folder: Path, engine: Engine | None = None) -> None:
        self._database = database
        self._space = space
        self._folder = folder
        self._engine = engine
        born = database.read(lambda c: collections.get(c, DEFAULT_COLLECTION))
        self._owner = born.created_at if born else ""
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

        Raises NotFound, and Overloaded where its engine cannot be asked inside the `with`.
        """
        with reachable():
            yield self._of(collection, target).index

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
        return {
            target: {
                "kind": one.index.kind,
                "ntotal": one.index.ntotal,
                "applied_seq": one.follower.applied_seq,
                "lag": one.follower.lag,
                **({"ghosts": one.index.ghosts} if isinstance(one.index, Remote) else {}),
            }
            for (name, target), one in self._open.items()
            if name == collection
        }

    def close(self) -> None:
        """Save and close every index."""
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
        name = f"{collection}/{target}"
        folder = self._folder / collection / target
        space = self._space
        config = IndexConfig(name, space.fingerprint, space.d, folder, engine=self._engine, owner=self._owner)
        opened = open_index(config, head=entries.head())
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
        return Open(opened.index, follower)
