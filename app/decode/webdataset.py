"""A shard of a webdataset: a plain tar whose neighbouring members share a key. Runs in a decode child.

Only headers, captions and facts are read; where each picture's bytes lie is noted, and nothing is extracted. What is
damaged or odd is noted one by one; a tar that is cut off gives what comes before the cut.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from app.core.errors import ArchiveCorrupt, UnsupportedMediaType, UrlUnreachable
from app.core.files import open_nofollow
from app.core.types import ItemError
from app.decode import webdataset_sidecars
from app.decode.archive import StrictTarInfo, display_name, is_noise
from app.decode.headers import has_picture_suffix
from app.decode.metadata_jsonl import normalise_name

Line = dict[str, Any]

ODD = ItemError("unsupported_media_type", "Links, sparse and other special files are not taken.")
EMPTY = ItemError("validation", "The sample holds no picture.")
CUT = ItemError("archive_corrupt", "The tar is cut off or damaged here; what comes after is not read.")


def list_shard(path: Path, out: Path, most: int) -> int:
    """Write a line for each picture of a tar, with its `offset` and `size`, to `out`; returns how many there are.

    A line has a `name` (that of the member), a `key`, and the `caption`, `tags` and `metadata` that its sample says;
    or an `error`. At most `most` lines are written. Raises UrlUnreachable for a file that cannot be read,
    UnsupportedMediaType for one that is no tar.
    """
    try:
        file = open(path, "rb", opener=open_nofollow)  # noqa: SIM115 (entered below)
    except OSError as error:
        raise UrlUnreachable(f"the file cannot be read: {error.strerror}") from None
    count = 0
    with file, out.open("w", encoding="ascii") as lines:
        for line in _lines(file):
            lines.write(json.dumps(line) + "\n")
            count += 1
            if count >= most:
                break
    return count


def _lines(file: BinaryIO) -> Iterator[Line]:
    sample: _Sample | None = None
    end = os.fstat(file.fileno()).st_size
    try:
        for info in _members(file):
            name = normalise_name(info.name)
            if info.isdir() or is_noise(name):
                continue
            key, extension = webdataset_sidecars.split_key(name)
            if sample is None or sample.key != key:
                if sample is not None:
                    yield from sample.lines()
                sample = _Sample(key)
            if info.offset_data + max(0, info.size) > end:
                raise ArchiveCorrupt(CUT.detail)
            sample.take(file, info, extension)
    except (tarfile.TarError, ArchiveCorrupt, OSError, ValueError, OverflowError):
        if sample is None:
            raise UnsupportedMediaType("this is not a tar, or its beginning is damaged") from None
        yield from sample.lines()
        yield {"name": "", "error": _told(CUT)}
        return
    if sample is not None:
        yield from sample.lines()


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=file, mode="r:", tarinfo=StrictTarInfo) as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # which would grow with the tar
            yield info


class _Sample:
    """The members of one key so far."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._pictures: list[Line] = []
        self._said: dict[str, webdataset_sidecars.SidecarFields | ItemError] = {}

    def take(self, file: BinaryIO, info: tarfile.TarInfo, extension: str) -> None:
        """Note a member; what is neither a picture nor said of one is left out."""
        if has_picture_suffix(info.name):
            odd = info.issparse() or not info.isreg()
            where = {"error": _told(ODD)} if odd else {"offset": info.offset_data, "size": info.size}
            self._pictures.append({"name": display_name(info.name), **where})
        elif extension in webdataset_sidecars.MAX_SIDECAR_BYTES and info.isreg():
            most = webdataset_sidecars.MAX_SIDECAR_BYTES[extension]
            if info.size > most:
                self._said[extension] = webdataset_sidecars.too_large_error(extension)
                return
            file.seek(info.offset_data)
            self._said[extension] = webdataset_sidecars.parse_sidecar(extension, file.read(info.size))

    def lines(self) -> Iterator[Line]:
        """What there is to say of each picture."""
        said = webdataset_sidecars.merge_sidecars(self._said)
        for line in self._pictures or [{"name": display_name(self.key), "error": _told(EMPTY)}]:
            if "error" in line:
                yield line
            elif isinstance(said, ItemError):
                yield {"name": line["name"], "error": _told(said)}
            else:
                yield {**line, "key": self.key, **said}


def _told(error: ItemError) -> dict[str, str]:
    return {"code": error.code, "detail": error.detail}
