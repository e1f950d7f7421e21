"""The pictures below a folder, with the files beside them that say more: for `folder:` and for `sightline ingest`.

Nothing is lost without a word: `LeftOut` counts what is of another kind, and a place that cannot be read is an item
with its error. Litter and hidden files (`app.decode.litter`) are skipped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.errors import UrlUnreachable
from app.core.files import open_nofollow
from app.core.types import ItemError
from app.decode.headers import has_no_suffix, has_picture_suffix, is_picture_head
from app.decode.left_out import LeftOut
from app.decode.litter import is_excluded, is_litter
from app.decode.metadata_files import METADATA_FILES, MetadataFiles, read_metadata_path
from app.decode.sidecars import (
    MAX_SIDECAR_BYTES,
    match_sidecars,
    merge_sidecars,
    parse_sidecar,
    refuse_sidecar,
    sidecar_extension,
)
from app.sources.local_files import open_plain, path_to_text

HEAD_BYTES = 64
IsWanted = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file below a folder that was wanted; with an `error`, a file or a folder that cannot be read.

    `name` is its path relative to the folder, as text with forward slashes.
    """

    path: Path
    name: str
    sidecars: tuple[Path, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)  # what a metadata file says of it
    error: ItemError | None = None

    def read_fields(self) -> dict[str, Any]:
        """Caption, tags, id and metadata by the files beside it, and the `warnings` about these (AnswerWarning's)."""
        if self.metadata or not self.sidecars:
            return self.metadata
        read = ((sidecar_extension(path.name) or "", _read_sidecar(path)) for path in self.sidecars)
        return merge_sidecars(read)


def walk_pictures(
    root: Path,
    left_out: LeftOut,
    exclude: Sequence[str] = (),
    is_wanted: IsWanted = has_picture_suffix,
    follow_links: bool = False,
) -> Iterator[FoundFile]:
    """The wanted files below `root`, in order; counts the others in `left_out`, and names folders behind links there.

    A file whose name says nothing of its kind is wanted if it begins like a picture. `follow_links`: a link to a file
    counts as that file. `exclude` as in `is_excluded`.
    """
    metadata = MetadataFiles()
    errors: list[OSError] = []
    for parent, folders, files in os.walk(root, onerror=errors.append):
        yield from (_unreadable(root, error) for error in errors)
        errors.clear()
        start = Path(parent)
        folders[:] = [name for name in sorted(folders) if _must_enter(root, start / name, left_out, exclude)]
        names = [name for name in sorted(files) if not _is_skipped(root, start / name, exclude)]
        yield from _FolderWalk(root, start, metadata, left_out, is_wanted, follow_links).find(names)
    yield from (_unreadable(root, error) for error in errors)
    for problem in metadata.find_problems():
        left_out.warn("left_out", problem.detail)


def list_pictures(
    root: Path,
    folder: Path,
    metadata: MetadataFiles,
    exclude: Sequence[str] = (),
    is_wanted: IsWanted = has_picture_suffix,
    follow_links: bool = False,
) -> tuple[list[FoundFile], list[Path]]:
    """The wanted files directly in one folder below `root`, and the folders in it that `walk_pictures` would enter.

    `metadata` has read the metadata files of the folders above; it reads those here. Raises OSError.
    """
    left_out = LeftOut()
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries)
    folders = [
        folder / name for name, is_dir in names if is_dir and _must_enter(root, folder / name, left_out, exclude)
    ]
    files = [name for name, is_dir in names if not is_dir and not _is_skipped(root, folder / name, exclude)]
    return list(_FolderWalk(root, folder, metadata, left_out, is_wanted, follow_links).find(files)), folders


def read_metadata_above(root: Path, folder: Path) -> MetadataFiles:
    """The metadata files of the folders above `folder`, from `root` on."""
    metadata = MetadataFiles()
    for above in reversed([one for one in folder.parents if one.is_relative_to(root)]):
        for name in METADATA_FILES:
            if (above / name).is_file():
                read_metadata_path(metadata, above / name, relative_name(root, above / name))
    return metadata


def relative_name(root: Path, path: Path) -> str:
    """The path of a file below `root`, as text."""
    return path_to_text(path.relative_to(root)).replace(os.sep, "/")


@dataclass(slots=True)
class _FolderWalk:
    """The files of one folder on a walk."""

    root: Path
    folder: Path
    metadata: MetadataFiles
    left_out: LeftOut
    is_wanted: IsWanted
    follow_links: bool

    def find(self, names: list[str]) -> Iterator[FoundFile]:
        wanted, beside, tables = [], [], []
        for name in names:
            if self.is_wanted(name):
                wanted.append(name)
            elif sidecar_extension(name):
                beside.append(name)
            elif self._read_metadata_file(name):
                tables.append(name)
            elif has_no_suffix(name):
                head = self._read_head(name)
                if isinstance(head, ItemError):
                    yield FoundFile(self.folder / name, self._name(name), error=head)
                elif is_picture_head(head):
                    wanted.append(name)
                else:
                    self.left_out.add(name)
            else:
                self.left_out.add(name)
        sidecars = match_sidecars(wanted, beside)
        used = {name for names in sidecars.values() for name in names}
        for name in beside:
            if name not in used:
                self.left_out.add(name)
        for name in sorted(wanted):
            paths = tuple(self.folder / sidecar for sidecar in sidecars.get(name, ()))
            yield FoundFile(self.folder / name, self._name(name), paths, self.metadata.fields_of(self._name(name)))

    def _name(self, name: str) -> str:
        return relative_name(self.root, self.folder / name)

    def _read_metadata_file(self, name: str) -> bool:
        """Read a file with the fields of many pictures; False if it is none."""
        return read_metadata_path(self.metadata, self.folder / name, self._name(name))

    def _read_head(self, name: str) -> bytes | ItemError:
        path = self.folder / name
        try:
            if not stat.S_ISREG((os.stat if self.follow_links else os.lstat)(path).st_mode):
                return b""
            with open(path, "rb", opener=None if self.follow_links else open_nofollow) as file:
                return file.read(HEAD_BYTES)
        except OSError as error:
            return _why_unreadable(error)


def _must_enter(root: Path, folder: Path, left_out: LeftOut, exclude: Sequence[str]) -> bool:
    if _is_skipped(root, folder, exclude):
        return False
    if folder.is_symlink():
        name = relative_name(root, folder)
        left_out.warn("link", f"{name} is a link to a folder, which is not entered; load that folder by itself")
        return False
    return True


def _is_skipped(root: Path, path: Path, exclude: Sequence[str]) -> bool:
    name = relative_name(root, path)
    return is_litter(name) or is_excluded(name, exclude)


def _unreadable(root: Path, error: OSError) -> FoundFile:
    path = Path(error.filename)
    return FoundFile(path, relative_name(root, path), error=_why_unreadable(error))


def _why_unreadable(error: OSError) -> ItemError:
    return ItemError("url_unreachable", error.strerror or "it cannot be read")


def _read_sidecar(path: Path) -> dict[str, Any]:
    extension = sidecar_extension(path.name)
    assert extension is not None
    name = path_to_text(Path(path.name))
    try:
        with open_plain(path) as file:
            data = file.read(MAX_SIDECAR_BYTES[extension] + 1)
    except (UrlUnreachable, OSError) as error:
        detail = error.detail if isinstance(error, UrlUnreachable) else error.strerror
        return refuse_sidecar(extension, f"{name}: {detail}")
    return parse_sidecar(extension, data, name)
