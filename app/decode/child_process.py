"""The broker's side of decode children: it starts the fork server, and asks it for children."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from app.core.process import child_env
from app.decode.sandbox import Confinement
from app.decode.task_channel import REQUEST, STATUS, Answer, ChannelClosed, TaskChannel

# What Python, the loader of libraries and the language of messages need. Nothing else of the environment reaches a
# decoder: it may hold keys of object stores and of databases.
# So that the libraries of a fork server start no threads: numpy, and the allocator of Arrow.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ONE_THREAD |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
PASSED_ON = (
    "PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSAFEPATH",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
)
START_SECONDS = 60.0  # for a child to be ready: the first waits for the imports of the fork server
STATUS_SECONDS = 5.0


class ForkFailed(Exception):
    """No child could be started."""


class ChildProcess:
    """One decode child. Thread-safe is `kill` alone."""

    def __init__(self, channel: TaskChannel, lifeline: socket.socket) -> None:
        self._channel = channel
        self._lifeline = lifeline
        self._is_killed = False
        self.tasks = 0  # that were sent

    def send(self, message: object, descriptors: Sequence[int] = ()) -> None:
        """Send a Task or a Confinement. Raises ChannelClosed."""
        self.tasks += 1
        self._channel.send(message, descriptors)

    def receive(self, deadline: float) -> Answer:
        """Raises TimeoutError, ChannelClosed."""
        return self._channel.receive_answer(deadline)

    def is_dead(self) -> bool:
        """Whether it has ended or soon will. Only between tasks."""
        return self._is_killed or self._channel.is_closed()

    def kill(self) -> None:
        """Let the fork server kill it now."""
        self._is_killed = True
        with suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)

    def end(self) -> int | None:
        """Kill it if it lives; returns its exit status as `Popen.returncode`, None if the fork server is gone too."""
        self.kill()
        self._channel.close()
        try:
            self._lifeline.settimeout(STATUS_SECONDS)
            said = self._lifeline.recv(STATUS.size, socket.MSG_WAITALL)
        except OSError:
            said = b""
        self._lifeline.close()
        return os.waitstatus_to_exitcode(STATUS.unpack(said)[0]) if len(said) == STATUS.size else None


class ForkServerProcess:
    """The fork server of this process; it is started with the first child, and again when it has died. Thread-safe."""

    def __init__(self, modules: Sequence[str] = ()) -> None:
        """`modules` are loaded before children are forked."""
        self._modules = modules
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._is_closed = False

    def fork(self, confinement: Confinement) -> ChildProcess:
        """A child, confined, which waits for tasks. Raises ForkFailed."""
        for _ in range(2):  # the server may have died since the last child
            ours, childs = socket.socketpair()
            lifeline, servers = socket.socketpair()
            child = ChildProcess(TaskChannel(ours), lifeline)
            try:
                with childs, servers:
                    self._request(childs, servers)
                child.send(confinement)
                child.receive(time.monotonic() + START_SECONDS)
            except (ChannelClosed, OSError, ForkFailed):
                child.end()
                continue
            return child
        raise ForkFailed

    def close(self) -> None:
        """End the fork server, and with it all its children, for good."""
        with self._lock:
            self._is_closed = True
            self._stop()

    def _stop(self) -> None:
        if self._control is not None and self._process is not None:
            self._control.close()
            self._process.kill()
            self._process.wait()
            self._control = self._process = None

    def _request(self, *sockets: socket.socket) -> None:
        with self._lock:
            if self._is_closed:
                raise ForkFailed
            if self._control is None or self._process is None or self._process.poll() is not None:
                self._stop()
                self._start()
            assert self._control is not None
            socket.send_fds(self._control, [REQUEST], [one.fileno() for one in sockets])

    def _start(self) -> None:
        ours, servers = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with servers:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.decode.fork_server", *self._modules],
                stdin=servers.fileno(),
                stdout=subprocess.DEVNULL,
                env=clean_environment(),
                start_new_session=True,
            )
        self._control = ours


def clean_environment(environment: Mapping[str, str] = os.environ, keep: Sequence[str] = ()) -> dict[str, str]:
    """The variables of PASSED_ON and `keep`, and those that keep libraries from starting threads."""
    known = child_env(environment)
    return {name: known[name] for name in (*PASSED_ON, *keep) if name in known} | ONE_THREAD
