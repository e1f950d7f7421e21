"""List a shard of a webdataset, a plain tar whose neighbouring members share a key. Runs in a decode child.

It reads only headers and sidecars, and notes the place of each picture's bytes; it extracts no files. A bad member
becomes an error of its own; a tar that is cut off gives the members before the cut.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from app.core.errors import ArchiveCorrupt, UnsupportedMediaType, UrlUnreachable
from app.core.files import open_nofollow
from app.core.types import ItemError
from app.decode import sidecars
from app.decode.archive import StrictTarInfo, display_name
from app.decode.headers import has_picture_suffix
from app.decode.left_out import LeftOut
from app.decode.litter import is_litter
from app.decode.metadata_files import normalise_name

Line = dict[str, Any]

SPECIAL = ItemError("unsupported_media_type", "links, sparse and other special files are not accepted")
CUT = ItemError("archive_corrupt", "the tar is cut off or damaged here; the rest is not read")


def list_shard(path: Path, out: Path, max_lines: int) -> int:
    """Write a line for each picture of a tar to `out`, at most `max_lines`; returns their number.

    A line has the `name` of the member, its `offset` and `size`, the `key`, and the `caption`, `tags` and `metadata` of
    the sample; or an `error`. The last may have `left_out`: the members of samples without a picture.
    Raises UrlUnreachable for a file that cannot be read, UnsupportedMediaType for no tar.
    """
    try:
        file = open(path, "rb", opener=open_nofollow)  # noqa: SIM115 (entered below)
    except OSError as error:
        raise UrlUnreachable(f"the file cannot be read: {error.strerror}") from None
    count = 0
    with file, out.open("w", encoding="ascii") as lines:
        for line in _iter_lines(file):
            lines.write(json.dumps(line) + "\n")
            count += 1
            if count >= max_lines:
                break
    return count


def _iter_lines(file: BinaryIO) -> Iterator[Line]:
    sample: _Sample | None = None
    left_out = LeftOut()
    end = os.fstat(file.fileno()).st_size
    try:
        for info in _iter_members(file):
            name = normalise_name(info.name)
            if info.isdir() or is_litter(name):
                continue
            key, extension = sidecars.split_key(name)
            if sample is None or sample.key != key:
                if sample is not None:
                    yield from sample.lines(left_out)
                sample = _Sample(key)
            if info.offset_data + max(0, info.size) > end:
                raise ArchiveCorrupt(CUT.detail)
            sample.add(file, info, extension)
    except (tarfile.TarError, ArchiveCorrupt, OSError, ValueError, OverflowError):
        if sample is None:
            raise UnsupportedMediaType("this is not a tar, or its beginning is damaged") from None
        yield from sample.lines(left_out)
        yield {"name": "", "error": asdict(CUT)}
        sample = None
    if sample is not None:
        yield from sample.lines(left_out)
    if left_out:
        yield {"left_out": left_out.to_json()}


def _iter_members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=file, mode="r:", tarinfo=StrictTarInfo) as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # which tarfile lets grow with the tar
            yield info


class _Sample:
    """The members of one key so far."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._pictures: list[Line] = []
        self._others: list[str] = []
        self._sidecars: dict[str, sidecars.SidecarFields] = {}

    def add(self, file: BinaryIO, info: tarfile.TarInfo, extension: str) -> None:
        """Note a picture, a sidecar or the name of any other member."""
        if has_picture_suffix(info.name):
            special = info.issparse() or not info.isreg()
            place = {"error": asdict(SPECIAL)} if special else {"offset": info.offset_data, "size": info.size}
            self._pictures.append({"name": display_name(info.name), **place})
            return
        self._others.append(info.name)
        if extension in sidecars.MAX_SIDECAR_BYTES and info.isreg():
            file.seek(info.offset_data)
            data = file.read(min(info.size, sidecars.MAX_SIDECAR_BYTES[extension] + 1))
            self._sidecars[extension] = sidecars.parse_sidecar(extension, data, display_name(info.name))

    def lines(self, left_out: LeftOut) -> Iterator[Line]:
        """A line for each picture; counts the members of a sample without one."""
        if not self._pictures:
            for name in self._others:
                left_out.add(name)
        fields = sidecars.merge_sidecars(self._sidecars.items())
        for line in self._pictures:
            yield line if "error" in line else {**line, "key": self.key, **fields}
