"""Finds the files of this machine that `sightline ingest` sends, and reads them without stopping at a bad one."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from app.cli.client import to_valid_unicode
from app.core.errors import ImageTooLarge
from app.core.picture_formats import FORMATS, SETTING
from app.decode.headers import ARCHIVE_HEAD, detect_archive, has_picture_suffix
from app.decode.left_out import LeftOut
from app.decode.sidecars import match_sidecars, sidecar_extension
from app.decode.video_header import VIDEO_SUFFIXES, has_video_suffix, is_accepted
from app.sources.picture_folder import FoundFile, walk_pictures

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
NOT_TAKEN = f"this server takes no {{}} files; its setting {SETTING} and its extras decide that"
NO_VIDEOS = "this server takes no videos; its setting SIGHTLINE_VIDEO and the extra `video` decide that"
UNREADABLE = "unreadable"  # the code of a file or folder that cannot be read

Failure = dict[str, Any]  # as the server has failed items: `name`, and `error` with `code` and `detail`


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to send, by the name that the server stores. `found` knows what stands beside a picture or a video."""

    name: str
    path: Path
    size: int
    is_archive: bool
    found: FoundFile | None = None
    is_video: bool = False


@dataclass(slots=True)
class LocalFiles:
    """What is below the paths of a command."""

    files: list[LocalFile] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def add(self, name: str, path: Path, found: FoundFile | None = None) -> None:
        """Add a file, or the reason why it cannot be sent."""
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "it is no plain file")
            is_video = has_video_suffix(name)
            is_archive = not (is_video or has_picture_suffix(name)) and _begins_like_archive(path)
        except OSError as error:
            self.failures.append(failure(name, UNREADABLE, str(error.strerror)))
            return
        self.files.append(LocalFile(name, path, status.st_size, is_archive, found, is_video))


def find_files(
    paths: Iterable[Path],
    exclude: Sequence[str] = (),
    formats: Collection[str] | None = None,
    *,
    videos: bool = True,
) -> LocalFiles:
    """The files among the paths, whatever their names, and the pictures, videos and archives below the folders.

    Of pictures only those of the `formats` that the server accepts; without `formats`, of all. `videos`: it takes them.
    """
    local = LocalFiles()
    named: dict[Path, list[str]] = {}
    for path in paths:
        if is_folder(path):
            _add_folder(local, path, exclude, formats, videos=videos)
        else:
            named.setdefault(path.parent, []).append(path.name)
    for folder, names in named.items():
        _add_named(local, folder, names)
    if formats is not None:
        local.left_out.explain(formats, lambda name: NOT_TAKEN.format(FORMATS[name].label))
    if not videos and not VIDEO_SUFFIXES.isdisjoint(local.left_out.kinds):
        local.left_out.warn("left_out", NO_VIDEOS)
    return local


def is_folder(path: Path) -> bool:
    """Whether this is a folder; False if it cannot be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_missing(path: str | Path) -> bool:
    """Whether there is nothing of this name; what cannot be looked at may be there."""
    try:
        if not str(path):
            return True
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False
    return False


def _add_folder(
    local: LocalFiles, root: Path, exclude: Sequence[str], formats: Collection[str] | None, *, videos: bool
) -> None:
    top = root.name if root.name != ".." else root.resolve().name
    is_wanted = partial(is_ingestible, formats=formats, videos=videos)
    for found in walk_pictures(root.resolve(), local.left_out, exclude, is_wanted, follow_links=True):
        name = to_valid_unicode("/".join(step for step in (top, found.name) if step not in ("", "."))) or str(root)
        if found.error is not None:
            local.failures.append(failure(name, UNREADABLE, found.error.detail))
        else:
            local.add(name, found.path, found)


def _add_named(local: LocalFiles, folder: Path, names: list[str]) -> None:
    """Add the files of one folder that were named one by one; the texts among them that belong to pictures do so."""
    pictures = [name for name in names if has_picture_suffix(name) or has_video_suffix(name)]
    sidecars = match_sidecars(pictures, [name for name in names if sidecar_extension(name)])
    used = {sidecar for found in sidecars.values() for sidecar in found}
    for name in names:
        if name not in used:
            beside = tuple(folder.resolve() / sidecar for sidecar in sidecars.get(name, ()))
            local.add(to_valid_unicode(name), folder / name, FoundFile(folder / name, name, beside))


def _begins_like_archive(path: Path) -> bool:
    with open_plain(path) as file:
        return detect_archive(file.read(ARCHIVE_HEAD)) is not None


def is_ingestible(name: str, formats: Collection[str] | None = None, *, videos: bool = True) -> bool:
    """Whether a file has the suffix of a picture (of one of the `formats`), of a video or of an archive."""
    return is_accepted(name, formats, videos=videos) or name.lower().endswith(ARCHIVES)


def read_file(path: Path, max_bytes: int) -> bytes:
    """The bytes of a plain file. Raises OSError, ImageTooLarge."""
    with open_plain(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        size = path.stat().st_size
        raise ImageTooLarge(f"the file has {size:,} bytes; the limit is {max_bytes:,} (SIGHTLINE_MAX_IMAGE_BYTES)")
    return content


def open_plain(path: Path) -> BinaryIO:
    """Open a file, and do not wait for the other end of a pipe. Raises OSError."""
    return open(path, "rb", opener=_open_without_waiting)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def failure(name: str, code: str, detail: str) -> Failure:
    """A file that failed before it was sent."""
    return {"name": name, "error": {"code": code, "detail": detail}}


def expand_stdin(paths: Iterable[str]) -> Iterator[Path]:
    """The paths, with the lines of standard input in the place of `-`."""
    for path in paths:
        if path == "-":
            yield from (Path(os.fsdecode(line)) for line in read_lines(sys.stdin.buffer) if line)
        else:
            yield Path(path)


def read_lines(file: BinaryIO) -> list[bytes]:
    """The lines of a list in UTF-8, or UTF-16 as Windows writes it, without the ends of lines and the mark."""
    data = file.read()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", "replace").encode()
    return [line.removesuffix(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
