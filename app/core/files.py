"""Files: the operations on files and folders that the standard library lacks, each written once."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

COPY_BYTES = 1 << 20
# What a file system answers that has no hard links, or no more of them for this file.
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


@contextmanager
def atomic_write(path: Path, mode: Literal["w", "wb"] = "w", *, durable: bool = True) -> Iterator[IO[Any]]:
    """Open a new file that replaces `path` when the block ends; after an error `path` is as it was.

    The new file is `.NAME.PID.tmp` beside `path` meanwhile. `durable`: the bytes and the name are on the disk (fsync)
    when the block has ended. Text is UTF-8. Raises OSError.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(new, mode, encoding="utf-8" if mode == "w" else None) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        new.replace(path)
        if durable:
            fsync_dir(path.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name. Where the file system has no links (exFAT, SMB), make a copy that is on the disk.

    Raises OSError, and leaves no `target` then.
    """
    try:
        os.link(source, target)
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    try:
        with open(source, "rb") as old, open(target, "xb") as new:
            shutil.copyfileobj(old, new, COPY_BYTES)
            new.flush()
            os.fsync(new.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def fsync_dir(path: Path) -> None:
    """fsync a folder: the names in it are on the disk then."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_dirs(path: Path) -> None:
    """Make a folder and its parents so that they survive a power cut."""
    if path.is_dir():
        return
    make_dirs(path.parent)
    path.mkdir(exist_ok=True)
    fsync_dir(path.parent)


def open_nofollow(path: str, flags: int) -> int:
    """An opener for `open`: follows no link, and does not wait for the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
