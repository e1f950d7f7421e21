"""A frozen index on disk: written whole or not at all, and every byte is checked before it is used.

    folder/CURRENT                    "<directory> <SHA-256 of its manifest.json>": the commit point
    folder/snapshot-<hex>/            manifest.json with size and SHA-256 of every other file, and those files

A save writes a new directory beside the old one, fsyncs files, directory and folder, and only then replaces CURRENT by
an atomic rename (as LevelDB does). It deletes the old snapshot last. CURRENT holds the hash of the manifest, and the
manifest the hashes of the files, so a hash covers every byte. Only one process may save into a folder.

A snapshot is disposable: whatever is wrong with it, the log rebuilds the index. It is not protected against a writer to
the folder that computes new hashes.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol, Self, TypeVar

from index.errors import InvalidSnapshot, SnapshotMissing
from index.protocol import FrozenIndex, Sink
from index.types import SnapshotFile, SnapshotManifest

CURRENT = "CURRENT"
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 1 << 20
BLOCK = 1 << 20


class Restorable(Protocol):
    """A class that the files of a snapshot can restore.

    `load` checks only the size of the files in `lazily_checked`: the class checks their bytes before it uses them.
    """

    kind: str
    lazily_checked: ClassVar[frozenset[str]]

    @classmethod
    def restore(cls, manifest: SnapshotManifest, files: Mapping[str, BinaryIO]) -> Self: ...


F = TypeVar("F", bound=Restorable)


class SnapshotDraft:
    """A snapshot being written: a directory that CURRENT does not name yet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: list[SnapshotFile] = []
        self.manifest: SnapshotManifest | None = None

    def write(self, file: str, write: Callable[[Sink], object]) -> None:
        """Write one file, and fsync it."""
        self._files.append(_write_file(self.directory / file, write))

    def seal(
        self, *, name: str, space: str, kind: str, d: int, ntotal: int, applied_seq: int, mark: str = ""
    ) -> SnapshotManifest:
        """Write the manifest of the files written so far. Write nothing after it."""
        self.manifest = SnapshotManifest(
            name=name,
            space=space,
            kind=kind,
            d=d,
            ntotal=ntotal,
            applied_seq=applied_seq,
            created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            files=tuple(self._files),
            mark=mark,
        )
        text = self.manifest.to_json()
        SnapshotManifest.from_json(text)  # raises for what `load` would refuse
        _write_file(self.directory / MANIFEST, lambda file: file.write(text))
        return self.manifest


@contextmanager
def draft_snapshot(folder: Path) -> Iterator[SnapshotDraft]:
    """A draft that becomes the snapshot in `folder` when the `with` ends, if it was sealed; else it is deleted.

    Raises OSError (a full or failing disk); the previous snapshot is then still there and whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _delete_others(folder, keep=_current_name(folder))
    directory = folder / f"snapshot-{secrets.token_hex(8)}"
    draft = SnapshotDraft(directory)
    try:
        directory.mkdir()
        yield draft
        if draft.manifest is None:
            raise ValueError("the draft was not sealed")
        _fsync_dir(directory)
        _fsync_dir(folder)
        pointer = f"{directory.name} {hashlib.sha256(draft.manifest.to_json()).hexdigest()}\n"
        _write_file(folder / f"{CURRENT}.new", lambda file: file.write(pointer.encode()))
        (folder / f"{CURRENT}.new").replace(folder / CURRENT)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        with suppress(OSError):
            (folder / f"{CURRENT}.new").unlink()
        raise
    _fsync_dir(folder)
    # Now the new snapshot survives a power cut; the old one is no longer needed.
    _delete_others(folder, keep=directory.name)


def save(
    folder: Path, frozen: FrozenIndex, *, name: str, space: str, applied_seq: int, mark: str = ""
) -> SnapshotManifest:
    """Make `frozen` the snapshot in `folder`, as the index `name` stood after log entry `applied_seq`.

    Raises OSError (a full or failing disk); the previous snapshot is then still there and whole.
    """
    with draft_snapshot(folder) as draft:
        for file, write in frozen.files.items():
            draft.write(file, write)
        return draft.seal(
            name=name,
            space=space,
            kind=frozen.kind,
            d=frozen.d,
            ntotal=frozen.ntotal,
            applied_seq=applied_seq,
            mark=mark,
        )


def discard(folder: Path) -> None:
    """Delete the snapshot in `folder`, if there is one, and what interrupted saves left. Ignores OSError."""
    with suppress(OSError):
        (folder / CURRENT).unlink(missing_ok=True)
    _delete_others(folder, keep=None)


def load(folder: Path, cls: type[F], *, name: str, space: str, d: int) -> tuple[F, SnapshotManifest]:
    """The index saved in `folder` and its manifest, whose `applied_seq` says where to continue in the log.

    Raises SnapshotMissing where there is none, and InvalidSnapshot where it is incomplete, belongs to another index,
    space, width or class, or cannot be read: then rebuild from the log.
    """
    try:
        pointer = _read_small(folder / CURRENT)
    except FileNotFoundError:
        raise SnapshotMissing(f"no snapshot in {folder}") from None
    except (OSError, ValueError) as error:
        raise InvalidSnapshot(f"{CURRENT}: {error}") from error
    match = _POINTER.fullmatch(pointer)
    if match is None:
        raise InvalidSnapshot(f"{CURRENT} is damaged")
    directory = folder / match[1].decode()
    manifest = _read_manifest(directory / MANIFEST, match[2].decode())
    expected = {"name": name, "space": space, "d": d, "kind": cls.kind}
    for field, value in expected.items():
        if getattr(manifest, field) != value:
            raise InvalidSnapshot(f"{field} is {getattr(manifest, field)!r}, expected {value!r}")
    with ExitStack() as stack:
        files = {}
        for stamp in manifest.files:
            try:
                # Checked and read through one descriptor: a file swapped in between is not seen.
                files[stamp.name] = stack.enter_context(open(directory / stamp.name, "rb", buffering=0))
                _check_file(files[stamp.name], stamp, whole=stamp.name not in cls.lazily_checked)
            except OSError as error:
                raise InvalidSnapshot(f"{stamp.name}: {error}") from error
        try:
            return cls.restore(manifest, files), manifest
        except Exception as error:  # whatever it is, the log can do without this snapshot
            raise InvalidSnapshot(f"contents: {error}") from error


_POINTER = re.compile(rb"(snapshot-[0-9a-f]{16}) ([0-9a-f]{64})\n")


def _current_name(folder: Path) -> str | None:
    """The directory that CURRENT names, if any. Raises OSError: a failing read must not cost a good snapshot."""
    try:
        match = _POINTER.fullmatch(_read_small(folder / CURRENT))
    except (FileNotFoundError, ValueError):
        return None
    return match[1].decode() if match else None


def _delete_others(folder: Path, keep: str | None) -> None:
    """Delete all snapshots but `keep`, and what interrupted saves left. Ignores OSError."""
    for path in folder.glob("snapshot-*"):
        if path.name != keep:
            shutil.rmtree(path, ignore_errors=True)


class _HashedFile:
    """A file being written: it counts and hashes every byte, and continues after a short write."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._sha256 = hashlib.sha256()
        self._size = 0

    def write(self, data: memoryview | bytes, /) -> int:
        rest = memoryview(data)
        while rest.nbytes:
            count = self._raw.write(rest[:BLOCK])
            if not count:
                raise OSError("the file takes no more bytes")
            self._sha256.update(rest[:count])
            self._size += count
            rest = rest[count:]
        return len(data)

    def finish(self, name: str) -> SnapshotFile:
        """fsync the file and describe it."""
        os.fsync(self._raw.fileno())
        size = os.fstat(self._raw.fileno()).st_size
        if size != self._size:
            raise OSError(f"{name} has {size} bytes, {self._size} were written")
        return SnapshotFile(name, size, self._sha256.hexdigest())


def _write_file(path: Path, write: Callable[[_HashedFile], object]) -> SnapshotFile:
    with open(path, "wb", buffering=0) as raw:
        file = _HashedFile(raw)
        write(file)
        return file.finish(path.name)


def _fsync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_small(path: Path) -> bytes:
    with open(path, "rb") as file:
        text = file.read(MANIFEST_LIMIT + 1)
    if len(text) > MANIFEST_LIMIT:
        raise ValueError("too big")
    return text


def _read_manifest(path: Path, sha256: str) -> SnapshotManifest:
    try:
        text = _read_small(path)
        if hashlib.sha256(text).hexdigest() != sha256:
            raise ValueError("hash differs")
        return SnapshotManifest.from_json(text)
    except (OSError, ValueError) as error:
        raise InvalidSnapshot(f"{MANIFEST}: {error}") from error


def _check_file(file: FileIO, stamp: SnapshotFile, *, whole: bool) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != stamp.size:
        raise InvalidSnapshot(f"{stamp.name} has {size} bytes, expected {stamp.size}")
    if not whole:
        return
    if hashlib.file_digest(file, "sha256").hexdigest() != stamp.sha256:
        raise InvalidSnapshot(f"{stamp.name}: hash differs")
    file.seek(0)
