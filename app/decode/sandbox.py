"""What a decode child gives up before it sees foreign bytes, for the rest of its life.

A child holds a socket to its parent and nothing else: no variable of the service's environment, no file, no right to
make a socket, a process or another program. What it reads and writes it is handed: a child for pictures gets
descriptors and can open no file at all; a child for one archive or table opens that, its output, and the libraries of
Python.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.decode import landlock, syscall_filter
from app.decode.limits import ChildLimits

OPEN_FILES = 64
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NO_LANDLOCK = "no Landlock: one of an archive or a table that is taken over could read files"
PACKAGE = Path(__file__).parents[1]
# Beside the packages: the libraries of the system, time zones (for Parquet), and what libraries ask about processors.
SYSTEM_FILES = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo"),
    *("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/dev/null", "/dev/urandom"),
)


@dataclass(frozen=True, slots=True)
class Protections:
    """What this machine offers against a decoder that a file has taken over."""

    landlock: int  # its version; 0 without
    seccomp: bool

    def describe(self) -> str:
        """One line, for people."""
        parts = ["seccomp" if self.seccomp else "no seccomp"]
        parts.append(f"Landlock {self.landlock}" if self.landlock else NO_LANDLOCK)
        return "decoders run without privileges and environment, " + ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Confinement:
    """How one child is confined. With `opens` it may open `readable` and `writable`, else no file at all."""

    limits: ChildLimits
    opens: bool = False
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()


@cache
def find_protections() -> Protections:
    """Ask the kernel. Containers may deny what it has: then it counts as missing."""
    return Protections(landlock.read_version(), syscall_filter.is_supported())


def drop_privileges() -> None:
    """Give up for good what a set-user-id program would bring, and let no process of this user look in (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def confine_child(confinement: Confinement) -> None:
    """Limit this process for the rest of its life. Raises OSError."""
    # The service answers a SIGTERM to the whole group: it drains, and needs its children for that.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    limits = confinement.limits
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    drop_privileges()
    protections = find_protections()
    if protections.landlock:
        libraries = tuple(list_libraries()) if confinement.opens else ()
        landlock.restrict_files(protections.landlock, (*libraries, *confinement.readable), confinement.writable)
    if protections.seccomp:
        syscall_filter.install_filter(opening=confinement.opens)


def list_libraries() -> Iterator[Path]:
    """The files that Python and the decoders may load: no folder that may hold the data directory."""
    yield from (PACKAGE, PACKAGE.parent / "index")
    yield from (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield Path(sys.base_prefix, "lib")
    yield from (Path(path) for path in sys.path if Path(path).name in ("site-packages", "dist-packages"))
    yield from map(Path, SYSTEM_FILES)
