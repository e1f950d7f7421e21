"""Trouble with the disk, told apart from trouble with a picture."""

from __future__ import annotations

import errno

from app.errors import BlobMissing, Overloaded, ReadOnly, SightlineError, StorageFull


def from_os_error(error: OSError) -> SightlineError:
    """Our error for an OSError that the system raised (one with an errno)."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("The disk is full.")
    if error.errno == errno.EROFS:
        return ReadOnly("The data directory cannot be written at present.")
    if error.errno == errno.ENOENT:
        return BlobMissing("The file is gone.")
    return Overloaded("A file could not be read or written; try again.")
