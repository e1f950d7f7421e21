"""Keeps the pictures of a collection equal to a folder: finds what is new, changed, renamed or deleted, and applies it.

The server watches folders of its own machine with this, and `sightline watch` those of another one: a `WatchTarget`
stands between, which knows what was applied. Two looks find everything, whatever happened in between: events only say
where to look. Nothing is deleted because a disk is not there (`_Deletions`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from app.core.errors import ImageTooLarge, SightlineError
from app.core.types import ItemError
from app.decode.litter import is_excluded, is_litter
from app.decode.metadata_files import MetadataFiles, is_metadata_file
from app.sources.folder import FIELDS_MARK, list_tags_beside
from app.sources.folder_events import FolderEvents
from app.sources.local_files import path_to_text, read_blocks
from app.sources.picture_folder import FoundFile, list_pictures, read_metadata_above, relative_name
from app.storage.tables.watches import DISPLACED, WatchedFile, WatchReport, join_path, split_path
from app.storage.watches import ChangesResult, FileChange

log = logging.getLogger(__name__)

BATCH_FILES = 64  # with their bytes, in one call
BATCH_BYTES = 32 << 20
BATCH_CHANGES = 100  # without bytes
QUIET_SECONDS = 2.0  # that a file must have been left alone before it is read: somebody may be writing it
MISSING_SECONDS = 1.0  # that a file must be missing before its picture is deleted: it may come back, or elsewhere
NEW_FOLDER_SECONDS = 2.0  # after which a new folder is looked at once more
UNSETTLED_SECONDS = 30.0  # for which files that are being written delay deletions: one may be the file that is missing
MASS_FILES, MASS_SHARE = 20, 0.25  # more files than both at once are deleted only after a confirmation
MASS_WINDOW_SECONDS = 3600.0
DEFAULT_POLL_SECONDS = 30.0  # between two scans where the kernel does not tell what changes
SCAN_SHARE = 10  # that many times as long as a scan is the pause behind it
MANY_EVENTS = 4_000  # at once, after which everything is looked at: the kernel may have lost some
ROOT_SECONDS = 5.0  # between two looks whether the folder is still the one that is listened to
REPORT_SECONDS = 60.0
SAMPLE = 1_000  # files that are looked for to tell that a folder is still the same
MAX_NAMED = 3  # files that a fault names
INODE_MASK = (1 << 63) - 1  # SQLite's integers
ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


class WatchTarget(Protocol):
    """Knows what was applied of a watched folder, and applies more. Raises a SightlineError when it cannot now."""

    max_bytes: int  # of a picture

    def count_files(self) -> int: ...
    def find_identity(self) -> str | None: ...
    def is_confirmed(self) -> bool: ...
    def mirrors_deletions(self) -> bool: ...
    def list_folders(self) -> Iterable[str]: ...
    def list_files(self, folder: str) -> Sequence[WatchedFile]: ...
    def find_by_inode(self, inode: int) -> Sequence[WatchedFile]: ...
    def find_by_sha256(self, sha256: str) -> Sequence[WatchedFile]: ...
    def open(self, path: Path) -> BinaryIO: ...
    def report(self, said: WatchReport) -> None: ...

    def apply(self, changes: Sequence[FileChange], paths: Mapping[str, Path]) -> ChangesResult:
        """Apply changes; sends the bytes that are wanted from `paths`."""
        ...


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How a folder is watched. `poll_seconds`: listen to no events, and scan so often."""

    exclude: tuple[str, ...] = ()
    follow_links: bool = False
    poll_seconds: float | None = None
    rescan_seconds: float = 600.0
    allow_mass_delete: bool = False


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A picture file as a look finds it."""

    found: FoundFile
    folder: str
    status: os.stat_result
    beside: str

    @property
    def name(self) -> str:
        return split_path(self.found.name)[1]

    @property
    def path(self) -> str:
        return join_path(self.folder, self.name)

    @property
    def inode(self) -> int:
        return self.status.st_ino & INODE_MASK

    @property
    def identity(self) -> tuple[int, int, int]:
        return self.status.st_size, self.status.st_mtime_ns, self.inode

    def to_change(self, sha256: str, device: int, *, fields: bool, error: ItemError | None = None) -> FileChange:
        """The change that puts this file."""
        said = self.found.read_fields() if fields else None
        if said is not None:
            said = {name: value for name, value in said.items() if name != "warnings"}
        return FileChange(
            "put",
            self.path,
            size=self.status.st_size,
            mtime_ns=self.status.st_mtime_ns,
            inode=self.inode,
            sha256=sha256,
            beside=self.beside,
            is_mounted=self.status.st_dev != device,
            fields=said,
            error=error,
        )


@dataclass(slots=True)
class FolderListing:
    """What one look at a folder finds. `is_whole` is False when it cannot be read: nothing is known of it then."""

    folder: str
    files: list[SeenFile] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    is_whole: bool = True


@dataclass(slots=True)
class LookResult:
    """What one look did."""

    added: int = 0
    replaced: int = 0
    moved: int = 0
    deleted: int = 0
    failed: int = 0  # files that are no pictures

    def count(self, result: ChangesResult) -> None:
        self.added += result.added
        self.replaced += result.replaced
        self.moved += result.moved
        self.deleted += result.deleted
        self.failed += len(result.failed)

    def __bool__(self) -> bool:
        return self.added + self.replaced + self.moved + self.deleted > 0


class Stopped(Exception):
    """The watcher shall end: the next look finds what this one left."""


class FolderGone(Exception):
    """The watched folder is not there, or is another one: nothing of it is applied."""


def has_same_stat(row: WatchedFile, seen: SeenFile) -> bool:
    return (row.size, row.mtime_ns, row.inode) == seen.identity


class FolderSync:
    """Looks at a folder, and applies what differs from what the target knows. Used by one thread."""

    def __init__(
        self, root: Path, target: WatchTarget, options: WatchOptions, stopped: threading.Event | None = None
    ) -> None:
        self.root = root
        self._stopped = stopped or threading.Event()
        self.unreadable: dict[str, str] = {}  # path: why
        self.deletions = _Deletions(self)
        self.target = target
        self.options = options
        self.device = 0
        self.identity = ""
        self._children: dict[str, set[str]] = {}  # the folders that were looked at: path to names
        # Files that somebody may be writing, by folder and name: how they look, and since when.
        self._looks: dict[str, dict[str, tuple[tuple[int, int, int], float]]] = {}
        self._has_lost_folders = False
        self._tries_failed = True  # files that were no pictures, once: the server may accept more than before
        self.due: dict[str, float] = {}  # folders to look at again, and when

    @property
    def has_unsettled(self) -> bool:
        return bool(self._looks)

    def look(self, dirty: Mapping[str, bool] | None = None) -> LookResult:
        """Look at folders (path: whether with all below), or at everything, and apply what has changed.

        Raises FolderGone, Stopped, and what the target raises.
        """
        self._check_root()
        result, pending, described = LookResult(), [], []
        is_new = dirty is None and self.target.count_files() == 0
        listed: set[str] = set()
        for listing in self._list_all() if dirty is None else self._list_some(dirty):
            if not listing.is_whole:
                continue
            listed.add(listing.folder)
            rows = {row.name: row for row in self.target.list_files(listing.folder)}
            for seen in listing.files:
                row = rows.pop(seen.name, None)
                if row is None or not has_same_stat(row, seen) or (row.error is not None and self._tries_failed):
                    pending.append((seen, row))
                elif row.beside != seen.beside:
                    described.append(seen.to_change(row.sha256, self.device, fields=True))
            self.deletions.add(rows.values())
            if is_new and len(pending) >= BATCH_FILES:  # nothing can have moved: no need to see all first
                self._apply_pending(pending, result)
                pending = []
        if dirty is None or self._has_lost_folders:
            self.deletions.add(self._find_lost(listed, everything=dirty is None))
            self._has_lost_folders = False
        self._send(described, {}, result)
        self._apply_pending(pending, result)
        self.deletions.add(self.target.list_files(DISPLACED))
        result.deleted += self.deletions.apply()
        self._tries_failed = self._tries_failed and dirty is not None
        return result

    def count_folders(self) -> int:
        """How many folders there are, without those that are left out."""
        return len(self._children)

    def next_due(self) -> float | None:
        """The moment of the next look that is due; None if none is."""
        moments = [*self.due.values(), *self.deletions.due()]
        return min(moments) if moments else None

    def take_due(self) -> dict[str, bool]:
        """The folders whose look is due now."""
        now = time.monotonic()
        ready = [folder for folder, moment in self.due.items() if moment <= now]
        for folder in ready:
            del self.due[folder]
        return dict.fromkeys(ready, False)

    def to_dirty(self, paths: Iterable[str]) -> dict[str, bool]:
        """The folders to look at after these paths have changed."""
        dirty: dict[str, bool] = {}
        for text in paths:
            path = Path(text)
            if not path.is_relative_to(self.root):
                continue
            name = relative_name(self.root, path)
            if name == ".":
                dirty[""] = dirty.get("", False)
                continue
            if is_litter(name) or is_excluded(name, self.options.exclude):
                continue
            folder, last = split_path(name)
            dirty[folder] = dirty.get(folder, False) or is_metadata_file(last)
            if name in self._children:  # a folder, which may be another one now
                dirty[name] = True
        return dirty

    # What is there

    def _check_root(self) -> None:
        """Raise FolderGone unless the folder is there, and is the one whose files were applied."""
        try:
            status = self.root.stat()
            if not stat.S_ISDIR(status.st_mode):
                raise FolderGone("it is no folder any more")
            with os.scandir(self.root):
                pass
        except OSError as error:
            raise FolderGone(f"it cannot be read: {error.strerror}") from None
        identity = f"{status.st_dev}:{status.st_ino}"
        known = self.identity or self.target.find_identity()
        if known and known != identity and not self._knows_some_file() and not self.is_allowed():
            raise FolderGone("it is another folder than before, and has none of its files; is its disk mounted?")
        self.device, self.identity = status.st_dev, identity

    def is_allowed(self) -> bool:
        """Whether deletions that would be held are meant."""
        return self.options.allow_mass_delete or self.target.is_confirmed()

    def _knows_some_file(self) -> bool:
        """Whether any file that was applied is there as it was, or none was applied."""
        tried = 0
        for folder in self.target.list_folders():
            for row in self.target.list_files(folder):
                if tried > SAMPLE:
                    return False
                tried += 1
                found = self.find_status(row.path)
                if found is not None and (found.st_size, found.st_mtime_ns) == (row.size, row.mtime_ns):
                    return True
        return tried == 0

    def _list_all(self) -> Iterator[FolderListing]:
        self._children.clear()
        self.unreadable.clear()
        yield from self._walk("", MetadataFiles())

    def _list_some(self, dirty: Mapping[str, bool]) -> Iterator[FolderListing]:
        done: set[str] = set()
        for asked, is_deep in sorted(dirty.items()):
            folder, deep = asked, is_deep
            while folder and not self._is_folder(folder):
                folder, deep, self._has_lost_folders = split_path(folder)[0], False, True
            if folder in done and not deep:
                continue
            if deep:
                self._forget_below(folder)
            metadata = read_metadata_above(self.root, self._locate(folder))
            known = self._children.get(folder, set()) if folder in self._children else None
            listing = self._list(folder, metadata)
            if known is not None and listing.is_whole:
                for gone in known - listing.folders:
                    self._forget_below(join_path(folder, gone))
                    self._has_lost_folders = True
            done.add(folder)
            yield listing
            for name in sorted(listing.folders):
                if (below := join_path(folder, name)) not in self._children:
                    for new in self._walk(below, metadata):
                        # The kernel may not have listened to it yet when something came.
                        self._make_due(new.folder, time.monotonic() + NEW_FOLDER_SECONDS)
                        yield new

    def _walk(self, folder: str, metadata: MetadataFiles) -> Iterator[FolderListing]:
        waiting = [folder]
        while waiting:
            listing = self._list(waiting.pop(), metadata)
            yield listing
            waiting += sorted((join_path(listing.folder, name) for name in listing.folders), reverse=True)

    def _list(self, folder: str, metadata: MetadataFiles) -> FolderListing:
        self._raise_if_stopped()
        path = self._locate(folder)
        listing = FolderListing(folder)
        self.unreadable = {name: why for name, why in self.unreadable.items() if split_path(name)[0] != folder}
        self.unreadable.pop(folder, None)
        try:
            found, folders = list_pictures(
                self.root, path, metadata, self.options.exclude, follow_links=self.options.follow_links
            )
        except (FileNotFoundError, NotADirectoryError):
            listing.is_whole = folder != ""  # it went away meanwhile: its files are missing
            self._children.pop(folder, None)
            return listing
        except OSError as error:
            self.unreadable[folder] = error.strerror or "it cannot be read"
            listing.is_whole = False
            return listing
        listing.folders = {split_path(relative_name(self.root, one))[1] for one in folders}
        self._children[folder] = listing.folders
        for file in found:
            self._add_seen(listing, file)
        self._keep_looks(folder, {seen.name for seen in listing.files})
        return listing

    def _keep_looks(self, folder: str, names: Collection[str]) -> None:
        """Forget the files of a folder that are not there any more."""
        kept = {name: look for name, look in self._looks.pop(folder, {}).items() if name in names}
        if kept:
            self._looks[folder] = kept

    def _add_seen(self, listing: FolderListing, file: FoundFile) -> None:
        try:
            status = file.path.stat() if self.options.follow_links else file.path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            self._mark_unreadable(listing.folder, file.name, error.strerror)
            return
        if file.error is not None:
            self._mark_unreadable(listing.folder, file.name, file.error.detail)
        elif stat.S_ISREG(status.st_mode):
            listing.files.append(SeenFile(file, listing.folder, status, FIELDS_MARK.join(list_tags_beside(file))))

    def _mark_unreadable(self, folder: str, name: str, reason: str | None) -> None:
        self.unreadable[join_path(folder, split_path(name)[1])] = reason or "it cannot be read"

    def _find_lost(self, listed: set[str], *, everything: bool) -> list[WatchedFile]:
        """The files of folders that are not there any more; after a look at everything, of all."""
        lost: list[WatchedFile] = []
        for folder in self.target.list_folders():
            if folder in listed or folder in self._children:
                continue
            if everything or not self._is_folder(folder):
                lost += self.target.list_files(folder)
        return lost

    def _forget_below(self, folder: str) -> None:
        """Look at this folder, and all below, as if never before."""
        waiting = [folder]
        while waiting:
            one = waiting.pop()
            waiting += [join_path(one, name) for name in self._children.pop(one, ())]

    def _locate(self, path: str) -> Path:
        """The path of a file on the disk; its text has an escape for each byte that is not UTF-8."""
        plain = self.root / path if path else self.root
        if "\\x" in path and not os.path.lexists(plain):
            raw = ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), path.encode())
            return self.root / os.fsdecode(raw)
        return plain

    def _is_folder(self, folder: str) -> bool:
        try:
            return stat.S_ISDIR(self._locate(folder).lstat().st_mode)
        except (OSError, ValueError):
            return False

    def find_status(self, path: str) -> os.stat_result | None:
        """The stat of a file; None if there is none of this path. Raises OSError when that cannot be known."""
        if path.startswith(DISPLACED):
            return None
        located = self._locate(path)
        try:
            status = located.stat() if self.options.follow_links else located.lstat()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def is_there(self, path: str) -> bool:
        """Whether there is a file of this path, or nobody can tell."""
        if is_litter(path) or is_excluded(path, self.options.exclude):
            return False
        try:
            return self.find_status(path) is not None
        except OSError:
            return True

    # What becomes of it

    def _apply_pending(self, pending: Sequence[tuple[SeenFile, WatchedFile | None]], result: LookResult) -> None:
        """Apply files that are new or have changed: first those that are known by their inode, then by their bytes."""
        rest = self._apply_moves(pending, result)
        puts: list[FileChange] = []
        moves: list[FileChange] = []
        paths: dict[str, Path] = {}
        taken: set[str] = set()
        size = 0
        for seen, row in rest:
            if (change := self._make_change(seen, row, taken)) is None:
                continue
            if change.kind == "move":
                taken.add(change.before)
                moves.append(change)
            else:
                paths[change.path] = seen.found.path
                puts.append(change)
                size += seen.status.st_size if row is None or row.sha256 != change.sha256 else 0
            if len(puts) >= BATCH_FILES or size > BATCH_BYTES:
                self._send(puts, paths, result)
                puts, paths, size = [], {}, 0
        self._send(moves, {}, result)
        self._send(puts, paths, result)

    def _apply_moves(
        self, pending: Sequence[tuple[SeenFile, WatchedFile | None]], result: LookResult
    ) -> list[tuple[SeenFile, WatchedFile | None]]:
        """Apply the files that have only got another path; returns the others."""
        rest: list[tuple[SeenFile, WatchedFile | None]] = []
        moves: list[FileChange] = []
        for seen, row in pending:
            taken = {move.before for move in moves}
            before = self._find_mover(self.target.find_by_inode(seen.inode), seen, taken)
            if before is None:
                rest.append((seen, row))
                continue
            moves.append(self._make_move(before, seen))
            if len(moves) == BATCH_CHANGES:  # one batch: what displaces another file changes where that is found
                self._send(moves, {}, result)
                moves = []
        self._send(moves, {}, result)
        return rest

    def _find_mover(self, rows: Iterable[WatchedFile], seen: SeenFile, taken: set[str]) -> WatchedFile | None:
        """The row of the file that is at another path now: its own path has no such file any more."""
        for row in rows:
            if row.path in (seen.path, *taken) or not has_same_stat(row, seen):
                continue
            try:
                now = self.find_status(row.path)
            except OSError:
                continue
            if now is None or now.st_ino & INODE_MASK != row.inode:
                return row
        return None

    def _make_move(self, before: WatchedFile, seen: SeenFile) -> FileChange:
        self.deletions.forget(before.path)
        if before.beside != seen.beside:
            self._make_due(seen.folder, time.monotonic())  # the next look tells what lies beside it
        put = seen.to_change(before.sha256, self.device, fields=False)
        return replace(put, kind="move", before=before.path, beside=before.beside)

    def _make_change(self, seen: SeenFile, row: WatchedFile | None, taken: set[str]) -> FileChange | None:
        """The change of a file that is new or has other bytes; None if it has to wait."""
        if row is not None and row.error is None and (row.size, row.mtime_ns) == seen.identity[:2]:
            return seen.to_change(row.sha256, self.device, fields=row.beside != seen.beside)  # only its inode
        if not self._is_settled(seen):
            return None
        if seen.status.st_size > self.target.max_bytes:
            too_large = ItemError(ImageTooLarge.code, f"a picture may have {self.target.max_bytes:,} bytes")
            return seen.to_change("", self.device, fields=False, error=too_large)
        sha256 = self._hash(seen)
        if sha256 is None:
            return None
        if row is None or row.sha256 != sha256:
            for before in self.target.find_by_sha256(sha256):
                if before.path not in taken and before.path != seen.path and not self.is_there(before.path):
                    return self._make_move(before, seen)
        return seen.to_change(sha256, self.device, fields=row is None or row.beside != seen.beside)

    def _is_settled(self, seen: SeenFile) -> bool:
        """Whether nobody seems to write the file any more; otherwise its folder is due again."""
        now, age = time.monotonic(), time.time() - seen.status.st_mtime
        looks = self._looks.get(seen.folder, {})
        identity, since = looks.get(seen.name, (None, now))
        if age >= QUIET_SECONDS or (identity == seen.identity and now - since >= QUIET_SECONDS):
            self._keep_looks(seen.folder, looks.keys() - {seen.name})
            return True
        if identity != seen.identity:
            self._looks.setdefault(seen.folder, {})[seen.name] = (seen.identity, since := now)
        self._make_due(seen.folder, since + QUIET_SECONDS)
        return False

    def _make_due(self, folder: str, moment: float) -> None:
        self.due[folder] = min(self.due.get(folder, moment), moment)

    def _hash(self, seen: SeenFile) -> str | None:
        """The SHA-256 of a file; None if it cannot be read, or was changed meanwhile."""
        try:
            with self.target.open(seen.found.path) as file:
                digest = hashlib.sha256()
                for block in read_blocks(file, self.target.max_bytes + 1):
                    digest.update(block)
                after = os.fstat(file.fileno())
        except (OSError, SightlineError) as error:
            reason = error.detail if isinstance(error, SightlineError) else error.strerror
            if os.path.lexists(seen.found.path):
                self.unreadable[seen.path] = reason or "it cannot be read"
            return None
        if (after.st_size, after.st_mtime_ns) != seen.identity[:2]:
            self._make_due(seen.folder, time.monotonic() + QUIET_SECONDS)
            return None
        return digest.hexdigest()

    def _send(self, changes: Sequence[FileChange], paths: Mapping[str, Path], result: LookResult) -> None:
        for start in range(0, len(changes), BATCH_CHANGES):
            self._raise_if_stopped()
            answer = self.target.apply(changes[start : start + BATCH_CHANGES], paths)
            result.count(answer)
            for path in answer.wanted:  # somebody has changed the file meanwhile, or its row
                self._make_due(split_path(path)[0], time.monotonic() + QUIET_SECONDS)

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    def describe_faults(self) -> str | None:
        """What cannot be read, or waits for a confirmation."""
        parts = [self.deletions.describe()] if self.deletions.held else []
        if self.unreadable:
            named = [f"{path or 'the folder'}: {why}" for path, why in list(self.unreadable.items())[:MAX_NAMED]]
            more = f", and {len(self.unreadable) - MAX_NAMED} more" if len(self.unreadable) > MAX_NAMED else ""
            parts.append(f"cannot be read: {'; '.join(named)}{more}")
        return "; ".join(parts) or None


class _Deletions:
    """The files that are missing: their pictures are deleted when that is certain, and not too many at once."""

    def __init__(self, sync: FolderSync) -> None:
        self._sync = sync
        self._missing: dict[str, tuple[WatchedFile, float]] = {}
        self._done: deque[tuple[float, int]] = deque()  # when, how many
        self.held = 0
        self._unmounted = 0
        self._waits_until: float | None = None

    def add(self, rows: Iterable[WatchedFile]) -> None:
        now = time.monotonic()
        for row in rows:
            self._missing.setdefault(row.path, (row, now))

    def forget(self, path: str) -> None:
        """The file was found elsewhere."""
        self._missing.pop(path, None)

    def due(self) -> list[float]:
        """The moment from which on the missing files are missing for long enough."""
        return [] if self._waits_until is None else [self._waits_until]

    def apply(self) -> int:
        """Delete what is certain; returns how many files that were."""
        sync, now = self._sync, time.monotonic()
        gone: list[str] = []
        unmounted, self._waits_until = 0, None
        pause = UNSETTLED_SECONDS if sync.has_unsettled else MISSING_SECONDS
        for path, (row, since) in list(self._missing.items()):
            if self._is_back(row):
                del self._missing[path]
            elif self._is_unmounted(row):
                unmounted += 1
            elif now - since < pause:
                self._waits_until = min(self._waits_until or since + pause, since + pause)
            else:
                gone.append(path)
        if self._waits_until is not None:
            return 0  # all at once: a tree that is being deleted counts as a whole
        self._unmounted = self.held = 0
        if sync.is_allowed():
            gone = list(self._missing)
            if gone and sync.target.is_confirmed():  # once, and before: a kill meanwhile must not leave it behind
                sync.target.report(WatchReport("watching", identity=sync.identity, took_confirmation=True))
        elif sync.target.mirrors_deletions():
            self._unmounted = unmounted
            self.held = unmounted + (len(gone) if self._is_mass(len(gone), now) else 0)
            if self.held > unmounted:
                return 0
        return self._delete(gone, now)

    def _delete(self, gone: Sequence[str], now: float) -> int:
        deleted = 0
        for start in range(0, len(gone), BATCH_CHANGES):
            some = gone[start : start + BATCH_CHANGES]
            answer = self._sync.target.apply([FileChange("delete", path) for path in some], {})
            deleted += answer.deleted
            for path in some:
                del self._missing[path]
        if deleted:
            self._done.append((now, deleted))
        return deleted

    def _is_back(self, row: WatchedFile) -> bool:
        """Whether the file is there again, or its folder cannot be read, or its row is not that any more."""
        if row.folder == DISPLACED:
            return False
        if any(row.path == path or row.path.startswith(f"{path}/") or not path for path in self._sync.unreadable):
            return True
        return self._sync.is_there(row.path)

    def _is_unmounted(self, row: WatchedFile) -> bool:
        """Whether the file lay on a disk of its own below the folder, which is not mounted now."""
        if not row.is_mounted:
            return False
        folder = self._sync.root / row.folder
        while folder != self._sync.root:
            try:
                return folder.stat().st_dev == self._sync.device
            except OSError:
                folder = folder.parent
        return True

    def _is_mass(self, count: int, now: float) -> bool:
        while self._done and now - self._done[0][0] > MASS_WINDOW_SECONDS:
            self._done.popleft()
        if not count:
            return False
        recent = sum(number for _, number in self._done)
        total = self._sync.target.count_files()
        return count >= total or (count + recent > MASS_FILES and count + recent > MASS_SHARE * (total + recent))

    def describe(self) -> str:
        where = "a disk in the folder is not mounted" if self._unmounted == self.held else "so many are missing at once"
        return f"{self.held:,} pictures are not deleted, because {where}; confirm the deletions if they are meant"


class FolderWatcher:
    """Watches one folder until it is stopped: listens to the kernel, and scans from time to time."""

    def __init__(
        self,
        root: Path,
        target: WatchTarget,
        options: WatchOptions,
        stopped: threading.Event,
        say: Callable[[LookResult], object] = lambda result: None,
    ) -> None:
        self._root = root
        self._target = target
        self._options = options
        self._stopped = stopped
        self._say = say
        self._sync = FolderSync(root, target, options, stopped)
        self._asked = threading.Event()
        self._last_report: tuple[WatchReport, float] | None = None

    def scan_now(self) -> None:
        """Look at everything soon."""
        self._asked.set()

    def sync_once(self) -> FolderSync:
        """Look at everything until nothing is left to do. Raises FolderGone, and what the target raises."""
        dirty: dict[str, bool] | None = None
        with suppress(Stopped):
            while not self._stopped.is_set():
                self._say(self._sync.look(dirty))
                if (due := self._sync.next_due()) is None:
                    break
                self._stopped.wait(max(0.05, due - time.monotonic()))
                dirty = self._sync.take_due()
        self._report(scanned=True)
        return self._sync

    def run(self) -> None:
        """Watch until `stopped`. Raises what the target raises: call it again then, and it begins with a scan."""
        while not self._stopped.is_set():
            events = FolderEvents(self._root, self._stopped, polls=self._options.poll_seconds is not None)
            try:
                self._run_with(events)
            except Stopped:
                return
            except FolderGone as error:
                fault = f"the folder {path_to_text(self._root)} is not read: {error}; nothing is deleted"
                self._report(state="missing", fault=fault)
                self._stopped.wait(ROOT_SECONDS)
            finally:
                events.close()

    def _run_with(self, events: FolderEvents) -> None:
        """Watch until `stopped`, or until the folder is another one."""
        self._report(state="scanning")
        scanned, spent = self._scan(events)
        checked = scanned
        while not self._stopped.is_set():
            paths = events.wait()
            if len(paths) > MANY_EVENTS:
                self._asked.set()
            dirty = self._sync.to_dirty(paths)
            dirty |= {folder: dirty.get(folder, False) for folder in self._sync.take_due()}
            now = time.monotonic()
            if self._asked.is_set() or now - scanned >= self._find_period(events, spent):
                scanned, spent = self._scan(events)
                continue
            due = self._sync.next_due()
            if dirty or (due is not None and due <= now) or (self._sync.deletions.held and self._target.is_confirmed()):
                self._say(self._sync.look(dirty))
            if now - checked >= ROOT_SECONDS:
                checked = now
                if self._is_replaced():
                    return
            self._report(events)

    def _scan(self, events: FolderEvents) -> tuple[float, float]:
        """Look at everything; returns the moment of the end, and how many seconds it took."""
        self._asked.clear()
        began = time.monotonic()
        self._say(self._sync.look())
        events.check(self._sync.count_folders())
        self._report(events, scanned=True)
        ended = time.monotonic()
        return ended, ended - began

    def _find_period(self, events: FolderEvents, spent: float) -> float:
        """The seconds from the end of a scan, which took `spent`, to the next."""
        if self._options.poll_seconds is not None:
            return self._options.poll_seconds
        if events.polls:
            return min(self._options.rescan_seconds, max(DEFAULT_POLL_SECONDS, SCAN_SHARE * spent))
        return self._options.rescan_seconds

    def _is_replaced(self) -> bool:
        """Whether the folder that is listened to is not the one at the path any more."""
        try:
            status = self._root.stat()
        except OSError:
            return True
        return f"{status.st_dev}:{status.st_ino}" != self._sync.identity

    def _report(
        self,
        events: FolderEvents | None = None,
        *,
        state: str | None = None,
        fault: str | None = None,
        scanned: bool = False,
    ) -> None:
        """Tell the target the state, if it is another one, or a minute has passed."""
        sync = self._sync
        faults = [one for one in (fault, sync.describe_faults(), events and events.fault) if one]
        if state is None:
            state = "held" if sync.deletions.held else "polling" if events is not None and events.polls else "watching"
        said = WatchReport(state, "; ".join(faults) or None, sync.deletions.held, scanned, sync.identity or None)
        now = time.monotonic()
        if (
            scanned
            or self._last_report is None
            or self._last_report[0] != said
            or (now - self._last_report[1] >= REPORT_SECONDS)
        ):
            self._target.report(said)
            self._last_report = (WatchReport(said.state, said.fault, said.held, False, said.identity), now)
