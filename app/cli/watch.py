"""`sightline watch`: keeps the pictures of a collection equal to folders of this machine.

The server keeps what was applied of each file, so that this command keeps nothing: after a kill, a pause or a break of
the network it compares the folder with that, and goes on.
"""

from __future__ import annotations

import hashlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from app.cli import ServerError
from app.cli.client import Client, Unavailable
from app.cli.local_files import open_plain
from app.core.backoff import Backoff
from app.core.types import ItemError
from app.sources.local_files import path_to_text
from app.sources.watched_folder import FolderGone, FolderSync, FolderWatcher, LookResult, WatchOptions
from app.storage.attributes import ImageAttributes, MetadataLimits, fit_attributes
from app.storage.watches import ChangesResult, FileChange, WatchedFile, WatchReport, displace, split_path

CONFIRM_SECONDS = 5.0  # between two questions whether somebody has confirmed deletions
MAX_NAME_CHARS = 400
RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
CLIENT = "client"
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class WatchCommand:
    """The options of `sightline watch`."""

    options: WatchOptions
    name: str | None = None
    deletes: str = "mirror"
    once: bool = False


class RemoteTarget:
    """A WatchTarget behind HTTP. It holds what the server knows of the files, as it was when this began."""

    def __init__(self, client: Client, watch: dict[str, Any], max_bytes: int, say: Callable[[str], object]) -> None:
        self.max_bytes = max_bytes
        self._client = client
        self._watch = watch
        self._say = say
        self._fault: str | None = None
        self._folders: dict[str, dict[str, WatchedFile]] = {}
        self._inodes: dict[int, set[str]] = {}
        self._digests: dict[str, set[str]] = {}
        self._count = 0
        self._asked_at = -CONFIRM_SECONDS
        for one in client.watched_files(watch["id"]):
            self._put(parse_file(one))

    def count_files(self) -> int:
        return self._count

    def find_identity(self) -> str | None:
        identity: str | None = self._watch.get("identity")
        return identity

    def is_confirmed(self) -> bool:
        if time.monotonic() - self._asked_at >= CONFIRM_SECONDS:
            self._asked_at = time.monotonic()
            self._watch = self._client.watch(self._watch["id"])
        return bool(self._watch["confirmed"])

    def mirrors_deletions(self) -> bool:
        return bool(self._watch["deletes"] == "mirror")

    def list_folders(self) -> list[str]:
        return list(self._folders)

    def list_files(self, folder: str) -> list[WatchedFile]:
        return list(self._folders.get(folder, {}).values())

    def find_by_inode(self, inode: int) -> list[WatchedFile]:
        return self._find(self._inodes.get(inode, ()))

    def find_by_sha256(self, sha256: str) -> list[WatchedFile]:
        return self._find(self._digests.get(sha256, ()))

    def open(self, path: Path) -> BinaryIO:
        return open_plain(path)

    def report(self, said: WatchReport) -> None:
        self._client.apply_changes(self._watch["id"], [], asdict(said))
        if said.took_confirmation:
            self._watch["confirmed"] = False
        if said.fault != self._fault:
            self._fault = said.fault
            self._say(said.fault or "all is well again")

    def apply(self, changes: Sequence[FileChange], paths: Mapping[str, Path]) -> ChangesResult:
        changes = [fit_change(change) for change in changes]
        result = read_result(self._client.apply_changes(self._watch["id"], [to_json(one) for one in changes]))
        wanted = [change for change in changes if change.path in set(result.wanted) and change.path in paths]
        sent = self._send(wanted, paths, result) if wanted else set()
        result.wanted = [path for path in result.wanted if path not in sent]
        self._remember(changes, result)
        return result

    def _send(self, changes: Sequence[FileChange], paths: Mapping[str, Path], result: ChangesResult) -> set[str]:
        """Send the bytes of files that can be read; returns their paths."""
        sent: list[FileChange] = []
        with ExitStack() as opened:
            files = []
            for change in changes:
                try:
                    files.append(opened.enter_context(self.open(paths[change.path])))
                except OSError:
                    continue  # the next look tells why
                sent.append(change)
            if sent:
                result.merge(read_result(self._client.send_files(self._watch["id"], [to_json(c) for c in sent], files)))
        return {change.path for change in sent}

    def _remember(self, changes: Iterable[FileChange], result: ChangesResult) -> None:
        """Keep what the server knows now, as `WatchStore.apply` does."""
        moves = [(one, self._get(one.before)) for one in changes if one.kind == "move"]
        for _, file in moves:
            if file is not None:
                self._remove(file.path)
        for change, file in moves:
            if file is not None and change.path not in result.wanted:
                if (other := self._get(change.path)) is not None:
                    self._remove(other.path)
                    self._put(displace(other))
                self._put(change.to_moved(file))
        for change in changes:
            if change.kind == "put" and change.path not in result.wanted:
                self._put(change.to_file(result.failed.get(change.path)))
            elif change.kind == "delete":
                self._remove(change.path)

    def _get(self, path: str) -> WatchedFile | None:
        folder, name = split_path(path)
        return self._folders.get(folder, {}).get(name)

    def _put(self, file: WatchedFile) -> None:
        self._remove(file.path)
        self._folders.setdefault(file.folder, {})[file.name] = file
        self._inodes.setdefault(file.inode, set()).add(file.path)
        self._digests.setdefault(file.sha256, set()).add(file.path)
        self._count += 1

    def _remove(self, path: str) -> None:
        folder, name = split_path(path)
        file = self._folders.get(folder, {}).pop(name, None)
        if file is None:
            return
        self._count -= 1
        if not self._folders[folder]:
            del self._folders[folder]
        discard(self._inodes, file.inode, path)
        discard(self._digests, file.sha256, path)

    def _find(self, paths: Iterable[str]) -> list[WatchedFile]:
        return [file for path in sorted(paths) if (file := self._get(path)) is not None]


def discard(index: dict[K, set[str]], key: K, path: str) -> None:
    """Remove a path from an index, and a key that has no paths any more."""
    index[key].discard(path)
    if not index[key]:
        del index[key]


def parse_file(one: Mapping[str, Any]) -> WatchedFile:
    """A file as the server tells it."""
    stat = (one["size"], one["mtime_ns"], one["inode"], one["sha256"], one["beside"], one["is_mounted"])
    error = ItemError(one["error"]["code"], one["error"]["detail"]) if one["error"] else None
    return WatchedFile(*split_path(one["path"]), *stat, error=error)


def fit_change(change: FileChange) -> FileChange:
    """The change without what no server stores."""
    if not change.fields:
        return change
    said = change.fields
    tags, metadata = tuple(said.get("tags") or ()), said.get("metadata") or {}
    attributes = ImageAttributes(said.get("id"), said.get("caption"), tags, metadata)
    fit, _ = fit_attributes(attributes, MetadataLimits())
    fields: dict[str, Any] = {
        "id": fit.id,
        "caption": fit.caption,
        "tags": list(fit.tags),
        "metadata": dict(fit.metadata),
    }
    fields["camera_data"] = said.get("camera_data")
    return change.with_fields({name: value for name, value in fields.items() if value})


def to_json(change: FileChange) -> dict[str, Any]:
    """A change as a request has it."""
    said: dict[str, Any] = {"kind": change.kind, "path": change.path}
    for name in ("before", "size", "mtime_ns", "inode", "sha256", "beside", "is_mounted"):
        if value := getattr(change, name):
            said[name] = value
    if change.fields is not None:
        said["fields"] = dict(change.fields)
    if change.error is not None:
        said["error"] = {"code": change.error.code, "detail": change.error.detail}
    return said


def read_result(answer: Mapping[str, Any]) -> ChangesResult:
    counts = {name: answer[name] for name in ("added", "replaced", "moved", "deleted")}
    failed = {path: ItemError(one["code"], one["detail"]) for path, one in answer["failed"].items()}
    return ChangesResult(**counts, wanted=list(answer["wanted"]), failed=failed)


def make_name(root: Path) -> str:
    """The name by which the server knows a folder of this machine again."""
    name = f"{socket.gethostname()}:{path_to_text(root)}"
    if len(name) > MAX_NAME_CHARS:
        name = f"{name[:MAX_NAME_CHARS]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return name


class FolderThread(threading.Thread):
    """Watches one folder until it is stopped; waits for a server that is away."""

    def __init__(self, client: Client, root: Path, command: WatchCommand, stopped: threading.Event) -> None:
        super().__init__(name=f"watch {root.name}")
        self._client = client
        self._root = root
        self._command = command
        self._stopped = stopped
        self._backoff = Backoff(RETRY_SECONDS, MAX_RETRY_SECONDS)
        self._trouble = ""
        self.error: str | None = None  # why it ended
        self.has_faults = False

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    self._watch()
                    return
                except Unavailable as error:
                    if self._command.once:
                        raise
                    if self._trouble != (text := str(error)):
                        self._say(f"{text}; waiting")
                    self._trouble = text
                    self._stopped.wait(max(error.seconds, self._backoff.next()))
        except (ServerError, FolderGone) as error:
            self.error = str(error)
            self._say(self.error)
        except Exception as error:  # the others go on, and somebody must see it
            self.error = f"{type(error).__name__}: {error}"
            self._say(self.error)
            raise

    def _watch(self) -> None:
        command = self._command
        title = path_to_text(Path(self._root.name)) or "folder"
        name = command.name or make_name(self._root)
        options = {"deletes": command.deletes, "exclude": list(command.options.exclude), "title": title}
        watch = self._client.create_watch(f"{CLIENT}:{name}", options)
        target = RemoteTarget(self._client, watch, self._client.limits().max_image_bytes, self._say)
        watcher = FolderWatcher(self._root, target, command.options, self._stopped, self._note)
        if command.once:
            self._check(watcher.sync_once(), watch["id"])
        else:
            watcher.run()

    def _check(self, sync: FolderSync, id: str) -> None:
        failed = self._client.watch(id)["failed"]
        if failed:
            self._say(f"{failed} files are no pictures that the server accepts")
        self.has_faults = bool(failed or sync.describe_faults())

    def _note(self, result: LookResult) -> None:
        self._backoff.reset()
        if self._trouble:
            self._say("the server answers again")
            self._trouble = ""
        counts = {
            "new": result.added,
            "changed": result.replaced,
            "renamed": result.moved,
            "deleted": result.deleted,
            "not accepted": result.failed,
        }
        if line := ", ".join(f"{count} {word}" for word, count in counts.items() if count):
            click.echo(f"{datetime.now():%H:%M:%S} {self._root.name}: {line}")

    def _say(self, text: str) -> None:
        click.echo(f"{datetime.now():%H:%M:%S} {self._root.name}: {text}", err=True)


def watch_folders(open_client: Callable[[], Client], folders: Sequence[Path], command: WatchCommand) -> int:
    """Watch folders of this machine until a signal; with `once`, apply what differs and return.

    Returns the exit status. Raises ServerError.
    """
    roots = [folder.resolve() for folder in folders]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise ServerError(f"there is no folder {missing[0]}")
    if command.name is not None and len(roots) > 1:
        raise click.UsageError("--name belongs to one folder")
    stopped = threading.Event()
    with ExitStack() as opened:
        clients = [opened.enter_context(open_client()) for _ in roots]
        threads = [FolderThread(*each, command, stopped) for each in zip(clients, roots, strict=True)]
        before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                stopped.wait(0.2) if not stopped.is_set() else time.sleep(0.05)
        except KeyboardInterrupt:
            stopped.set()
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
            signal.signal(signal.SIGTERM, before)
    if any(thread.error for thread in threads):
        return 2
    return int(any(thread.has_faults for thread in threads))


def watch_source(client: Client, source: str, command: WatchCommand) -> None:
    """Let the server watch a folder of its own machine."""
    options: dict[str, Any] = {"deletes": command.deletes, "exclude": list(command.options.exclude)}
    if command.options.poll_seconds is not None:
        options["poll_seconds"] = command.options.poll_seconds
    if command.options.allow_mass_delete:
        options["allow_mass_delete"] = True
    watch = client.create_watch(source, options)
    click.echo(f"the server watches {watch['source']} ({watch['id']})")
