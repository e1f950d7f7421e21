"""Functions that misbehave in a decode child. Keep the imports light: each child that runs one imports this module."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn


def read_pid() -> int:
    return os.getpid()


def list_modules() -> list[str]:
    return sorted(sys.modules)


def read_limits() -> dict[str, tuple[int, int]]:
    names = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_CORE")
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def count_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def peak_rss() -> int:
    """Peak resident memory of the child in bytes, since its fork."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def segfault() -> int:
    """Read address 0."""
    return len(ctypes.string_at(0))


def abort() -> NoReturn:
    """Die of SIGABRT."""
    os.abort()


def kill_self() -> None:
    """Die as if killed by the OOM killer."""
    os.kill(os.getpid(), signal.SIGKILL)


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


def return_unpicklable() -> object:
    """Return what cannot be sent back."""
    return lambda: None
