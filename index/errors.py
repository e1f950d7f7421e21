"""Everything the package raises on purpose.

    VectorIndexError
    ├── InvalidVector     (ValueError)  wrong shape or dtype, not finite, zero, or not of unit length
    ├── InvalidId         (ValueError)  wrong shape or dtype, or negative: -1 is the padding of an answer
    ├── IndexClosed                     the index was used after close()
    ├── EngineUnavailable               the engine that holds the index is away, silent or refuses: try again later
    │   └── EngineEmptied               it answers, but what the index put into it is no longer there
    ├── LogInvalid                      `read` handed over entries that are not in rising order of seq
    ├── BaseDamaged                     a vector on disk is not what was written: open the index anew
    └── SnapshotInvalid                 a snapshot is damaged, foreign or of another version: rebuild
        └── SnapshotMissing             there is no snapshot: the normal case of a first start

Failing disks are plain OSError. A leaf: it imports nothing.
"""

from __future__ import annotations


class VectorIndexError(Exception):
    """The root: catch this to catch all of ours."""


class InvalidVector(VectorIndexError, ValueError):
    """A vector that must not enter an index, or a query that has no answer."""


class InvalidId(VectorIndexError, ValueError):
    """An id that is not an int64 of zero or more."""


class IndexClosed(VectorIndexError):
    """The index was closed; its memory is gone."""


class RemoteUnavailable(VectorIndexError):
    """The engine beyond this machine cannot be asked now. Nothing is known of what a mutation under way did."""


class RemoteEmptied(RemoteUnavailable):
    """The engine was restored or emptied behind our back: no answer until the log has been applied to it anew."""


class InvalidLog(VectorIndexError):
    """The log's reader broke its word: sequence numbers must rise and lie past the one asked for."""


class SegmentDamaged(VectorIndexError):
    """A base that was opened has changed on its disk. Whoever keeps the log drops the base and opens the index anew."""


class InvalidSnapshot(VectorIndexError):
    """A snapshot that must not be loaded; the message says why. Rebuilding from the log is always safe."""


class SnapshotMissing(InvalidSnapshot):
    """The folder holds no snapshot."""
