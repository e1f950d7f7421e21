"""What a decoder would try that a hostile picture has taken over."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_file(path: str | Path) -> str:
    """Read any file: the database, a key."""
    return Path(path).read_bytes()[:16].hex()


def read_file_by_descriptor(path: str) -> str:
    """The same, past Python's `open`."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(257 if os.uname().machine == "x86_64" else 56, -100, path.encode(), 0, 0)
    if found < 0:
        raise OSError(ctypes.get_errno(), "openat")
    return os.read(found, 16).hex()


def write_file(path: str | Path) -> str:
    Path(path).write_text("changed")
    return "written"


def write_into(folder: Path, name: str) -> str:
    return write_file(folder / name)


def remove_file(path: str) -> str:
    Path(path).unlink()
    return "removed"


def open_socket(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 2):
        return "connected"


def open_local_socket(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        return "connected"


def run_program() -> str:
    return subprocess.run(["/bin/echo", "run"], capture_output=True, text=True, check=True).stdout


def replace_self() -> str:
    os.execv("/bin/echo", ["echo", "run"])
    raise AssertionError


def fork() -> str:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return "forked"


def trace_parent() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    return "traced" if libc.ptrace(16, os.getppid(), 0, 0) == 0 else str(ctypes.get_errno())


def read_memory_of_parent() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    number = 310 if os.uname().machine == "x86_64" else 270
    return str(libc.syscall(number, os.getppid(), 0, 0, 0, 0, 0))


def kill_parent() -> str:
    os.kill(os.getppid(), signal.SIGKILL)
    return "killed"


def read_environment() -> dict[str, str]:
    """Its own environment, which is allowed and holds nothing."""
    return dict(os.environ)


def read_first_environment() -> str:
    """What the kernel keeps of the environment that the process began with."""
    return Path("/proc/self/environ").read_text()


def find_file_limit() -> tuple[int, int]:
    """How large a file may be that it writes."""
    return resource.getrlimit(resource.RLIMIT_FSIZE)


def start_thread() -> str:
    """What is permitted: decoders may compute in threads."""
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append("computed"))
    thread.start()
    thread.join()
    return done[0]


INTRUSIONS: dict[str, Callable[..., Any]] = {
    "read the database": read_file,
    "read the database by number": read_file_by_descriptor,
    "write a file": write_file,
    "remove a file": remove_file,
    "open a socket": open_socket,
    "open a local socket": open_local_socket,
    "run a program": run_program,
    "become a program": replace_self,
    "start a process": fork,
    "trace the fork server": trace_parent,
    "read the memory of the fork server": read_memory_of_parent,
    "kill the fork server": kill_parent,
    "read the first environment": read_first_environment,
}
