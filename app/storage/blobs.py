"""Bytes to disk and back: `media/ab/cd/<sha256>` for pictures, `thumbnails/ab/cd/<sha256>.webp` or `.jpg`.

`BlobStore` keeps them in the data directory. `app.storage.bucket_blobs` has a store that keeps them in a bucket, and
uses such folders as its cache; what it must do beyond a folder has a method here that does little or nothing.

What is acknowledged has been fsynced: file, then name, then directory. Uploads arrive in folders of their own under
`media/.incoming`, on the same file system, so that taking them in moves no bytes.
`app.storage.gc` removes what killed processes leave here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Self, cast

from app.core.errors import BlobMissing, map_os_errors
from app.core.files import fsync_dir, link_or_copy, make_dirs, sha256_file
from app.core.metrics import ProcessMetrics

PHOTOGRAPHS = frozenset({"jpeg", "heic", "raw"})  # formats for which a JPEG as thumbnail costs the least (decision 26)
MAX_VERIFIED = 1 << 16  # files whose digest is remembered as right
INCOMING = ".incoming"  # the folder of uploads that wait
COPIES = ".reading"  # the folder of copies of pictures that decode children read


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A complete, fsynced file that is not yet in its place."""

    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine with the bytes of a picture, until `close`; a copy goes then."""

    path: Path
    is_copy: bool = False

    def close(self) -> None:
        if self.is_copy:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BlobStore:
    """The files of one data directory."""

    is_remote = False  # whether the bytes are elsewhere, so that reading and writing them takes long
    fault: str | None = None  # why the place of the bytes cannot be reached

    def __init__(self, data_dir: Path, metrics: ProcessMetrics | None = None) -> None:
        self._metrics = metrics or ProcessMetrics()
        self._verified: dict[str, tuple[int, int, int]] = {}  # inode, size and ctime of files with the right digest
        self.root = data_dir / "media"
        self.thumbnails = data_dir / "thumbnails"
        self.incoming = self.root / INCOMING
        self._durable: set[str] = set()  # folders whose names are on the disk
        with map_os_errors():
            make_dirs(self.incoming)
            self.thumbnails.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """End what the store has begun."""

    def claim(self, installation: str, *, has_files: bool) -> None:
        """Take the place of the files for a database. Raises StartupError where they are another's, or cannot be."""

    def path(self, sha256: str) -> Path:
        """Where the picture with these bytes lies on this machine, or would lie."""
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def thumbnail_path(self, sha256: str, format: str) -> Path:
        """Where its thumbnail lies, or would lie: a JPEG for a photograph (`PHOTOGRAPHS`), else a WebP."""
        return self.thumbnails / sha256[:2] / sha256[2:4] / f"{sha256}.{'jpg' if format in PHOTOGRAPHS else 'webp'}"

    def create_upload_dir(self) -> Path:
        """A new, empty folder for the files of one request."""
        path = self.incoming / uuid.uuid4().hex
        with map_os_errors():
            path.mkdir()
        return path

    def upload_path(self, job_id: str, n: int) -> Path:
        """Where upload `n` of a job waits until a worker takes it in."""
        return self.incoming / f"{job_id}-{n}"

    def delete_upload(self, job_id: str, n: int) -> None:
        """Remove upload `n` of a job, which no worker will take in (any more)."""
        upload = self.upload_path(job_id, n)
        remove_path(upload)
        remove_path(upload.with_name(upload.name + ".members"))

    def stage(self, path: Path) -> StagedFile:
        """Hash and fsync a file of an upload folder."""
        with map_os_errors(), open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            with self._metrics.fsyncs.time():
                os.fsync(file.fileno())
        self.is_intact(digest)  # remembers it: `Library.insert` asks again while it holds the write lock
        return StagedFile(path, digest, size)

    def put(self, staged: Sequence[StagedFile]) -> None:
        """Bring bytes to where they outlive this machine. The caller then writes rows, with `confirm` and `place`.

        Raises StorageUnavailable, StorageFull.
        """

    def confirm(self, staged: Sequence[StagedFile]) -> None:
        """Make sure that nobody has removed what `put` brought. The caller holds the write transaction of the rows."""

    def place(self, staged: StagedFile, *, is_new: bool = True) -> None:
        """Link the file to its place, where it is after a power cut too. The caller holds a write transaction.

        Bytes that are not new stay as they are, unless they were lost or altered. The file stays where it was as well,
        until its upload folder is removed: should the transaction around this fail or be killed, a worker can import
        the upload again.
        """
        if not is_new and self.is_intact(staged.sha256):
            return
        target = self.path(staged.sha256)
        linked = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        with map_os_errors():
            self._make_durable(target.parent)
            link_or_copy(staged.path, linked)
            linked.replace(target)
            linked.unlink(missing_ok=True)  # rename leaves both names when they are one file already
            fsync_dir(target.parent)

    def _make_durable(self, folder: Path) -> None:
        """Make a folder so that it survives a power cut.

        A folder that exists may have been made by another process, or left by one that was killed, before its name
        was on the disk. So a process trusts only the names that it saw before it synced the folder around them.
        """
        if str(folder) in self._durable and folder.is_dir():
            return
        parent = folder.parent
        if folder != self.root:
            self._make_durable(parent)
        folder.mkdir(exist_ok=True)
        seen = os.listdir(parent)  # noqa: PTH208 (it takes a tenth as long)
        fsync_dir(parent)
        self._durable.update(f"{parent}/{name}" for name in seen)

    def find_existing(self, digests: Iterable[str]) -> set[str]:
        """Those of the digests whose bytes are there."""
        return {digest for digest in digests if self.path(digest).exists()}

    def fetch(self, sha256: str) -> LocalFile:
        """A file with the picture's bytes for a decode child. Raises BlobMissing when they are gone."""
        path = self.path(sha256)
        with map_os_errors():
            if not path.exists():
                raise BlobMissing("the file of this picture is missing")
        return LocalFile(path)

    def keep_thumbnail(self, path: Path) -> None:
        """Bring a thumbnail that was made at its `thumbnail_path` to where other machines find it."""

    def fetch_thumbnail(self, path: Path) -> BinaryIO | None:
        """The open thumbnail of this path; None if none is made."""
        try:
            return open(path, "rb")
        except FileNotFoundError:
            return None

    def keep_upload(self, job_id: str, n: int, path: Path, leave: Container[str] = ()) -> None:
        """Bring the file, or the files of the folder but `leave`, of an upload to where other machines find it.

        The caller writes its row afterwards, and moves it to its `upload_path`. Raises StorageUnavailable,
        StorageFull.
        """

    def fetch_upload(self, job_id: str, n: int) -> None:
        """Bring an upload to its `upload_path`, if it is not there. Raises StorageUnavailable, StorageFull."""

    def find_origin(self) -> str | None:
        """The origin of the URLs of `sign`; None where there are none."""
        return None

    def sign(self, sha256: str) -> str | None:
        """A URL under which clients may read the bytes for a short time; None where there is none."""
        return None

    def open(self, sha256: str) -> BinaryIO:
        """The picture's bytes. Raises BlobMissing when the file is gone."""
        try:
            with map_os_errors():
                return open(self.path(sha256), "rb")
        except FileNotFoundError:
            raise BlobMissing("the file of this picture is missing; run `sightline verify`") from None

    def delete(self, sha256: str) -> None:
        """Remove the picture, its thumbnails of every size, and what a killed process was making of either.

        The caller holds a write transaction in which no row has these bytes.
        """
        self._verified.pop(sha256, None)
        with map_os_errors():
            for folder in (self.path(sha256).parent, self.thumbnail_path(sha256, "").parent):
                with suppress(FileNotFoundError):
                    for name in os.listdir(folder):  # noqa: PTH208 (faster than Path.glob, while others wait)
                        if name.startswith((sha256, f".{sha256}")):
                            (folder / name).unlink(missing_ok=True)

    def has_digest(self, sha256: str) -> bool:
        """Whether the file is there with exactly the bytes of its name; reads all of them."""
        try:
            return sha256_file(self.path(sha256)) == sha256
        except OSError:
            return False

    def is_intact(self, sha256: str) -> bool:
        """Like `has_digest`, but reads the bytes only once, and again when the file was changed or replaced since."""
        try:
            with open(self.path(sha256), "rb") as file:
                return self.is_intact_file(file, sha256)
        except OSError:
            return False

    def is_intact_file(self, file: BinaryIO, sha256: str) -> bool:
        """Like `is_intact`, of an open file, which may have no name any more. Raises OSError."""
        held = os.fstat(file.fileno())
        seen = (held.st_ino, held.st_size, held.st_ctime_ns)  # only the kernel sets the last
        if self._verified.get(sha256) != seen:
            found = hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
            file.seek(0)
            if found != sha256:
                return False
            if len(self._verified) >= MAX_VERIFIED:
                self._verified.clear()
            self._verified[sha256] = seen
        return True

    def has_files(self) -> bool:
        """Whether there is any picture file."""
        return any(len(path.name) == 64 for path in self.root.glob("??/??/*"))

    def iter_files(self) -> Iterator[Path]:
        """Every file below `media/` and `thumbnails/`, whatever its name, but those of uploads and copies."""
        for root in (self.root, self.thumbnails):
            for folder, below, names in os.walk(root):
                below[:] = [name for name in below if name not in (INCOMING, COPIES)]
                yield from (Path(folder, name) for name in names)

    def remove_copies(self, seconds: float) -> int:
        """Remove what `fetch` copied `seconds` ago, and a killed process has left; returns how many."""
        return 0  # nothing is copied


def measure_file(file: BinaryIO) -> int:
    """The bytes of an open file, which is at its beginning then."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def remove_path(path: Path) -> None:
    """Remove a file or a folder, if it is still there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
