"""Looks into archives before they are sent: whether the server takes them, and whether it has their pictures."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from app.cli.answers import Limits
from app.cli.client import Client
from app.decode.headers import has_picture_suffix
from app.decode.litter import is_litter
from app.decode.metadata_files import is_metadata_file, normalise_name
from app.decode.sidecars import match_sidecar_paths, sidecar_extension
from app.decode.video_header import is_accepted

MAX_GZIP_RATIO = 1_032
TAKEOUT_MARK = b'"photoTakenTime"'
FIRST = 16  # pictures of a zip that are looked up before all others
DIGESTS_PER_CALL = 1000
BLOCK_BYTES = 1 << 20
WAYS_OUT = (
    "Split it; or unpack it and load the folder; or put the folder on the server's machine and load folder:PATH."
    " The server's operator may raise {setting}"
)
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


def find_excess(path: Path, size: int, limits: Limits) -> str | None:
    """Why the server would refuse an archive for its size, and the ways out; None if it will not."""
    if size > limits.max_archive_bytes:
        return excess(f"has {size:,} bytes", f"{limits.max_archive_bytes:,}", "SIGHTLINE_MAX_ARCHIVE_BYTES")
    if size > limits.max_upload_bytes:
        return excess(f"has {size:,} bytes", f"{limits.max_upload_bytes:,}", "SIGHTLINE_MAX_UPLOAD_BYTES")
    sizes = _size_pictures(path)
    if len(sizes) > limits.max_archive_members:
        count = f"{limits.max_archive_members:,}"
        return excess(f"has {len(sizes):,} pictures", count, "SIGHTLINE_MAX_ARCHIVE_MEMBERS")
    expanded = max(sum(sizes), _read_gzip_size(path))
    if expanded > limits.max_archive_bytes:
        most = f"{limits.max_archive_bytes:,}"
        return excess(f"expands to {expanded:,} bytes", most, "SIGHTLINE_MAX_ARCHIVE_BYTES")
    return None


def excess(what: str, limit: str, setting: str) -> str:
    return f"the archive {what}; the server takes {limit}. {WAYS_OUT.format(setting=setting)}"


def _size_pictures(path: Path) -> list[int]:
    """The sizes of the members of a zip or a plain tar that are pictures by their names; none of a broken archive."""
    try:
        if not tarfile.is_tarfile(path):
            return [info.file_size for info in _list_members(path) if has_picture_suffix(info.filename)]
        with tarfile.open(path, "r:") as archive:  # it seeks from header to header
            members = ((normalise_name(info.name), info.size) for info in archive if info.isreg())
            return [size for name, size in members if has_picture_suffix(name) and not is_litter(name)]
    except (tarfile.TarError, *BROKEN_ZIP):
        return []


def _read_gzip_size(path: Path) -> int:
    """How many bytes a gzip expands to at least, as its end says; 0 for other files."""
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b" or (size := file.seek(0, os.SEEK_END)) < 18:
            return 0
        file.seek(-4, os.SEEK_END)
        expanded = int.from_bytes(file.read(4), "little")
        return expanded if expanded <= MAX_GZIP_RATIO * size else 0  # it is cut off


def _list_members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [
                info
                for info in archive.infolist()
                if not info.is_dir() and not is_litter(normalise_name(info.filename))
            ]
    except BROKEN_ZIP:
        return []


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a zip by its name there."""

    archive: Path
    name: str


def find_parted_sidecars(paths: Sequence[Path]) -> dict[Path, list[Member]]:
    """For each zip what tells about its pictures in the others: Google Takeout puts both into any part."""
    bare: dict[str, Path] = {}  # pictures about which their own zip tells nothing
    lost: dict[str, Member] = {}
    for path in paths:
        members = {normalise_name(info.filename): info.filename for info in _list_members(path)}
        pictures = [name for name in members if has_picture_suffix(name)]
        matched = match_sidecar_paths(pictures, filter(sidecar_extension, members))
        used = {name for found in matched.values() for name in found}
        bare |= {name: path for name in pictures if name not in matched}
        lost |= {name: Member(path, members[name]) for name in members if sidecar_extension(name) and name not in used}
    found: dict[Path, list[Member]] = {}
    for picture, names in match_sidecar_paths(bare, lost).items():
        found.setdefault(bare[picture], []).extend(lost[name] for name in names)
    return found


def add_parted_sidecars(path: Path, sidecars: Sequence[Member], folder: Path) -> Path:
    """A copy in `folder` of a zip with these sidecars of Google Takeout. Raises OSError."""
    copy = Path(shutil.copyfile(path, folder / path.name))
    with zipfile.ZipFile(copy, "a") as archive:
        for member in sidecars:
            with contextlib.suppress(*BROKEN_ZIP), zipfile.ZipFile(member.archive) as other:
                if TAKEOUT_MARK in (data := other.read(member.name)):
                    archive.writestr(member.name, data)
    return copy


def hash_stored_pictures(client: Client, path: Path, *, videos: bool = False) -> list[str] | None:
    """The SHA-256 of the pictures of a zip if the server has all of them, and something said of each; else None.

    A new zip costs the hashes of a few pictures. `videos`: the server takes them, and must have those of the zip, too.
    """
    members = _list_members(path)
    pictures = [info for info in members if is_accepted(info.filename, None, videos=videos)]
    says_more = any(
        is_metadata_file(normalise_name(one.filename)) or sidecar_extension(one.filename) for one in members
    )
    digests: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            hashes = _hash_members(archive, pictures)
            for count in (FIRST, len(pictures)):
                digests += (part := list(islice(hashes, count)))
                if not _are_stored(client, part, says_more):
                    return None
    except BROKEN_ZIP:
        return None
    return digests or None


def _hash_members(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    for info in members:
        digest = hashlib.sha256()
        with archive.open(info) as member:
            while block := member.read(BLOCK_BYTES):
                digest.update(block)
        yield digest.hexdigest()


def _are_stored(client: Client, digests: Sequence[str], says_more: bool) -> bool:
    """Whether the server has all of them; of an archive that `says_more` of them, with something said of each."""
    for start in range(0, len(digests), DIGESTS_PER_CALL):
        part = set(digests[start : start + DIGESTS_PER_CALL])
        known = client.find_known(sorted(part))
        if part - known.keys() or (says_more and any(len(lacks) == 3 for lacks in known.values())):
            return False
    return True
