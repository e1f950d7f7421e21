"""Every error that this package raises on purpose.

Failing disks are plain OSError. A leaf: it imports nothing.
"""

from __future__ import annotations


class VectorIndexError(Exception):
    """The root: catch this to catch every error of the package."""


class InvalidVector(VectorIndexError, ValueError):
    """A vector or query of wrong shape or dtype, not finite or zero; a vector that is not of unit length."""


class InvalidId(VectorIndexError, ValueError):
    """An id that is not an int64 of zero or more: -1 is the padding of an answer."""


class IndexClosed(VectorIndexError):
    """The index was used after `close`; its memory is gone."""


class RemoteUnavailable(VectorIndexError):
    """The remote server does not answer, or refuses: try again. A mutation under way may or may not have happened."""


class RemoteEmptied(RemoteUnavailable):
    """Someone restored or emptied the remote server: no answer until the log has been applied to it anew."""


class InvalidLog(VectorIndexError):
    """The log's reader broke its contract: sequence numbers must rise, and be greater than the one asked for."""


class LogReplaced(VectorIndexError):
    """The log is not the one that was followed, or has lost its end. Drop the index and open it anew."""


class SegmentDamaged(VectorIndexError):
    """A sealed segment has changed on its disk since it was opened. Drop it and open the index anew."""


class InvalidSnapshot(VectorIndexError):
    """A snapshot that is damaged, foreign or of another version. Rebuilding from the log is always safe."""


class SnapshotMissing(InvalidSnapshot):
    """The folder holds no snapshot: the normal case of a first start."""
