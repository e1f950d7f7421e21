"""The process from which decode children are forked: `python -m app.decode.fork_server [MODULE ...]`.

It is small: it has no threads, no torch, no database and none of the service's environment, so a fork is safe, and a
child is ready in a hundredth of a second. It loads once what every child needs, and further modules that it is given.

Its standard input is a socket to the service. Each message brings two sockets: the new child's, and its lifeline. The
server says the exit status of the child over the lifeline; when the service closes its end, the server kills the child.
The server ends with the service, and the children with the server.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from PIL import Image

from app.decode.child import serve_tasks
from app.decode.sandbox import PR_SET_PDEATHSIG, drop_privileges
from app.decode.task_channel import REQUEST, STATUS

_PLUGINS = ("Avif", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP")  # Tiff reads EXIF
_OURS = (
    "app.decode.archive",
    "app.decode.pairs",
    "app.decode.table",
    "app.decode.webdataset",
    "app.decode.parquet_metadata",
)
PRELOADED = (*_OURS, *(f"PIL.{name}ImagePlugin" for name in _PLUGINS), "PIL.ImageCms")
MAX_DESCRIPTOR = 1 << 16


class ForkServer:
    """Forks a child for each message on `control`, until that is closed."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lifelines: dict[int, socket.socket] = {}  # by process id
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        wake, self._woken = socket.socketpair()
        for one in (wake, self._woken):
            one.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._wake = wake
        self._selector.register(self._woken, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    if not self._fork():
                        return
                elif key.fileobj is self._woken:
                    self._woken.recv(1024)
                    self._reap()
                elif self._lifelines.get(key.data) is key.fileobj:
                    self._selector.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)

    def _fork(self) -> bool:
        """Fork a child; False when the service has ended."""
        message, descriptors, _, _ = socket.recv_fds(self._control, len(REQUEST), 2)
        if message != REQUEST or len(descriptors) != 2:
            return False
        connection, lifeline = (socket.socket(fileno=one) for one in descriptors)
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # the service sees that both sockets are closed
            connection.close()
            lifeline.close()
            return True
        if pid == 0:
            _run_child(connection, server)
        connection.close()
        self._lifelines[pid] = lifeline
        self._selector.register(lifeline, selectors.EVENT_READ, pid)
        return True

    def _reap(self) -> None:
        """Say the status of each child that has ended."""
        while self._lifelines:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            lifeline = self._lifelines.pop(pid)
            if lifeline in self._selector.get_map():
                self._selector.unregister(lifeline)
            with suppress(OSError):  # the service did not wait for it
                lifeline.send(STATUS.pack(status))
            lifeline.close()


def _run_child(connection: socket.socket, server: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:  # it died before the line above, and the kernel sends nothing
            os._exit(0)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.closerange(3, connection.fileno())
        os.closerange(connection.fileno() + 1, MAX_DESCRIPTOR)
        serve_tasks(connection)
    except BaseException:  # the sandbox, most likely
        traceback.print_exc()
    finally:
        os._exit(0)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the service drains on SIGTERM, and needs its children until then
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    drop_privileges()
    for name in (*PRELOADED, *sys.argv[1:]):
        importlib.import_module(name)
    Image.preinit()  # else each child does, which cannot open modules
    ForkServer(socket.socket(fileno=0)).run()


if __name__ == "__main__":
    main()
