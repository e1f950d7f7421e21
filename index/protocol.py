"""The interfaces of a vector index, of the log it follows, and of its snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from index.idset import IdSet
from index.types import Embeddings, Ids, LogEntry, Scores

Effort = Literal["fast", "normal"]
"""How far an approximate index looks: as far as it was calibrated to, or less far."""


@dataclass(frozen=True, slots=True)
class SearchParams:
    """How to do one search. It travels with the call, so no caller changes another one's search.

    `exact`: compare the query with every vector. Flat indexes always do.
    `allowed_ids`: find only these ids; None allows all. The answer holds k hits wherever k of the ids are inside.
    `nprobe`, `refine_k`: how many lists of a partitioned index to search, and how many candidates to compare
    again with their whole vectors. None: what the index was calibrated to for this `effort`. An index without lists
    ignores all three.
    """

    exact: bool = False
    allowed_ids: IdSet | None = None
    nprobe: int | None = None
    refine_k: int | None = None
    effort: Effort = "normal"


class VectorIndex(Protocol):
    """Vectors by id, searched by inner product. Any thread may call any method at any time.

    A search sees a mutation whole or not at all, and every search that begins after a mutation returned sees it.
    `d` is the width of a vector, `ntotal` the number of ids inside, `kind` names the implementation, `nbytes` is the
    memory that it takes in this process, without files that are mapped.
    """

    @property
    def kind(self) -> str: ...

    @property
    def d(self) -> int: ...

    @property
    def ntotal(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

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

        The lower id comes first among equal scores. Where there are fewer than k vectors, score -inf and id -1 pad
        the answer. Raises InvalidVector for a query that is not finite, zero, or of wrong shape, and ValueError for
        a negative k.
        """
        ...

    def close(self) -> None:
        """Give memory and files back; may be called again. Every other method then raises IndexClosed."""
        ...


@runtime_checkable
class ApproximateIndex(Protocol):
    """An index that can search harder.

    `search_effort` 0 is what calibration found to be enough when the index was built; each step doubles nprobe and
    refine_k, up to all there are. `exact`: whether the index finds everything now, whatever the effort.
    """

    @property
    def search_effort(self) -> int: ...

    @property
    def exact(self) -> bool: ...

    def set_search_effort(self, effort: int) -> None:
        """Search with this effort from now on, or with the nearest that is possible."""
        ...


@runtime_checkable
class RemoteIndex(Protocol):
    """An index that another program searches, which may be out of reach."""

    @property
    def fault(self) -> str | None:
        """Why searches cannot be answered now; None when they can, as far as is known."""
        ...

    @property
    def orphans(self) -> int:
        """How many vectors the remote side had that we never put there, and that we removed."""
        ...

    def forget_applied(self) -> None:
        """Let the next that opens it apply the whole log, before it answers. Raises RemoteUnavailable."""
        ...


class LogReader(Protocol):
    """The log that an index follows.

    `mark` says which log that is: what was read so far belongs to it while it has this mark. "" asks for none; each
    read replaces it by the newest. Set it to that of a snapshot before the first read.
    """

    mark: str

    def read(self, after_seq: int, limit: int, /) -> Sequence[LogEntry]:
        """Up to `limit` entries with seq > `after_seq`, rising. The numbers may have gaps.

        Raises LogReplaced where the log does not have `mark`.
        """
        ...

    def last_seq(self) -> int:
        """The seq of the last entry, 0 for an empty log."""
        ...


class Sink(Protocol):
    """A file being written."""

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


class Freeze(Protocol):
    """Captures an index as it stands after a log entry, with a mark of that log; returns the function that saves the
    capture, or None where nothing need be saved."""

    def __call__(self, seq: int, mark: str = "", /) -> Callable[[], None] | None: ...


Maintain = Callable[[LogReader, int], bool]
"""Does a short piece of an index's own maintenance, given the log and the last applied seq; whether more is to be done
at once."""


@dataclass(frozen=True, slots=True)
class OpenedIndex:
    """An index ready for its follower: it holds the log up to `applied_seq`, of which it knows `mark`.

    `refused` says why a snapshot was not used; None where it was used, or where there was none.
    """

    index: VectorIndex
    applied_seq: int = 0
    refused: str | None = None
    freeze: Freeze | None = None
    maintain: Maintain | None = None
    watch: Callable[[], int] | None = None  # takes over what another process wrote there; returns how far that is
    mark: str = ""
