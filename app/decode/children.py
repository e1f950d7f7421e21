"""How a decode child is started and what it may do.

Children are forked from a small server process of our own, not from the service: it has no threads,
no torch and no database in it, so a fork is safe, and a child is ready in a hundredth of a second.
`python -m app` and the `sightline` script are not imported again in a child.
"""

from __future__ import annotations

import ctypes
import io
import math
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing import forkserver, reduction, spawn, util
from multiprocessing.context import ForkServerContext, ForkServerProcess, set_spawning_popen
from multiprocessing.popen_forkserver import Popen
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar

from app.decode.limits import ChildLimits

P = ParamSpec("P")
T = TypeVar("T")

OPEN_FILES = 64
_PR_SET_PDEATHSIG = 1
_SERVER = forkserver.ForkServer()
_SERVER.set_forkserver_preload(["app.decode.warm"])


class _Start(Popen):
    """multiprocessing's own start by fork server, but from our server and without `__main__`.

    The body is CPython's (3.11 to 3.14) with two changes. Unpickling never needs `__main__` here,
    and running it again would load whatever the service's entry point imports into every child.
    """

    def _launch(self, process_obj: BaseProcess) -> None:
        preparation = spawn.get_preparation_data(process_obj.name)
        for key in ("init_main_from_name", "init_main_from_path"):
            preparation.pop(key, None)
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        self.sentinel, pipe = _SERVER.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        parent = os.dup(pipe)  # closes with this process, which is how the child learns of its end
        close = util.close_fds  # type: ignore[attr-defined]
        self.finalizer = util.Finalize(self, close, (parent, self.sentinel))
        with open(pipe, "wb", closefd=True) as file:
            file.write(buffer.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


class _Child(ForkServerProcess):
    def terminate(self) -> None:
        """Kill: pebble asks politely first, and waits seconds, while every other task waits with it."""
        self.kill()

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        return _Start(process_obj)


class ChildContext(ForkServerContext):
    """The multiprocessing context whose processes are decode children."""

    Process = _Child


def confine(limits: ChildLimits) -> None:
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


def work(cpu_seconds: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run one task within its own share of processor time; the limit of a process only adds up."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = spent + cpu_seconds if hard == resource.RLIM_INFINITY else min(spent + cpu_seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    try:
        return function(*args, **kwargs)
    finally:
        # Between tasks a child holds the pool's pipe: it must not be killed there.
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
