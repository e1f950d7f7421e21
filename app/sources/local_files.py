"""Folders of pictures on this machine: which may be read, what is in them, and what of it is new."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import ImageTooLarge, UrlUnreachable, Validation, map_os_errors
from app.core.files import open_nofollow
from app.decode.headers import has_picture_suffix

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class AllowedFolders:
    """The folders that the operator lets be read, with everything below them."""

    paths: tuple[Path, ...]

    @classmethod
    def of(cls, text: str) -> AllowedFolders:
        """The paths of `text`, separated by colons. Raises ValueError for one that is not absolute."""
        paths = tuple(Path(each) for each in text.split(":") if each)
        if relative := [str(path) for path in paths if not path.is_absolute()]:
            raise ValueError(f"{relative[0]} is not an absolute path")
        return cls(paths)

    def folder(self, text: str) -> Path:
        """The folder that `text` names, without links. Raises Validation unless it lies below one of ours."""
        refusal = Validation("the server may not read this folder, or it is none; its operator lists those that it may")
        path = self._below(text)
        if path is None or not path.is_dir():
            raise refusal
        return path

    def file(self, text: str) -> Path:
        """The file that `text` names, without links. Raises Validation unless it lies below one of ours."""
        path = self._below(text)
        if path is None or not path.is_file():
            raise Validation("the server may not read this file, or there is none")
        return path

    def _below(self, text: str) -> Path | None:
        if "\0" in text or not text.startswith("/"):
            return None
        try:
            path = Path(os.path.realpath(text))
        except ValueError:  # not Unicode
            return None
        roots = [Path(os.path.realpath(root)) for root in self.paths]
        return path if any(path.is_relative_to(root) for root in roots) else None


def walk_pictures(folder: Path) -> Iterator[Path]:
    """The files below `folder` that look like pictures, in order; nothing hidden, and no link is followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if has_picture_suffix(name) and not name.startswith("."):
                yield Path(place, name)


def file_tag(path: Path) -> str | None:
    """What changes when a file does: its time and size. None for what is no plain file (any more)."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return tag_from_stat(found) if stat.S_ISREG(found.st_mode) else None


def tag_from_stat(found: os.stat_result) -> str:
    """The tag of a file's status."""
    return f"{found.st_mtime_ns}-{found.st_size}"


def copy_file(source: Path, target: Path, most: int) -> str:
    """Copy a plain file of at most `most` bytes; returns its tag.

    Raises ImageTooLarge, and UrlUnreachable for what cannot be read or was changed meanwhile.
    """
    try:
        file = open(source, "rb", opener=open_nofollow)  # noqa: SIM115 (entered below)
    except OSError as error:
        raise UrlUnreachable(f"the file cannot be read: {error.strerror}") from None
    with file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise UrlUnreachable("this is no plain file")
        if before.st_size > most:
            raise ImageTooLarge(f"a picture may have {most} bytes")
        size = 0
        with map_os_errors(), open(target, "wb") as copied:
            while size <= most and (block := file.read(BLOCK)):
                size += len(block)
                copied.write(block)
        if tag_from_stat(os.fstat(file.fileno())) != tag_from_stat(before) or size != before.st_size:
            raise UrlUnreachable("the file was changed while it was read")
    return tag_from_stat(before)


def path_to_text(path: Path) -> str:
    """A path as text: bytes that are not UTF-8 are written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
