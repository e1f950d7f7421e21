"""Keeps the bytes of pictures in a bucket: `media/ab/cd/<sha256>`, `thumbnails/ab/cd/<name>`, `incoming/<job>-<n>`.

A picture is put before the transaction of its row. The garbage collector removes an object only inside a write
transaction that finds no row, and only when it is older than any upload under way can be (`grace_of`). So an object
that `put` has made stays until its row is there. What `put` has found or replaced is not protected by its age: the
collector may have looked at the old one. `confirm` looks for it again inside the transaction of its row, which no
removal can overlap.

The folders of `BlobStore` are the cache of this machine: decode children read files, and have no network.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import tarfile
import threading
import time
import uuid
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from app import __version__
from app.core.clock import now_rfc3339
from app.core.errors import BlobMissing, SightlineError, StartupError, StorageUnavailable, map_os_errors
from app.core.files import link_or_copy
from app.core.metrics import ProcessMetrics
from app.storage.blobs import COPIES, BlobStore, LocalFile, StagedFile, remove_path
from app.storage.manifest import MANIFEST_NAME
from app.storage.object_store import (
    NO_CREDENTIALS,
    PART_BYTES,
    READ_AHEAD,
    WRONG_REGION,
    Bucket,
    ObjectMeta,
    RemoteFile,
)

log = logging.getLogger(__name__)

CACHE_NAME = "media-cache"  # the folder of the cache, in the cache folder
MARKER = "sightline.json"  # names the installation that owns the prefix
GRACE_SECONDS = 3600.0  # of an object that one request writes
LARGE_GRACE_SECONDS = 24 * 3600.0  # of one that is written in parts, and as old as its first part
MAX_PUTS = 1 << 16  # whose moments are remembered
MAX_CACHED = 64 << 20  # bytes of an object that is cached whole; of a larger one the server reads parts
USED_SECONDS = 3600.0  # between two notes that a cached file was used
COPY_BYTES = 1 << 20
KEEPS = re.compile(r"[\w.-]{1,255}")  # names of files of an upload
STORED = ".stored"  # in the folder of an upload: the bucket has it
BINARY = "application/octet-stream"  # of a picture: the server says what it is, and a browser shows none by itself
REMEDIES = {
    "NoSuchBucket": "make the bucket first, or name another one with --media",
    NO_CREDENTIALS: "name credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role of this machine",
    WRONG_REGION: "name the region of the bucket in AWS_REGION",
    "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not the secret of AWS_ACCESS_KEY_ID",
    "RequestTimeTooSkewed": "set the clock of this machine",
}
UNREACHABLE = "is SIGHTLINE_S3_ENDPOINT right, and can this machine reach it?"
DENIED = ("AccessDenied", "AllAccessDisabled", "401", "403")
ALLOW = "allow these credentials to get, put, list and delete objects below it"


class BucketBlobStore(BlobStore):
    """The files of one installation in a bucket; `cache` is a folder of this machine, which may be deleted."""

    is_remote = True

    def __init__(self, bucket: Bucket, cache: Path, max_cache: int, metrics: ProcessMetrics | None = None) -> None:
        super().__init__(cache, metrics)
        self.bucket = bucket
        self.scratch = self.root / COPIES  # copies of pictures that decode children read
        self._max_cache = max_cache
        self._added = max_cache  # bytes since the cache was last measured: it is measured at the first
        self._evicting = threading.Lock()
        self._puts: dict[str, tuple[float, bool]] = {}  # the moment of a put, and whether an object may have been there
        self._removable: dict[str, float] = {}  # digests whose last row has gone, and when to look for them
        with map_os_errors():
            self.scratch.mkdir(exist_ok=True)

    @property
    def fault(self) -> str | None:  # type: ignore[override]
        return self.bucket.fault

    def close(self) -> None:
        self.bucket.close()

    # The place

    def claim(self, installation: str, *, has_files: bool) -> None:
        said = {"installation": installation, "version": __version__, "created_at": now_rfc3339()}
        if not self.require_owner(installation, has_files=has_files):
            with self._explain_faults():
                self.bucket.create(MARKER, json.dumps(said).encode(), "application/json")
            self.require_owner(installation)
        self.probe()

    def require_owner(self, installation: str | None, *, has_files: bool = False) -> bool:
        """Whether anybody has taken the prefix.

        Raises StartupError where that is another installation, or nobody although this one `has_files`.
        """
        with self._explain_faults():
            held = self.bucket.read(MARKER)
        if held is None and has_files:
            raise StartupError(
                f"{self.bucket.name} holds nothing of this database, whose pictures were there: is"
                " SIGHTLINE_S3_ENDPOINT another store, or was the bucket emptied? Nothing was changed"
            )
        if held is not None and (owner := read_owner(held)) != installation:
            raise StartupError(
                f"{self.bucket.name} holds the pictures of another installation ({owner}); name another prefix with"
                " --media, or its database"
            )
        return held is not None

    def probe(self) -> None:
        """Find out what the store can. Raises StartupError where nothing can be written, removed or listed."""
        with self._explain_faults():
            probe = f".probe-{uuid.uuid4().hex}"
            self.bucket.put(probe, b"sightline", BINARY)
            self.bucket.check_exclusive(probe)
            self.bucket.delete([probe])
            next(self.bucket.list_pages("incoming/"), None)

    def is_empty(self) -> bool:
        """Whether the prefix holds nothing, of whatever program. Raises StartupError."""
        with self._explain_faults():
            return not any(self.bucket.list_pages(""))

    @contextmanager
    def _explain_faults(self) -> Iterator[None]:
        """Say with a fault of the bucket what to do, as a StartupError."""
        try:
            yield
        except SightlineError as error:
            if isinstance(error, StartupError):
                raise
            code = self.bucket.fault_code or ""
            remedy = REMEDIES.get(code, ALLOW if code in DENIED else UNREACHABLE)
            reason = f"{error.detail.removesuffix('; try again')}; {remedy}"
            raise StartupError(f"pictures cannot be kept in {self.bucket.name}: {reason}") from None

    # Writing

    def stage(self, path: Path) -> StagedFile:
        """Hash a file of an upload folder; `put` makes it durable."""
        with map_os_errors(), open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return StagedFile(path, digest, file.tell())

    def put(self, staged: Sequence[StagedFile]) -> None:
        self.bucket.run_all(self._put, {one.sha256: one for one in staged}.values())

    def _put(self, staged: StagedFile) -> None:
        """Put one object if it is absent, and note when. An object with other bytes is replaced."""
        began, key = time.monotonic(), media_key(staged.sha256)
        if staged.bytes <= PART_BYTES:
            with map_os_errors():
                data = staged.path.read_bytes()
            is_new = self.bucket.create(key, data, BINARY)
            etag = "" if is_new else hashlib.md5(data, usedforsecurity=False).hexdigest()
        else:
            is_new, etag = False, ""
        held = None if is_new else self.bucket.head(key)
        if not is_new and (held is None or not has_bytes(held, staged.bytes, etag)):
            self._overwrite(staged, key)
        if len(self._puts) >= MAX_PUTS:
            self._puts.clear()  # then `confirm` looks for each
        self._puts[staged.sha256] = (began, not (is_new and self.bucket.is_exclusive))

    def _overwrite(self, staged: StagedFile, key: str) -> None:
        with map_os_errors(), open(staged.path, "rb") as file:
            self.bucket.put(key, file.read() if staged.bytes <= PART_BYTES else file, BINARY)
        held = self.bucket.head(key)
        if held is None or held.bytes != staged.bytes:
            raise StorageUnavailable("the store of the pictures has not kept a picture whole; try again")

    def confirm(self, staged: Sequence[StagedFile]) -> None:
        def is_doubtful(one: StagedFile) -> bool:
            began, was_there = self._puts.get(one.sha256, (0.0, True))
            return was_there or time.monotonic() - began > grace_of(one.bytes) / 2

        def check(one: StagedFile) -> None:
            if self.bucket.head(media_key(one.sha256)) is None:
                self._put(one)

        self.bucket.run_all(check, [one for one in staged if is_doubtful(one)])

    def place(self, staged: StagedFile, *, is_new: bool = True) -> None:
        """Keep a copy in the cache: a worker of this machine reads it next."""
        self._puts.pop(staged.sha256, None)
        self._removable.pop(staged.sha256, None)
        if staged.bytes <= MAX_CACHED:
            with suppress(OSError):  # the cache may be full, or have it
                self._keep(staged.path, self.path(staged.sha256))

    def delete(self, sha256: str) -> None:
        """Forget the cached files; `app.storage.gc` removes the objects, or its next listing does."""
        super().delete(sha256)
        if len(self._removable) < MAX_PUTS:
            self._removable[sha256] = 0.0

    def take_removable(self) -> list[str]:
        """The digests whose objects nothing may use any more; the caller gives back those that are too young."""
        now = time.monotonic()
        taken = [one for one, due in list(self._removable.items()) if due <= now]
        for one in taken:
            self._removable.pop(one, None)
        return taken

    def give_back(self, digests: Iterable[str], seconds: float = 0.0) -> None:
        """Look for these again after so many seconds."""
        self._removable.update(dict.fromkeys(digests, time.monotonic() + seconds))

    def is_old(self, held: ObjectMeta) -> bool:
        """Whether no upload under way can have written an object."""
        return self.bucket.measure_age(held) >= grace_of(held.bytes)

    def find_old(self, digests: Sequence[str]) -> list[str]:
        """Those of the digests whose objects are old or gone."""
        held = self.bucket.run_all(lambda one: self.bucket.head(media_key(one)), digests)
        return [digest for digest, meta in zip(digests, held, strict=True) if meta is None or self.is_old(meta)]

    def remove_old(self, digests: Sequence[str]) -> None:
        """Remove objects that are still old. The caller holds a write transaction in which no row has these bytes."""
        self.bucket.delete([media_key(one) for one in self.find_old(digests)])

    def remove_thumbnails(self, digests: Sequence[str]) -> None:
        def find(sha256: str) -> list[str]:
            pages = self.bucket.list_pages(thumbnail_key(sha256).rpartition("/")[0])
            return [one.key for page in pages for one in page if one.name.startswith(sha256)]

        self.bucket.delete([key for keys in self.bucket.run_all(find, digests) for key in keys])

    def keep_thumbnail(self, path: Path) -> None:
        with map_os_errors():
            data = path.read_bytes()
        kind = "image/jpeg" if path.suffix == ".jpg" else "image/webp"
        self.bucket.put(thumbnail_key(path.name), data, kind)
        self._note_added(len(data))

    # Reading

    def find_existing(self, digests: Iterable[str]) -> set[str]:
        listed = list(digests)
        held = self.bucket.run_all(lambda one: self.bucket.head(media_key(one)), listed)
        return {digest for digest, meta in zip(listed, held, strict=True) if meta is not None}

    def has_files(self) -> bool:
        """False: what the cache holds is no reason to ask for a database."""
        return False

    def has_digest(self, sha256: str) -> bool:
        """Whether the object is there with exactly the bytes of its name; reads all of them from the bucket."""
        digest = hashlib.sha256()
        found = self.bucket.read_into(media_key(sha256), digest.update)
        return found is not None and digest.hexdigest() == sha256

    def open(self, sha256: str) -> BinaryIO:
        path = self.path(sha256)
        with suppress(FileNotFoundError), map_os_errors():
            file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
            note_use(path, file)
            return file
        copy = self.scratch / uuid.uuid4().hex
        try:
            meta = self._download(sha256, copy, MAX_CACHED)
            if meta.bytes > MAX_CACHED:
                raw = RemoteFile(self.bucket, meta, media_key(sha256))
                return cast(BinaryIO, io.BufferedReader(raw, READ_AHEAD))
            with map_os_errors():
                return open(copy, "rb")
        finally:
            copy.unlink(missing_ok=True)

    def is_intact_file(self, file: BinaryIO, sha256: str) -> bool:
        """As of a folder; a file that is read from the bucket in parts is not compared."""
        return is_remote_file(file) or super().is_intact_file(file, sha256)

    def fetch(self, sha256: str) -> LocalFile:
        """A copy in a folder of its own, which no other process takes out of the cache."""
        copy = self.scratch / uuid.uuid4().hex
        try:
            with map_os_errors():
                link_or_copy(self.path(sha256), copy)
        except FileNotFoundError:
            try:
                self._download(sha256, copy, None)
            except BaseException:
                copy.unlink(missing_ok=True)
                raise
        return LocalFile(copy, is_copy=True)

    def remove_copies(self, seconds: float) -> int:
        removed = 0
        with map_os_errors():
            for path in self.scratch.iterdir():
                with suppress(FileNotFoundError):
                    # A link has the old time of change of the cached file, but the kernel notes when it was made.
                    if time.time() - path.lstat().st_ctime >= seconds:
                        path.unlink()
                        removed += 1
        return removed

    def _download(self, sha256: str, target: Path, most: int | None) -> ObjectMeta:
        """Write the bytes of a picture to `target`, and keep them in the cache. Raises BlobMissing.

        Of an object of more than `most` bytes nothing is read.
        """
        digest = hashlib.sha256()
        with map_os_errors(), open(target, "wb") as file:

            def write(block: bytes) -> None:
                digest.update(block)
                file.write(block)

            meta = self.bucket.read_into(media_key(sha256), write, most)
        if meta is None:
            target.unlink(missing_ok=True)
            self._require_marker()
            raise BlobMissing("the file of this picture is missing; run `sightline verify`")
        if most is not None and meta.bytes > most:
            return meta
        if digest.hexdigest() != sha256:
            target.unlink(missing_ok=True)
            log.warning("the object %s has other bytes than its name says", media_key(sha256))
            raise BlobMissing("the file of this picture was altered; run `sightline verify`")
        if meta.bytes <= MAX_CACHED:
            with suppress(OSError):  # the cache may be full
                self._keep(target, self.path(sha256))
        return meta

    def _require_marker(self) -> None:
        """Raise StorageUnavailable where everything is gone, and not one object: then nothing may fail for good."""
        if self.bucket.head(MARKER) is None:
            raise StorageUnavailable("the bucket of the pictures is gone, or was emptied")

    def fetch_thumbnail(self, path: Path) -> BinaryIO | None:
        with suppress(FileNotFoundError), map_os_errors():
            file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
            note_use(path, file)
            return file
        buffer = io.BytesIO()
        meta = self.bucket.read_into(thumbnail_key(path.name), buffer.write)
        if meta is None:
            return None
        copy = self.scratch / f"{uuid.uuid4().hex}{path.suffix}"
        try:
            with map_os_errors():
                copy.write_bytes(buffer.getvalue())
                os.utime(copy, (time.time(), meta.changed_at.timestamp()))  # of which clients get the ETag
                with suppress(OSError):
                    self._keep(copy, path)
                return open(path if path.exists() else copy, "rb")
        finally:
            copy.unlink(missing_ok=True)

    def find_origin(self) -> str | None:
        parts = urlsplit(self.bucket.sign(MARKER))
        return f"{parts.scheme}://{parts.netloc}"

    def sign(self, sha256: str) -> str | None:
        return self.bucket.sign(media_key(sha256))

    # Uploads that wait

    def keep_upload(self, job_id: str, n: int, path: Path, leave: Container[str] = ()) -> None:
        key = upload_key(job_id, n)
        if path.is_dir():
            self.bucket.put(f"{key}.tar", iter_tar(path, leave), BINARY)
            with map_os_errors():
                (path / STORED).touch()
            return
        with map_os_errors(), open(path, "rb") as file:
            self.bucket.put(key, file, BINARY)

    def fetch_upload(self, job_id: str, n: int) -> None:
        """As of a folder. What another worker has listed of a source counts, not what this machine has listed.

        Raises StorageUnavailable where the bucket is at fault: then the upload may still be there.
        """
        path, key = self.upload_path(job_id, n), upload_key(job_id, n)
        if path.is_file() or (path / STORED).exists():
            return
        new = self.incoming / f"{path.name}.{uuid.uuid4().hex}"
        try:
            for name in (key, f"{key}.tar"):
                with map_os_errors(), open(new, "wb") as file:
                    meta = self.bucket.read_into(name, file.write)
                if meta is not None:
                    remove_path(path)
                    if name == key:
                        with map_os_errors():
                            new.replace(path)
                    else:
                        self._unpack(new, path)
                    return
            self._require_marker()
            remove_path(path / MANIFEST_NAME)  # of a source that was listed and not kept
        finally:
            remove_path(new)

    def _unpack(self, packed: Path, target: Path) -> None:
        folder = self.incoming / f"{packed.name}.folder"
        try:
            with map_os_errors():
                folder.mkdir()
                with tarfile.open(packed, "r:") as archive:
                    for member in archive:
                        file = archive.extractfile(member) if member.isreg() and KEEPS.fullmatch(member.name) else None
                        if file is not None:
                            with file, open(folder / member.name, "wb") as copy:
                                while block := file.read(COPY_BYTES):
                                    copy.write(block)
                (folder / STORED).touch()
                folder.replace(target)
        finally:
            remove_path(folder)

    def delete_upload(self, job_id: str, n: int) -> None:
        super().delete_upload(job_id, n)
        key = upload_key(job_id, n)
        try:
            self.bucket.delete([key, f"{key}.tar"])
        except SightlineError as error:  # the garbage collector finds it
            log.info("an upload that is done is not removed yet: %s", error.detail)

    # The cache

    def _keep(self, file: Path, path: Path) -> None:
        """Link a file into the cache. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        linked = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        link_or_copy(file, linked)
        linked.replace(path)
        linked.unlink(missing_ok=True)
        self._note_added(path.stat().st_size)

    def _note_added(self, size: int) -> None:
        """Measure the cache after each sixteenth of its bound."""
        self._added += size
        if self._added * 16 >= self._max_cache and self._evicting.acquire(blocking=False):
            try:
                self._added = 0
                self._evict()
            finally:
                self._evicting.release()

    def _evict(self) -> None:
        """Remove what was not used for the longest time, to seven eighths of the bound, if the cache is over it."""
        found = []
        for path in self.iter_files():
            with suppress(OSError):
                held = path.stat()
                found.append((max(held.st_atime, held.st_mtime), held.st_size, path))
        total = sum(size for _, size, _ in found)
        if total * 16 <= self._max_cache * 15:  # a sixteenth may be added until it is measured again
            return
        for _, size, path in sorted(found):
            if total * 8 <= self._max_cache * 7:
                return
            with suppress(OSError):
                path.unlink(missing_ok=True)
            total -= size


def media_key(sha256: str) -> str:
    return f"media/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def thumbnail_key(name: str) -> str:
    return f"thumbnails/{name[:2]}/{name[2:4]}/{name}"


def upload_key(job_id: str, n: int) -> str:
    return f"incoming/{job_id}-{n}"


def grace_of(size: int) -> float:
    """Seconds that no upload of so many bytes takes from its first part to the commit of its row."""
    return GRACE_SECONDS if size <= PART_BYTES else LARGE_GRACE_SECONDS


def has_bytes(held: ObjectMeta, size: int, md5: str) -> bool:
    """Whether an object has this size, and this MD5 where its tag is one: of parts or encrypted it is not."""
    is_md5 = len(held.etag) == 32 and md5
    return held.bytes == size and (not is_md5 or held.etag == md5)


def read_owner(marker: bytes | None) -> str:
    """The installation that a marker names."""
    try:
        return str(json.loads(marker or b"")["installation"])
    except (ValueError, KeyError, TypeError):
        return "unknown"


def note_use(path: Path, file: BinaryIO) -> None:
    """Note that a cached file is used, now and then: mounts may not."""
    held = os.fstat(file.fileno())
    if time.time() - held.st_atime > USED_SECONDS:
        with suppress(OSError):
            os.utime(path, (time.time(), held.st_mtime))


def is_remote_file(file: BinaryIO) -> bool:
    return isinstance(getattr(file, "raw", None), RemoteFile)


def iter_tar(folder: Path, leave: Container[str] = ()) -> Iterator[bytes]:
    """The plain files of an upload but `leave` as a tar, block by block."""
    for path in sorted(folder.iterdir()):
        if path.name == STORED or path.name in leave or path.is_symlink() or not path.is_file():
            continue
        with map_os_errors(), open(path, "rb") as file:
            info = tarfile.TarInfo(path.name)
            info.size = os.fstat(file.fileno()).st_size
            yield info.tobuf(tarfile.PAX_FORMAT)
            while block := file.read(COPY_BYTES):
                yield block
            if padding := -info.size % tarfile.BLOCKSIZE:
                yield b"\0" * padding
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
