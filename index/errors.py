"""Every error that this package raises on purpose.

    VectorIndexError
    ├── InvalidVector     (ValueError)  wrong shape or dtype, not finite, zero, or not of unit length
    ├── InvalidId         (ValueError)  wrong shape or dtype, or negative: -1 is the padding of an answer
    ├── IndexClosed                     the index was used after close()
    ├── RemoteUnavailable               the remote server does not answer, or refuses: try again later
    │   └── RemoteEmptied               it answers, but no longer has what the index put there
    ├── InvalidLog                      the log's entries are not in rising order of seq
    ├── SegmentDamaged                  a vector on disk is not what was written: open the index anew
    └── InvalidSnapshot                 a snapshot is damaged, foreign or of another version: rebuild
        └── SnapshotMissing             there is no snapshot: the normal case of a first start

Failing disks are plain OSError. A leaf: it imports nothing.
"""

from __future__ import annotations


class VectorIndexError(Exception):
    """The root: catch this to catch every error of the package."""


class InvalidVector(VectorIndexError, ValueError):
    """A vector that must not enter an index, or a query that has no answer."""


class InvalidId(VectorIndexError, ValueError):
    """An id that is not an int64 of zero or more."""


class IndexClosed(VectorIndexError):
    """The index was closed; its memory is gone."""


class RemoteUnavailable(VectorIndexError):
    """The remote server does not answer now. A mutation under way may or may not have happened."""


class RemoteEmptied(RemoteUnavailable):
    """Someone restored or emptied the remote server: no answer until the log has been applied to it anew."""


class InvalidLog(VectorIndexError):
    """The log's reader broke its contract: sequence numbers must rise, and be greater than the one asked for."""


class SegmentDamaged(VectorIndexError):
    """A sealed segment has changed on its disk since it was opened. Drop it and open the index anew."""


class InvalidSnapshot(VectorIndexError):
    """A snapshot that must not be loaded; the message says why. Rebuilding from the log is always safe."""


class SnapshotMissing(InvalidSnapshot):
    """The folder holds no snapshot."""
