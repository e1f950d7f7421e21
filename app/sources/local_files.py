"""Folders of pictures on this machine: which ones the server may read, and how it copies their files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.core.errors import ImageTooLarge, UrlUnreachable, Validation, map_os_errors
from app.core.files import NotBeneath, beneath, open_nofollow
from app.decode.headers import PICTURE_SUFFIXES
from app.decode.litter import is_litter

BLOCK_BYTES = 1 << 20
FILE_CHANGED = "the file was changed after it was listed"
CANNOT_OPEN = {errno.ELOOP: "this is a link, which is not followed", errno.ENXIO: "this is no plain file"}


@dataclass(frozen=True, slots=True)
class AllowedFolders:
    """The folders that the operator allows the server to read, with everything below them but the data directory."""

    paths: tuple[Path, ...]
    data_dir: Path | None = None  # its pictures belong to collections, which a caller may not be allowed to read

    @classmethod
    def parse(cls, text: str, data_dir: Path | None = None) -> AllowedFolders:
        """Parse paths with colons between them. Raises ValueError for one that is not absolute."""
        paths = tuple(Path(each) for each in text.split(":") if each)
        if relative := [str(path) for path in paths if not path.is_absolute()]:
            raise ValueError(f"{relative[0]} is not an absolute path")
        return cls(paths, data_dir)

    @classmethod
    def parse_bound(cls, text: str, data_dir: Path | None = None) -> dict[str, AllowedFolders]:
        """Parse COLLECTION=PATH with colons between them: the folders of each collection. Raises ValueError."""
        found: dict[str, AllowedFolders] = {}
        for one in filter(None, text.split(":")):
            name, equals, path = one.partition("=")
            if not (equals and path):
                raise ValueError(f"{one} is not written COLLECTION=FOLDER")
            found[name] = found.get(name, cls(())) + cls.parse(path, data_dir)
        return found

    def __add__(self, other: AllowedFolders) -> AllowedFolders:
        """The folders of both."""
        return AllowedFolders((*self.paths, *other.paths), self.data_dir or other.data_dir)

    def resolve_folder(self, text: str) -> Path:
        """The folder of this name, without links. Raises Validation unless the server may read it."""
        path = self._resolve(text)
        if path is None or not _is_kind(path, stat.S_ISDIR):
            raise Validation(
                "the server may not read this folder, or there is none; its operator lists the folders that it may read"
            )
        return path

    def resolve_file(self, text: str) -> Path:
        """The file of this name, without links. Raises Validation unless the server may read it."""
        path = self._resolve(text)
        if path is None or not _is_kind(path, stat.S_ISREG):
            raise Validation("the server may not read this file, or there is none")
        return path

    def find_tag(self, path: Path) -> str | None:
        """Like `file_tag`; None also where the server may not read."""
        return file_tag(path) if self.allows(path) else None

    def allows(self, path: Path) -> bool:
        """Whether the server may read this, if it is there."""
        return self._resolve(str(path)) is not None

    def _resolve(self, text: str) -> Path | None:
        if not text.startswith("/"):
            return None
        for root in self.paths:
            with suppress(NotBeneath):
                path = beneath(root, text)
                return None if self.data_dir and path.is_relative_to(os.path.realpath(self.data_dir)) else path
        return None


def _is_kind(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether a path below an allowed folder is of this kind. Raises Validation when it cannot be looked at."""
    try:
        return is_kind(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise Validation(f"the server cannot read this: {error.strerror}") from None


def walk_files(
    folder: Path, suffixes: Collection[str] = PICTURE_SUFFIXES, on_error: Callable[[OSError], object] | None = None
) -> Iterator[Path]:
    """The files below `folder` with these suffixes, in order; skips hidden names and litter, enters no link.

    `on_error` gets the error of each folder that cannot be read.
    """
    for parent, folders, files in os.walk(folder, onerror=on_error):
        start = f"{path_to_text(Path(parent).relative_to(folder))}/".removeprefix("./")
        folders[:] = sorted(name for name in folders if not is_litter(start + name))
        for name in sorted(files):
            if Path(name).suffix.lower() in suffixes and not is_litter(start + name):
                yield Path(parent, name)


def file_tag(path: Path) -> str | None:
    """The time and size of a plain file: they change when it does. None for anything else."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return tag_from_stat(status) if stat.S_ISREG(status.st_mode) else None


def tag_from_stat(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}"


def open_plain(path: str | Path) -> BinaryIO:
    """Open a plain file. Raises UrlUnreachable."""
    try:
        file = open(path, "rb", opener=open_nofollow)  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        detail = CANNOT_OPEN.get(error.errno or 0, f"the file cannot be read: {error.strerror}")
        raise UrlUnreachable(detail) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UrlUnreachable(CANNOT_OPEN[errno.ENXIO])
    return file


def read_blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes of a file, or what there is of them."""
    while size > 0 and (block := file.read(min(size, BLOCK_BYTES))):
        size -= len(block)
        yield block


def write_limited(target: Path, blocks: Iterable[bytes], max_bytes: int) -> int:
    """Write a picture to `target`; returns its size. Raises ImageTooLarge after `max_bytes`."""
    size = 0
    with map_os_errors(), open(target, "wb") as file:
        for block in blocks:
            size += len(block)
            require_size(size, max_bytes)
            file.write(block)
    return size


def require_size(size: int, max_bytes: int) -> None:
    """Raise ImageTooLarge for a picture of more than `max_bytes`."""
    if size > max_bytes:
        raise ImageTooLarge(f"a picture may have {max_bytes} bytes")


def copy_file(source: Path, target: Path, max_bytes: int) -> str:
    """Copy a plain file of at most `max_bytes`; returns its tag.

    Raises ImageTooLarge, and UrlUnreachable when it cannot be read or has changed meanwhile.
    """
    with open_plain(source) as file:
        before = os.fstat(file.fileno())
        require_size(before.st_size, max_bytes)
        size = write_limited(target, read_blocks(file, before.st_size + 1), max_bytes)
        if size != before.st_size or tag_from_stat(os.fstat(file.fileno())) != tag_from_stat(before):
            raise UrlUnreachable("the file was changed while it was read")
    return tag_from_stat(before)


def path_to_text(path: Path) -> str:
    """A path as text: bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
