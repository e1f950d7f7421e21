"""How a decode child is started and what it may do.

Children are forked from a small server process, not from the service: it has no threads, no torch and no
database in it, so a fork is safe, and a child is ready in a hundredth of a second. Before its first task a
child imports the program's main module, as multiprocessing does: keep those light (see `app.main`).
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import multiprocessing
import os
import resource
import signal
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
PIPE_BYTES = 1 << 20  # the most that Linux gives without privilege; a model's pixels (224 × 224: 147 KiB) fit in
_PR_SET_PDEATHSIG = 1


def make_child_context() -> ForkServerContext:
    """The multiprocessing context whose processes are decode children."""
    context = _Context()
    context.set_forkserver_preload(["app.decode.preload"])
    return context


class _Context(ForkServerContext):
    """With pipes that hold a whole answer.

    Linux gives a pipe 64 KiB. A child that must wait half-way through its answer holds up all others, for they
    share one pipe to the pool: pictures of 224 pixels came back two to five times as fast through larger ones.
    """

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        reader, writer = super().Pipe(duplex)
        if not duplex:
            with suppress(OSError):  # a user's pipes may hold only so much together; then it stays as it is
                fcntl.fcntl(writer.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return reader, writer


def confine_child(limits: ChildLimits) -> None:
    """Bound this process for the rest of its life. Called first in every child."""
    _die_with_parent()
    # A SIGTERM to the whole group is for the service to answer: it drains, and needs its children for that.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _die_with_parent() -> None:
    """Let the kernel kill this child with the fork server, and the fork server end with the service.

    The server ends when the last copy of its lifeline closes; CPython gives each child a copy too,
    which would keep the server alive for as long as a child is busy.
    """
    lifeline = getattr(forkserver, "_forkserver")  # noqa: B009 - private, and unknown to the stubs
    if lifeline._forkserver_alive_fd is not None:
        os.close(lifeline._forkserver_alive_fd)
        lifeline._forkserver_alive_fd = None
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it died before the line above
        os._exit(0)


def run_task(cpu_seconds: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """Run one task within its own share of processor time; the limit of a process only adds up. The seconds it took
    come with its result."""
    began = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = spent + cpu_seconds if hard == resource.RLIM_INFINITY else min(spent + cpu_seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    try:
        return function(*args, **kwargs), time.monotonic() - began
    finally:
        # Between tasks a child holds the pool's pipe: it must not be killed there.
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
