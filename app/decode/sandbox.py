"""How a decode child starts, and its limits.

The children are forked from a small fork server, not from the service: it has no threads, no torch and no database, so
a fork is safe, and a child is ready in a hundredth of a second. Before its first task a child imports the main module
of the program, as multiprocessing does; keep main modules light (see `app.main`).
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import ParamSpec, TypeVar

from app.decode.limits import ChildLimits

P = ParamSpec("P")
T = TypeVar("T")

OPEN_FILES = 64
PIPE_BYTES = 1 << 20  # the most that Linux allows without privilege; the pixels of a model (224 × 224: 147 KiB) fit
_PR_SET_PDEATHSIG = 1


def make_child_context() -> ForkServerContext:
    """The multiprocessing context whose processes are decode children."""
    context = _Context()
    context.set_forkserver_preload(["app.decode.preload"])
    return context


class _Context(ForkServerContext):
    """A context whose pipes hold a whole result.

    A pipe of Linux has 64 KiB. The children share one pipe to the pool, so a child that waits in the middle of its
    result blocks the others: pictures of 224 pixels came back two to five times as fast through a larger pipe.
    """

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        reader, writer = super().Pipe(duplex)
        if not duplex:
            with suppress(OSError):  # Linux limits the pipes of a user together; the pipe stays small then
                fcntl.fcntl(writer.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return reader, writer


def confine_child(limits: ChildLimits) -> None:
    """Limit this process for the rest of its life. Each child calls this first."""
    _die_with_parent()
    # The service answers a SIGTERM to the whole group: it drains, and needs its children for that.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _die_with_parent() -> None:
    """Let the kernel kill this child when the fork server ends, and the fork server end with the service.

    The fork server ends when the last copy of its lifeline closes. CPython gives each child a copy too, which would
    keep the fork server alive while a child is busy.
    """
    lifeline = getattr(forkserver, "_forkserver")  # noqa: B009 - private, and unknown to the stubs
    if lifeline._forkserver_alive_fd is not None:
        os.close(lifeline._forkserver_alive_fd)
        lifeline._forkserver_alive_fd = None
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The kernel sends nothing if the fork server died before the line above. `parent_process` is the service.
    preload = sys.modules.get("app.decode.preload")
    service = multiprocessing.parent_process()
    is_orphan = preload is not None and os.getppid() != preload.FORK_SERVER_PID
    if is_orphan or (service is not None and not service.is_alive()):
        os._exit(0)


def run_task(cpu_seconds: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """Run one task within `cpu_seconds` of processor time; returns its result and the wall seconds it took.

    The limit of the kernel counts the whole life of a process, so each task raises it by its own share.
    """
    start = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = spent + cpu_seconds if hard == resource.RLIM_INFINITY else min(spent + cpu_seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    try:
        return function(*args, **kwargs), time.monotonic() - start
    finally:
        # Between tasks a child may hold the lock of the pool's pipe: the kernel must not kill it there.
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
