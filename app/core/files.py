"""Files: the operations on files and folders that the standard library lacks, each written once."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

log = logging.getLogger(__name__)

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


class NotBeneath(ValueError):
    """A path leads out of the folder in which it has to be."""


def beneath(root: Path, path: str | Path) -> Path:
    """`path`, which is absolute or relative to `root`, without links and `..`. Raises NotBeneath if that is outside.

    Every path from a request, an archive, a table, a manifest, a backup or a decode child, which foreign bytes may have
    taken over, goes through here before it is opened, and `open_nofollow` opens the result: a link that somebody puts
    there in between leads nowhere.
    """
    try:
        found = Path(os.path.realpath(root / path))
    except ValueError:  # NUL, or not Unicode
        raise NotBeneath("this is no path") from None
    if not found.is_relative_to(os.path.realpath(root)):
        raise NotBeneath("the path leads out of its folder")
    return found


def open_beneath(root: Path, path: str | Path) -> BinaryIO:
    """Open a plain file below `root`, as `beneath` finds it. Raises NotBeneath (also for a pipe), OSError."""
    file = open(beneath(root, path), "rb", opener=open_nofollow)  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotBeneath("this is no plain file")
    return file


def open_nofollow(path: str, flags: int) -> int:
    """An opener for `open`: follows no link, neither at the end of the path nor on the way, and waits for no pipe."""
    root, *folders, name = Path(path).absolute().parts
    at = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for folder in folders:
            below = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)


def close_to_others(folder: Path, *names: str) -> None:
    """Take from other users what they may do with these files of a folder, if they are there and ours.

    Nobody can lock a file that he cannot open, nor lock us out by it.
    """
    strangers = find_strangers(folder)
    for path in (folder / name for name in names):
        with suppress(FileNotFoundError, PermissionError):  # of another user, who shares it with us
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & strangers:
                path.chmod(mode & ~strangers)


def find_strangers(folder: Path) -> int:
    """The bits of a mode that let others in than its user, and than a group that the operator chose for the folder.

    He chooses one by the setgid bit; Kubernetes sets it for `fsGroup`, too.
    """
    return stat.S_IRWXO if folder.stat().st_mode & stat.S_ISGID else stat.S_IRWXG | stat.S_IRWXO


def warn_of_wide_modes(folder: Path) -> None:
    """Log a warning if other users may read or write below a folder of ours, with the command that ends it.

    Sightline makes files for its own user alone, but this folder may be older.
    """
    top, strangers = folder.stat(), find_strangers(folder)
    if not top.st_mode & strangers:
        return
    found = [(path, path.lstat()) for path in (folder, *folder.iterdir())]
    if any(one.st_mode & strangers and one.st_uid == os.geteuid() and not path.is_symlink() for path, one in found):
        who = "o=" if strangers == stat.S_IRWXO else "go="
        log.warning(
            "other users of this machine may look into %s (mode %o): chmod -R %s %s",
            *(folder, stat.S_IMODE(top.st_mode), who, shlex.quote(str(folder))),
        )
