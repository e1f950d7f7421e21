"""Bytes to disk and back: `media/ab/cd/<sha256>` for pictures, `thumbnails/ab/cd/<sha256>.webp` or `.jpg`.

What is acknowledged has been fsynced: file, then name, then directory. Uploads arrive in folders of
their own under `media/.incoming`, on the same file system, so that taking them in moves no bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.core.errors import BlobMissing, map_os_errors
from app.core.metrics import ProcessMetrics

CHUNK_BYTES = 1 << 20
MAX_VERIFIED = 1 << 16  # files known to be whole


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A complete, fsynced file that is not yet in its place."""

    path: Path
    sha256: str
    bytes: int


class BlobStore:
    """The files of one data directory."""

    def __init__(self, data_dir: Path, metrics: ProcessMetrics | None = None) -> None:
        self._metrics = metrics or ProcessMetrics()
        self._whole: dict[str, tuple[int, int, int]] = {}  # files that have the bytes of their names
        self.root = data_dir / "media"
        self.thumbnails = data_dir / "thumbnails"
        self.incoming = self.root / ".incoming"
        self._kept: set[str] = set()  # folders whose names are on the disk
        with map_os_errors():
            make_folder(self.incoming)
            self.thumbnails.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the picture with these bytes lies, or would lie."""
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def thumbnail_path(self, sha256: str, format: str) -> Path:
        """Where its thumbnail lies, or would lie: that of a JPEG is one too, all others are WebPs."""
        return self.thumbnails / sha256[:2] / sha256[2:4] / f"{sha256}.{'jpg' if format == 'jpeg' else 'webp'}"

    def create_upload_dir(self) -> Path:
        """A new, empty folder for one upload."""
        path = self.incoming / uuid.uuid4().hex
        with map_os_errors():
            path.mkdir()
        return path

    def upload_path(self, job_id: str, n: int) -> Path:
        """Where upload `n` of a job waits to be taken in."""
        return self.incoming / f"{job_id}-{n}"

    def delete_upload(self, id: str, n: int) -> None:
        """Remove upload `n` of a job that nobody will take in (any more)."""
        upload = self.upload_path(id, n)
        remove_path(upload)
        remove_path(upload.with_name(upload.name + ".members"))

    def stage(self, path: Path) -> StagedFile:
        """Hash and fsync a file of an incoming folder."""
        digest = hashlib.sha256()
        size = 0
        with map_os_errors(), open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
            with self._metrics.time_fsync():
                os.fsync(file.fileno())
        self.is_intact(
            digest.hexdigest()
        )  # looked at here: whoever takes it in asks in a transaction, where others wait
        return StagedFile(path, digest.hexdigest(), size)

    def place(self, saved: StagedFile) -> None:
        """Link the file to its place, where it is after a power cut too.

        The file stays where it was as well, until its incoming folder is discarded: should the transaction
        around this fail or be killed, the upload can be taken in again.
        """
        target = self.path(saved.sha256)
        linked = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        with map_os_errors():
            self._make(target.parent)
            os.link(saved.path, linked)
            linked.replace(target)
            linked.unlink(missing_ok=True)  # rename leaves both names when they are one file already
            sync_folder(target.parent)

    def _make(self, folder: Path) -> None:
        """Make a folder so that it survives a power cut.

        One that is there may have been made by another process, or left by one that was killed, and its name not be
        on the disk: a process believes that only of what it saw there before it synced the folder around it.
        """
        if str(folder) in self._kept and folder.is_dir():
            return
        parent = folder.parent
        if folder != self.root:
            self._make(parent)
        folder.mkdir(exist_ok=True)
        seen = os.listdir(parent)  # noqa: PTH208 (it takes a tenth as long)
        sync_folder(parent)
        self._kept.update(f"{parent}/{name}" for name in seen)

    def open(self, sha256: str) -> BinaryIO:
        """The picture's bytes. Raises BlobMissing when somebody has removed the file."""
        try:
            return open(self.path(sha256), "rb")
        except FileNotFoundError:
            raise BlobMissing("the file of this picture is missing; run `sightline verify`") from None

    def delete(self, sha256: str) -> None:
        """Remove the picture and its thumbnails of every size."""
        self._whole.pop(sha256, None)
        with map_os_errors():
            self.path(sha256).unlink(missing_ok=True)
            for path in self.thumbnail_path(sha256, "").parent.glob(f"{sha256}*"):
                path.unlink(missing_ok=True)

    def has_digest(self, sha256: str) -> bool:
        """Whether the file is there with exactly the bytes of its name."""
        try:
            with open(self.path(sha256), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return False

    def is_intact(self, sha256: str) -> bool:
        """Like `intact`, but the bytes are read only once, and again when the file was changed or replaced since."""
        try:
            held = self.path(sha256).stat()
        except OSError:
            return False
        seen = (held.st_ino, held.st_size, held.st_ctime_ns)  # nobody but the kernel sets the last
        if self._whole.get(sha256) != seen:
            if not self.has_digest(sha256):
                return False
            if len(self._whole) >= MAX_VERIFIED:
                self._whole.clear()
            self._whole[sha256] = seen
        return True

    def iter_files(self) -> Iterator[tuple[str, Path]]:
        """Every picture file: (sha256, path)."""
        for path in self.root.glob("??/??/*"):
            if len(path.name) == 64:
                yield path.name, path

    def iter_stray_thumbnails(self) -> Iterator[str]:
        """The digests whose thumbnails are here, but not the picture itself."""
        for path in self.thumbnails.glob("??/??/*.webp"):
            digest = path.name[:64]
            if not self.path(digest).exists():
                yield digest

    def sweep(self, keep: Collection[str], grace: float) -> int:
        """Remove what interrupted uploads left in `.incoming`, save the names in `keep` and the young.

        `grace` is in seconds; returns how many were removed.
        """
        removed = 0
        for path in self.incoming.iterdir():
            if path.name not in keep and is_older(path, grace):
                remove_path(path)
                removed += 1
        return removed


def is_older(path: Path, seconds: float) -> bool:
    """Whether a file was last changed more than `seconds` ago; False when it is gone."""
    try:
        return time.time() - path.stat().st_mtime >= seconds
    except FileNotFoundError:
        return False


def make_folder(path: Path) -> None:
    """Make a folder and its parents so that they survive a power cut."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """fsync a directory: its names are then on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_path(path: Path) -> None:
    """Remove a file or a folder, if it is still there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
