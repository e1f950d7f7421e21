"""One process at a time: the others wait, and may be told to stop waiting."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.1


class Stopped(Exception):
    """The service is stopping: what was waited for is not needed any more."""


@contextmanager
def alone(path: Path, stop: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock of this file, made if it is not there; the kernel frees it when its holder dies.

    Raises Stopped once `stop` is set while another process holds it.
    """
    with open(path, "a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pause(stop)
        yield


def pause(stop: threading.Event | None) -> None:
    """Wait for a moment. Raises Stopped when `stop` is set, before or meanwhile."""
    if (stop or threading.Event()).wait(POLL_SECONDS):
        raise Stopped
