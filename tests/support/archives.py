"""Build archives, and expand them as the service does."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import SightlineError
from app.decode.archive import expand_archive
from app.decode.left_out import LEFT_OUT_FILE, LeftOut
from app.decode.limits import ArchiveLimits, PictureLimits
from tests.support.sample_pictures import sample

LIMITS = ArchiveLimits()
PNG = sample("png")


def make_zip(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def make_tar(members: Mapping[str, bytes | tarfile.TarInfo], format_: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as archive:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


class ExpandedArchive:
    """The result of `expand_archive`: the items of its manifest, and the files in its folder."""

    def __init__(self, data: bytes, folder: Path, limits: ArchiveLimits = LIMITS) -> None:
        path = folder / "upload"
        path.write_bytes(data)
        self.folder = folder / "expanded"
        lines = expand_archive(path, self.folder, limits, PictureLimits()).read_text().splitlines()
        self.items: list[dict[str, Any]] = [json.loads(line) for line in lines]
        assert [item["n"] for item in self.items] == list(range(1, len(lines) + 1))
        report = self.folder / LEFT_OUT_FILE
        left_out = {LEFT_OUT_FILE} if report.exists() else set()
        self.left_out = LeftOut.from_json(json.loads(report.read_text())) if left_out else LeftOut()
        written = {item["file"] for item in self.items if item["file"]}
        assert {entry.name for entry in self.folder.iterdir()} == written | {"manifest.jsonl"} | left_out
        assert {entry.name for entry in folder.iterdir()} == {"upload", "expanded"}

    def codes(self) -> dict[str, str | None]:
        return {item["name"]: item["error"] and item["error"]["code"] for item in self.items}


def expand_refused(data: bytes, folder: Path, limits: ArchiveLimits = LIMITS) -> SightlineError:
    """The error of an archive that must be refused as a whole."""
    with pytest.raises(SightlineError) as caught:
        ExpandedArchive(data, folder, limits)
    assert list((folder / "expanded").iterdir()) == []
    return caught.value
