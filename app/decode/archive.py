"""Expand zip, tar and tar.gz archives, read as streams of members within limits. Runs in a decode child.

The name of a member is never used as a path, the libraries extract no files, and the limits count the bytes that were
really read. An archive above a limit, or cut off, is refused as a whole; a bad member fails alone.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, Self, cast

from app.core.errors import (
    ArchiveCorrupt,
    ArchiveLimit,
    ImageTooLarge,
    SightlineError,
    UnsupportedMediaType,
    from_os_error,
)
from app.core.files import atomic_write
from app.core.types import ItemError
from app.decode import webdataset_sidecars
from app.decode.headers import ARCHIVE_HEAD, detect_archive, detect_format, read_header
from app.decode.limits import ArchiveLimits, PictureLimits
from app.decode.metadata_jsonl import (
    MAX_METADATA_FILE_BYTES,
    METADATA_FIELDS,
    METADATA_FILE,
    ArchiveMetadata,
    is_metadata_file,
    normalise_name,
)

MANIFEST = "manifest.jsonl"
_CHUNK = 1 << 16
_DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini"})
_DIRECTORY_BYTES_PER_MEMBER = 1 << 10  # of a zip: far more than a name and its fields need
_ENTRIES_PER_MEMBER = 4  # folders and files of desktops are no members, but are limited as well
_SPECIAL = ItemError("unsupported_media_type", "links, devices and other special files are not accepted")
_ENCRYPTED = ItemError("unsupported_media_type", "encrypted members cannot be read")
_METHOD = ItemError("unsupported_media_type", "only stored and deflated zip members are accepted")
_SPARSE = ItemError("unsupported_media_type", "sparse files are not accepted")
_ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_NO_PICTURE = ItemError("unsupported_media_type", "the archive holds no picture of this name")
_DAMAGED = ItemError("image_corrupt", "its data in the archive is damaged")


@dataclass(frozen=True, slots=True)
class _Member:
    """One entry of an archive: its name, and its bytes or why it has none."""

    name: str
    size: int
    content: Callable[[], Iterator[bytes]] | ItemError


@dataclass(slots=True)
class _Budget:
    """The bytes that were read of an archive, and their limit."""

    limit: int
    spent: int = 0

    def spend(self, count: int) -> None:
        self.spent += count
        if self.spent > self.limit:
            raise ArchiveLimit(f"the archive expands to more than {self.limit:,} bytes")


def expand_archive(path: Path, folder: Path, limits: ArchiveLimits, pictures: PictureLimits) -> Path:
    """Write the pictures of a zip, tar or tar.gz into `folder` as 000001, 000002, …

    Returns the path of `manifest.jsonl` in `folder`: a line for each item, in order, with n, name, file (null if it is
    refused), bytes, error ({code, detail} or null), id, caption, tags and metadata. Folders, hidden files and files
    of desktops are no items, nor are the sidecars of a webdataset (`key.txt` and `key.json` beside `key.jpg`).
    Raises ArchiveLimit above the limits, ArchiveCorrupt for an archive that is damaged or holds no picture,
    UnsupportedMediaType for any other file, and StorageFull, ReadOnly, BlobMissing or Overloaded for the disk; it
    leaves no files then.
    """
    expansion = _Expansion(folder, limits, pictures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as file:
            for member in _iter_members(file, limits, expansion.budget):
                expansion.add(member)
        return expansion.finish()
    except BaseException as error:
        expansion.discard()
        if isinstance(error, SightlineError):
            raise
        if isinstance(error, MemoryError):
            raise ArchiveLimit("the archive needs more memory than allowed") from error
        if isinstance(error, OSError) and error.errno is not None:
            raise from_os_error(error) from error
        raise ArchiveCorrupt("the archive is cut off or damaged") from error


class _Expansion:
    """The items of an archive so far. All reads count against `budget`."""

    def __init__(self, folder: Path, limits: ArchiveLimits, pictures: PictureLimits) -> None:
        self.folder, self.limits, self.pictures = folder, limits, pictures
        self.budget = _Budget(limits.max_bytes)
        self._metadata = ArchiveMetadata()
        self._sidecars: dict[str, dict[str, webdataset_sidecars.SidecarFields | ItemError]] = {}  # by key and extension
        self._items: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._entries = 0

    def add(self, member: _Member) -> None:
        """Write one member, or note why it is refused."""
        self._entries += 1
        if self._entries > _ENTRIES_PER_MEMBER * self.limits.max_members + 100:
            raise ArchiveLimit(f"the archive has more than {self.limits.max_members:,} members")
        name = normalise_name(member.name)
        if is_ignored(name):
            return
        if is_metadata_file(name):
            self._read_metadata(name, member)
            return
        key, extension = webdataset_sidecars.split_key(name)
        if extension in webdataset_sidecars.MAX_SIDECAR_BYTES:
            self._sidecars.setdefault(key, {})[extension] = self._read_sidecar(extension, member)
            return
        number = len(self._items) + 1
        if number > self.limits.max_members:
            raise ArchiveLimit(f"the archive has more than {self.limits.max_members:,} members")
        target = self.folder / f"{number:06d}"
        try:
            size, error = self._write(member, target), None
        except SightlineError as refusal:
            if isinstance(refusal, ArchiveLimit | ArchiveCorrupt):
                raise
            size, error = member.size, ItemError(refusal.code, refusal.detail)
        except _ItemRefused as refusal:
            size, error = member.size, refusal.error
        self._note(member.name, None if error else target.name, size, error)
        self._names.append(name)
        if error:
            target.unlink(missing_ok=True)

    def finish(self) -> Path:
        """Add captions and metadata to the items, and write the manifest."""
        for item, name in zip(self._items, self._names, strict=True):
            sidecars = self._sidecars.get(webdataset_sidecars.split_key(name)[0], {})
            fields = self._metadata.fields_of(name) or webdataset_sidecars.merge_sidecars(sidecars)
            if not isinstance(fields, ItemError):
                item.update(fields)
            elif item["error"] is None:
                (self.folder / item["file"]).unlink()
                item.update(file=None, error=asdict(fields))
        if not any(item["file"] for item in self._items):
            reason = f": {self._items[0]['error']['detail']}" if self._items else ""
            raise ArchiveCorrupt(f"the archive holds no pictures{reason}")
        for error in self._metadata.errors(frozenset(self._names)):
            self._note(METADATA_FILE, None, 0, error)
        keys = {webdataset_sidecars.split_key(name)[0] for name in self._names}
        for key in sorted(self._sidecars.keys() - keys):
            for extension in self._sidecars[key]:
                self._note(f"{key}.{extension}", None, 0, _NO_PICTURE)
        path = self.folder / MANIFEST
        with atomic_write(path, durable=False) as file:
            file.writelines(json.dumps(item) + "\n" for item in self._items)
        return path

    def discard(self) -> None:
        """Remove all files that were written."""
        for number in range(1, len(self._items) + 2):
            (self.folder / f"{number:06d}").unlink(missing_ok=True)

    def _note(self, name: str, file: str | None, size: int, error: ItemError | None) -> None:
        self._items.append(
            {
                "n": len(self._items) + 1,
                "name": display_name(name),
                "file": file,
                "bytes": size,
                "error": asdict(error) if error else None,
                **dict.fromkeys(METADATA_FIELDS),
            }
        )

    def _write(self, member: _Member, target: Path) -> int:
        """Copy a member to `target` and check its header; returns its size in bytes."""
        limit = min(self.limits.max_member_bytes, self.pictures.max_bytes)
        with target.open("xb") as out:
            for count, chunk in enumerate(_read(member, limit)):
                if count == 0:
                    _require_picture(chunk)
                out.write(chunk)
            size = out.tell()
        with target.open("rb") as file:
            read_header(file, self.pictures)
        return size

    def _read_sidecar(self, extension: str, member: _Member) -> webdataset_sidecars.SidecarFields | ItemError:
        try:
            return webdataset_sidecars.parse_sidecar(
                extension, b"".join(_read(member, webdataset_sidecars.MAX_SIDECAR_BYTES[extension]))
            )
        except ImageTooLarge:
            return webdataset_sidecars.too_large_error(extension)
        except _ItemRefused as refusal:
            return refusal.error

    def _read_metadata(self, name: str, member: _Member) -> None:
        try:
            self._metadata.read(name, b"".join(_read(member, MAX_METADATA_FILE_BYTES)))
        except ImageTooLarge:
            self._metadata.problems.append(
                ItemError("validation", f"{METADATA_FILE} has more than {MAX_METADATA_FILE_BYTES:,} bytes")
            )
        except _ItemRefused as refusal:
            self._metadata.problems.append(refusal.error)


class _ItemRefused(Exception):
    """A member is refused, for a reason of the archive and not of the picture."""

    def __init__(self, error: ItemError) -> None:
        super().__init__(error.detail)
        self.error = error


def is_ignored(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return not name or hidden or "__MACOSX" in parts or parts[-1].lower() in _DESKTOP_FILES


def display_name(name: str) -> str:
    """A name for display: valid Unicode without control characters, at most 255 characters."""
    text = name.encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() or char == "\u200d" else "\ufffd" for char in text[:255])


def _require_picture(head: bytes) -> None:
    if detect_archive(head):
        raise UnsupportedMediaType("archives inside archives are not opened")
    detect_format(head[:64])


def _read(member: _Member, limit: int) -> Iterator[bytes]:
    """The bytes of a member in chunks, at most `limit` of them; one empty chunk for an empty member."""
    if isinstance(member.content, ItemError):
        raise _ItemRefused(member.content)
    if member.size > limit:
        raise ImageTooLarge(f"the file has {member.size:,} bytes; the limit is {limit:,}")
    total = 0
    for chunk in member.content():
        total += len(chunk)
        if total > limit:
            raise ImageTooLarge(f"the file has more than {limit:,} bytes")
        yield chunk
    if total == 0:
        yield b""


def _iter_members(file: BinaryIO, limits: ArchiveLimits, budget: _Budget) -> Iterator[_Member]:
    kind = detect_archive(file.read(ARCHIVE_HEAD))
    file.seek(0)
    if kind == "zip":
        return _iter_zip(file, limits, budget)
    if kind == "tar":
        return _iter_tar(file, budget)
    if kind == "tar.gz":
        return _iter_tar(gzip.GzipFile(fileobj=file, mode="rb"), budget)
    raise UnsupportedMediaType("this is not a zip, tar or tar.gz archive")


def _iter_zip(file: BinaryIO, limits: ArchiveLimits, budget: _Budget) -> Iterator[_Member]:
    entries, size = _read_directory_size(file)
    bound = _ENTRIES_PER_MEMBER * limits.max_members + 100
    if entries > bound or size > bound * _DIRECTORY_BYTES_PER_MEMBER:
        raise ArchiveLimit(f"the archive has more than {limits.max_members:,} members")
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
            if info.is_dir() or kind == stat.S_IFDIR:
                continue
            content: Callable[[], Iterator[bytes]] | ItemError = partial(_read_zip_member, archive, info, budget)
            if kind not in (0, stat.S_IFREG):
                content = _SPECIAL
            elif info.flag_bits & 1:
                content = _ENCRYPTED
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                content = _METHOD
            yield _Member(info.filename, info.file_size, content)


def _read_directory_size(file: BinaryIO) -> tuple[int, int]:
    """Entries and bytes of the central directory of a zip, as it claims, before zipfile loads all of it."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - (1 << 16) - 22)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise ArchiveCorrupt("the zip archive is cut off: its central directory is missing")
    entries, size = struct.unpack("<HI", tail[at + 10 : at + 16])
    wide = start + at - 76  # zip64: a record of 56 bytes and a locator of 20 before the end
    if wide >= 0:
        file.seek(wide)
        record = file.read(56)
        if record[:4] == b"PK\6\6":
            entries, size = struct.unpack("<QQ", record[32:48])
    file.seek(0)
    return entries, size


def _read_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget) -> Iterator[bytes]:
    try:
        with archive.open(info) as source:
            while chunk := source.read(_CHUNK):
                budget.spend(len(chunk))
                yield chunk
    except _ZIP_DAMAGE as error:  # only this member is damaged
        raise _ItemRefused(_DAMAGED) from error


def _iter_tar(source: _Readable, budget: _Budget) -> Iterator[_Member]:
    # As a stream, tarfile reads forwards only, so that the bytes that it skips count as well.
    counted = cast(IO[bytes], _CountingReader(source, budget))
    with tarfile.open(fileobj=counted, mode="r|", tarinfo=StrictTarInfo) as archive:
        for info in archive:
            if info.isdir():
                continue
            content: Callable[[], Iterator[bytes]] | ItemError = partial(_read_tar_member, archive, info)
            if info.issparse():
                content = _SPARSE
            elif not info.isreg():
                content = _SPECIAL
            yield _Member(info.name, max(0, info.size), content)


def _read_tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    source = archive.extractfile(info)
    while source is not None and (chunk := source.read(_CHUNK)):
        yield chunk


class StrictTarInfo(tarfile.TarInfo):
    """Raises ArchiveCorrupt for a header that is damaged or cut off; tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise ArchiveCorrupt("the archive is cut off or damaged") from error


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _CountingReader:
    """A stream whose bytes count against a budget."""

    def __init__(self, source: _Readable, budget: _Budget) -> None:
        self._source, self._budget = source, budget

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._budget.spend(len(data))
        return data
