"""What every vector index can do, and what one that keeps snapshots can do besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol, Self, runtime_checkable

from index.idset import IdSet
from index.types import Embeddings, Ids, Scores, SnapshotManifest


@dataclass(frozen=True, slots=True)
class SearchParams:
    """How one search is done. It travels with the call, so no caller changes another one's search.

    `exact`: compare with every vector, whatever the index could save. Exact indexes always do.
    `among`: only these ids may be found; None: all. The answer holds k hits wherever k of them are inside.
    `probes`, `rerank`: how many lists of a partitioned index are looked into, and how many candidates are compared
    again with their whole vectors; None: what the index holds for enough. An index without such parts ignores them.
    """

    exact: bool = False
    among: IdSet | None = None
    probes: int | None = None
    rerank: int | None = None


class VectorIndex(Protocol):
    """Vectors by id, searched by inner product. Any thread may call any method at any time.

    A mutation is seen whole or not at all, and by every search that begins after it returned.
    `d` is the width of a vector, `ntotal` the count of ids now inside, `kind` names what searches them.
    """

    @property
    def kind(self) -> str: ...

    @property
    def d(self) -> int: ...

    @property
    def ntotal(self) -> int: ...

    def add(self, ids: Ids, vectors: Embeddings) -> None:
        """Store `vectors` [n, d] under `ids` [n]. A known id is replaced; of one id twice the last counts.

        Raises InvalidVector or InvalidId, and then nothing of this call was stored.
        """
        ...

    def remove(self, ids: Ids) -> None:
        """Forget `ids` [n]; unknown ones are ignored."""
        ...

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        """The `k` best for each of `queries` [n, d]: scores [n, k], best first, and ids [n, k].

        Equal scores are ordered by the lower id. Where there are fewer than k vectors, the rest is padded
        with score -inf and id -1. Raises InvalidVector for a query that is not finite, zero, or of wrong
        shape, and ValueError for a negative k.
        """
        ...

    def close(self) -> None:
        """Give memory and files back; may be called again. Every other method then raises IndexClosed."""
        ...


@runtime_checkable
class SizedIndex(Protocol):
    """An index that knows how many bytes of memory it holds, those mapped from files left out."""

    @property
    def nbytes(self) -> int: ...


@runtime_checkable
class ApproximateIndex(Protocol):
    """What an approximate index can do besides: look harder.

    `effort` 0 is what was measured as enough when it was built; each step doubles the probes and the depth of the
    second comparison, up to all there are. `exact`: whether it finds everything now, whatever the effort.
    """

    @property
    def effort(self) -> int: ...

    @property
    def exact(self) -> bool: ...

    def set_effort(self, effort: int) -> None:
        """Search with this effort from now on; what is out of bounds becomes the nearest bound."""
        ...


@runtime_checkable
class RemoteIndex(Protocol):
    """An index that is searched elsewhere, and may be out of reach."""

    @property
    def fault(self) -> str | None:
        """Why searches cannot be answered now; None when they can, as far as is known."""
        ...

    @property
    def ghosts(self) -> int:
        """How many vectors were found there that nobody had put there, and removed."""
        ...


class Sink(Protocol):
    """Where the bytes of one file go."""

    def write(self, data: memoryview | bytes, /) -> int: ...


@dataclass(frozen=True, slots=True)
class FrozenIndex:
    """The contents of an index at one moment: later mutations do not reach it.

    `files` maps a file's name to the function that writes it. Nothing is copied before that is called.
    """

    kind: str
    d: int
    ntotal: int
    files: Mapping[str, Callable[[Sink], None]]


class FreezableIndex(VectorIndex, Protocol):
    """An index that can be kept in a snapshot."""

    def freeze(self) -> FrozenIndex:
        """The contents now, in time that does not grow with them."""
        ...

    @classmethod
    def restore(cls, manifest: SnapshotManifest, files: Mapping[str, BinaryIO]) -> Self:
        """The index that `files` hold: as many vectors, of the width, that the manifest says.

        The files are unbuffered, open at their start, and their hashes have been checked.
        Raises ValueError where their contents are not what the manifest says.
        """
        ...
