"""The pictures of a folder, in batches of a size that one request carries."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sightline_client.models import Item
from sightline_client.pictures import NamedPicture

SUFFIXES = frozenset(
    {
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".mpo",
            ".png",
            ".apng",
            ".webp",
            ".gif",
            ".avif",
            ".heic",
            ".heif",
            ".hif",
        ),
        *(".tif", ".tiff", ".bmp", ".jxl", ".jp2", ".j2k", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf"),
    }
)
BATCH_FILES, BATCH_BYTES = 250, 32 << 20

Describe = Callable[[Path], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file, its name below the folder, and what is said of it: `caption`, `tags`, `metadata`, `id`."""

    name: str
    path: Path
    bytes: int
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadedFile:
    file: FolderFile
    content: bytes
    sha256: str


@dataclass(slots=True)
class UploadProgress:
    """How far the upload of a folder has come.

    `sent` are files that the server has got, or had before; `failed` those that it refused, or that cannot be read.
    """

    total: int
    sent: int = 0
    done: int = 0
    duplicates: int = 0
    failed: int = 0


@dataclass(slots=True)
class UploadReport(UploadProgress):
    """What became of a folder. `failures` are its items that failed, `unreadable` files with the reason."""

    jobs: list[str] = field(default_factory=list)
    failures: list[Item] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def add(self, sent: SentBatch) -> None:
        self.sent += sent.files
        self.duplicates += sent.duplicates
        self.failed += len(sent.unreadable)
        self.unreadable |= sent.unreadable
        if sent.job is not None and sent.job not in self.jobs:
            self.jobs.append(sent.job)


@dataclass(slots=True)
class SentBatch:
    """What became of a batch: `files` could be read, of which the server had `duplicates`. `unsent` wait for a job."""

    files: int = 0
    duplicates: int = 0
    job: str | None = None
    unsent: list[LoadedFile] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def find_files(folder: str | os.PathLike[str], describe: Describe | None = None) -> list[FolderFile]:
    """The pictures below a folder by their names, without hidden ones. Raises NotADirectoryError."""
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    found = []
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            fields = (describe(path) if describe is not None else None) or {}
            found.append(FolderFile(path.relative_to(root).as_posix(), path, path.stat().st_size, fields))
    return found


def group_into_batches(files: Sequence[FolderFile]) -> Iterator[list[FolderFile]]:
    batch: list[FolderFile] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= BATCH_FILES or size + file.bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.bytes
    if batch:
        yield batch


def load_files(files: Sequence[FolderFile], unreadable: dict[str, str]) -> list[LoadedFile]:
    """The files with their bytes; one that cannot be read is told in `unreadable`."""
    loaded = []
    for file in files:
        try:
            content = file.path.read_bytes()
        except OSError as error:
            unreadable[file.name] = error.strerror or str(error)
            continue
        loaded.append(LoadedFile(file, content, hashlib.sha256(content).hexdigest()))
    return loaded


def pack_files(files: Sequence[LoadedFile]) -> list[NamedPicture]:
    """The parts of one request: pictures of which nothing is said by themselves, the others as a zip that tells it."""
    parts = [NamedPicture(one.file.name, one.content) for one in files if not one.file.fields]
    described = [one for one in files if one.file.fields]
    if described:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for one in described:
                archive.writestr(one.file.name, one.content)
            lines = [json.dumps({"file": one.file.name, **one.file.fields}, ensure_ascii=False) for one in described]
            archive.writestr("metadata.jsonl", "\n".join(lines) + "\n")
        parts.append(NamedPicture("pictures.zip", packed.getvalue()))
    return parts
