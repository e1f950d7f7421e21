"""Expand zip, tar and tar.gz archives, read as streams of members within limits. Runs in a decode child.

The name of a member is never used as a path, the libraries extract no files, and the limits count the bytes that were
really read. An archive above a limit, or cut off, is refused as a whole; a bad member fails alone.
"""

from __future__ import annotations

import gzip
import json
import os
import re
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
from app.decode import sidecars
from app.decode.headers import (
    ARCHIVE_HEAD,
    HEAD_BYTES,
    detect_archive,
    detect_format,
    has_no_suffix,
    has_picture_suffix,
    read_header,
)
from app.decode.left_out import LEFT_OUT_FILE, LeftOut
from app.decode.limits import ArchiveLimits, PictureLimits
from app.decode.litter import is_litter
from app.decode.metadata_files import (
    MAX_METADATA_FILE_BYTES,
    METADATA_FIELDS,
    METADATA_FILE,
    MetadataFiles,
    is_metadata_file,
    normalise_name,
)
from app.decode.video_header import detect_video, has_video_suffix, is_video_file, read_video_header, warn_of_videos

MANIFEST = "manifest.jsonl"
_CHUNK = 1 << 16
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz")  # which are refused by name: they may hold pictures
_DIRECTORY_BYTES_PER_MEMBER = 1 << 10  # of a zip: far more than a name and its fields need
_EXTENDED_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
MAX_EXTENDED_HEADER = 16 << 10  # bytes of one PAX or GNU header: two longest paths, times, and attributes of a system
# Before 3.11.10, 3.12.6 and 3.13 tarfile looks for a character set with an expression that takes the square of the
# longest run of digits (CVE-2024-6232): 80,000 of them, which gzip makes 154 bytes of, took 6 s.
_DIGITS = re.compile(rb"[0-9]{65}")
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
PART_OF_TAKEOUT = "part_of_takeout"  # a warning
LOST_PICTURES = (
    "{:,} files of Google Takeout tell about pictures of other parts; give all parts to one `sightline ingest`, or"
    " unpack them into one folder"
)
_CUT_ZIP = "the zip archive is cut off: its central directory is missing"
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
    refused), bytes, error ({code, detail} or null), id, caption, tags, metadata and warnings. Folders, hidden files and
    litter are no items, nor are sidecars (`app.decode.sidecars`) and metadata files; members of other kinds are counted
    in LEFT_OUT_FILE beside the manifest.
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
        self._metadata = MetadataFiles()
        self._sidecars: dict[str, sidecars.SidecarFields] = {}  # by name
        self._left_out = LeftOut()
        self._items: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._entries = 0

    def add(self, member: _Member) -> None:
        """Write one member, or note why it is refused."""
        self._entries += 1
        if self._entries > _ENTRIES_PER_MEMBER * self.limits.max_members + 100:
            raise ArchiveLimit(f"the archive has more than {self.limits.max_members:,} members")
        name = normalise_name(member.name)
        if is_litter(name) or (is_metadata_file(name) and self._read_metadata(name, member)):
            return
        if (extension := sidecars.sidecar_extension(name)) is not None:
            self._sidecars[name] = self._read_sidecar(extension, name, member)
        elif (
            has_picture_suffix(name, self.pictures.formats)
            or self._is_video(name)
            or has_no_suffix(name)
            or name.lower().endswith(_ARCHIVE_SUFFIXES)
        ):
            self._add_picture(name, member)
        else:
            self._left_out.add(name)

    def _add_picture(self, name: str, member: _Member) -> None:
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
            if has_no_suffix(name) and isinstance(refusal, UnsupportedMediaType):
                target.unlink(missing_ok=True)
                self._left_out.add(name)
                return
        except _ItemRefused as refusal:
            size, error = member.size, refusal.error
        self._note(member.name, None if error else target.name, size, error)
        self._names.append(name)
        if error:
            target.unlink(missing_ok=True)

    def finish(self) -> Path:
        """Add captions and metadata to the items, and write the manifest."""
        matched = self._match_sidecars()
        self._left_out.explain(self.pictures.formats)
        warn_of_videos(self._left_out, self.limits.videos)
        for item, name in zip(self._items, self._names, strict=True):
            beside = [(one.rpartition(".")[2].lower(), self._sidecars[one]) for one in matched.get(name, ())]
            item.update(self._metadata.fields_of(name) or sidecars.merge_sidecars(beside))
        if not any(item["file"] for item in self._items):
            reason = (
                self._items[0]["error"]["detail"]
                if self._items
                else "; ".join([self._left_out.describe(), *(one.detail for one in self._left_out.warnings)])
            )
            raise ArchiveCorrupt("the archive holds no pictures" + (f": {reason}" if reason else ""))
        for error in self._metadata.find_problems():
            self._note(METADATA_FILE, None, 0, error)
        if self._left_out:
            with atomic_write(self.folder / LEFT_OUT_FILE, durable=False) as file:
                json.dump(self._left_out.to_json(), file)
        path = self.folder / MANIFEST
        with atomic_write(path, durable=False) as file:
            file.writelines(json.dumps(item) + "\n" for item in self._items)
        return path

    def _match_sidecars(self) -> dict[str, list[str]]:
        """The sidecars of each picture by its name; counts those that belong to none."""
        matched = sidecars.match_sidecar_paths(self._names, self._sidecars)
        others = self._sidecars.keys() - {one for found in matched.values() for one in found}
        for name in others:
            self._left_out.add(name)
        if lost := sum(sidecars.is_of_lost_picture(self._sidecars[name]) for name in others):
            self._left_out.warn(PART_OF_TAKEOUT, LOST_PICTURES.format(lost))
        return matched

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
        is_video = self._is_video(normalise_name(member.name))
        limit = self.limits.videos.max_bytes if is_video else min(self.limits.max_member_bytes, self.pictures.max_bytes)
        with target.open("xb") as out:
            for count, chunk in enumerate(_read(member, limit)):
                if count == 0 and not (is_video and detect_video(chunk)):
                    _require_picture(chunk, self.pictures)
                out.write(chunk)
            size = out.tell()
        with target.open("rb") as file:
            if is_video and is_video_file(file):
                read_video_header(file, self.limits.videos, self.pictures)
            else:
                read_header(file, self.pictures)
        return size

    def _is_video(self, name: str) -> bool:
        """Whether a member is an accepted video by its name."""
        return self.limits.videos.refusal is None and has_video_suffix(name)

    def _read_sidecar(self, extension: str, name: str, member: _Member) -> sidecars.SidecarFields:
        name = display_name(name.rpartition("/")[2])
        try:
            data = b"".join(_read(member, sidecars.MAX_SIDECAR_BYTES[extension]))
        except ImageTooLarge as error:
            return sidecars.refuse_sidecar(extension, f"{name}: {error.detail}")
        except _ItemRefused as refusal:
            return sidecars.refuse_sidecar(extension, f"{name}: {refusal.error.detail}")
        return sidecars.parse_sidecar(extension, data, name)

    def _read_metadata(self, name: str, member: _Member) -> bool:
        """Read a metadata file; False if it is none by its content."""
        try:
            return self._metadata.read(name, b"".join(_read(member, MAX_METADATA_FILE_BYTES)))
        except ImageTooLarge:
            self._metadata.problems.append(
                ItemError("validation", f"{METADATA_FILE} has more than {MAX_METADATA_FILE_BYTES:,} bytes")
            )
        except _ItemRefused as refusal:
            self._metadata.problems.append(refusal.error)
        return True


class _ItemRefused(Exception):
    """A member is refused, for a reason of the archive and not of the picture."""

    def __init__(self, error: ItemError) -> None:
        super().__init__(error.detail)
        self.error = error


def display_name(name: str) -> str:
    """A name for display: valid Unicode without control characters, at most 255 characters."""
    text = name.encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() or char == "\u200d" else "\ufffd" for char in text[:255])


def _require_picture(head: bytes, pictures: PictureLimits) -> None:
    if detect_archive(head):
        raise UnsupportedMediaType("archives inside archives are not opened")
    detect_format(head[:HEAD_BYTES], pictures.formats)


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
        raise ArchiveCorrupt(_CUT_ZIP)
    entries, size, begin = struct.unpack("<HII", tail[at + 10 : at + 20])
    at += start
    wide = at - 76  # zip64: a record of 56 bytes and a locator of 20 before the end
    if wide >= 0:
        file.seek(wide)
        record = file.read(56)
        if record[:4] == b"PK\6\6":
            entries, size, begin = struct.unpack("<QQQ", record[32:56])
            at = wide
    if begin + size != at:  # the directory of a zip inside this one
        raise ArchiveCorrupt(_CUT_ZIP)
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
    """Raises ArchiveCorrupt for a header that is damaged or cut off; tarfile takes it for the end of the archive.

    Also for a PAX or GNU header that is larger, or would take longer to parse, than any that a program writes.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise ArchiveCorrupt("the archive is cut off or damaged") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED_TYPES and not 0 <= info.size <= MAX_EXTENDED_HEADER:
            raise ArchiveCorrupt(f"a header of the archive has {info.size:,} bytes; {MAX_EXTENDED_HEADER:,} are read")
        return info

    def _proc_pax(self, archive: Any) -> Any:
        stream = archive.fileobj
        content = stream.read(-(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        if _DIGITS.search(content):
            raise ArchiveCorrupt("a header of the archive is damaged: it holds a number of more than 64 digits")
        archive.fileobj = _ReadAgain(archive, stream, content)
        return super()._proc_pax(archive)  # type: ignore[misc]


class _ReadAgain:
    """Gives a tar, once, the bytes that were read of its stream before."""

    def __init__(self, archive: Any, stream: Any, content: bytes) -> None:
        self._archive, self._stream, self._content = archive, stream, content

    def read(self, size: int) -> bytes:
        self._archive.fileobj = self._stream
        return self._content


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
