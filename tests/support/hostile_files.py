"""Functions that misbehave in a decode child. Keep the imports light: each child that runs one imports this module."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from typing import NoReturn


def read_pid() -> int:
    return os.getpid()


def list_modules() -> list[str]:
    return sorted(sys.modules)


def read_limits() -> dict[str, list[int]]:
    names = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_CORE")
    return {name: list(resource.getrlimit(getattr(resource, name))) for name in names}


def peak_rss() -> int:
    """Peak resident memory of the child in bytes, since its fork."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def segfault() -> int:
    """Read address 0."""
    return len(ctypes.string_at(0))


def abort() -> NoReturn:
    """Die of SIGABRT."""
    os.abort()


def exit_cleanly() -> NoReturn:
    """End the process with status 0, as a library might."""
    os._exit(0)


def loop_forever() -> NoReturn:
    """Use the processor for ever."""
    while True:
        pass


def use_processor(seconds: float) -> float:
    """Use `seconds` of processor time."""
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass
    return seconds


def sleep(seconds: float) -> float:
    """Wait without using the processor."""
    time.sleep(seconds)
    return seconds


def allocate(count: int) -> int:
    """Allocate `count` bytes."""
    return len(bytearray(count))


def raise_odd() -> NoReturn:
    """Raise an error that nobody expects."""
    raise ZeroDivisionError("odd")


def leave_by_exit() -> NoReturn:
    """Raise SystemExit."""
    sys.exit(3)
