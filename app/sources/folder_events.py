"""Which paths below a folder have changed, as the kernel reports it (inotify, through watchfiles).

It may miss some: events overflow, a network file system says nothing of what other machines change, and past a limit of
the kernel watchfiles listens to fewer folders without a word. So a caller that listens also scans the folder.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

from watchfiles import Change, watch

from app.storage.file_system import OF_SEVERAL_MACHINES, find_file_system

DEBOUNCE_MS = 1_000  # longest time for which events are collected
STEP_MS = 100  # without an event, after which they are reported
TICK_SECONDS = 0.5
RAISE_WATCHES = "sudo sysctl fs.inotify.max_user_watches=1048576"
RAISE_INSTANCES = "sudo sysctl fs.inotify.max_user_instances=1024"
_opening = threading.Lock()  # while a thread finds out which descriptor it has opened


class FolderEvents:
    """The changed paths below a folder. While it `polls`, only scans find what has changed; `fault` says why, if
    somebody can mend that."""

    def __init__(self, root: Path, stopped: threading.Event, *, polls: bool) -> None:
        self._stopped = stopped
        self.fault: str | None = None
        self.polls = polls or is_of_network(find_file_system(root)[0])
        self._changes: Generator[set[tuple[Change, str]], None, None] | None = None
        self._descriptors: set[str] = set()
        if self.polls:
            return
        self._changes = watch(
            root,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            stop_event=stopped,
            rust_timeout=int(TICK_SECONDS * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=False,
            ignore_permission_denied=True,
        )
        with _opening:
            before = list_inotify()
            self.wait()  # begins to listen, to all that changes from now on
            self._descriptors = list_inotify() - before

    def wait(self) -> set[str]:
        """The paths that have changed; an empty set after half a second without any."""
        if self._changes is None:
            self._stopped.wait(TICK_SECONDS)
            return set()
        try:
            return {path for _, path in next(self._changes, set())}
        except Exception as error:  # of the Rust part, which raises types of its own
            self.fault = describe_events_error(error)
            self.polls = True
            self.close()
            return set()

    def check(self, folders: int) -> None:
        """Find out whether the kernel listens to so many folders; if not, scans must find what it does not report."""
        if self._changes is None or not self._descriptors:
            return
        listening = sum(map(count_watches, self._descriptors))
        self.polls = listening < folders
        self.fault = None
        if self.polls:
            self.fault = (
                f"the kernel listens to {listening:,} of {folders:,} folders (fs.inotify.max_user_watches), so changes"
                f" in the others are found by scans only; raise the limit ({RAISE_WATCHES}),"
                " and let its user read every folder"
            )

    def close(self) -> None:
        if self._changes is not None:
            self._changes.close()
            self._changes = None


def is_of_network(kind: str) -> bool:
    """Whether other machines may change files of this type of file system without a word to our kernel."""
    return OF_SEVERAL_MACHINES.fullmatch(kind) is not None or kind in ("9p", "virtiofs") or kind.startswith("fuse.")


def list_inotify() -> set[str]:
    """The descriptors of this process through which the kernel reports changes."""
    found = set()
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names alone)
            with suppress(OSError):
                if "inotify" in os.readlink(f"/proc/self/fd/{name}"):  # noqa: PTH115 (it is no path)
                    found.add(name)
    return found


def count_watches(descriptor: str) -> int:
    """How many folders the kernel listens to for a descriptor."""
    with suppress(OSError), open(f"/proc/self/fdinfo/{descriptor}") as file:
        return sum(line.startswith("inotify ") for line in file)
    return 0


def describe_events_error(error: Exception) -> str:
    """Why the kernel reports nothing, and what to do."""
    text = str(error)
    if "too many open files" in text.lower() or f"os error {errno.EMFILE}" in text:
        return (
            "the kernel has no further inotify instance for this user (fs.inotify.max_user_instances), so changes are"
            f" found by scans only; raise the limit: {RAISE_INSTANCES}"
        )
    return f"the kernel does not report what changes, so changes are found by scans only: {text}"
