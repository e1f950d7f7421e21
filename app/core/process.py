"""Child processes that run code of this installation."""

from __future__ import annotations

import ctypes
import os
import signal
import site
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

SOURCE_ROOT = str(Path(__file__).parents[2])
PR_SET_PDEATHSIG = 1


def sightline_command(*words: str) -> list[str]:
    """The command line of `sightline WORDS`; its environment is `child_env`."""
    return [sys.executable, "-m", "app", *words]


def child_env(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that imports the modules of this process, not those of the working directory."""
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if SOURCE_ROOT not in site.getsitepackages():  # which come last in the path, and must
        paths.insert(0, SOURCE_ROOT)
    safe = {**environment, "PYTHONSAFEPATH": "1"}
    return {**safe, "PYTHONPATH": os.pathsep.join(paths)} if paths else safe


def spawn(
    module: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE ARGUMENTS`; `env` is added to the environment of this process.

    The child has no standard input unless `stdin` says so, and a session of its own: Ctrl-C reaches this process
    alone, which ends its children.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={**child_env(os.environ), **(env or {})},
        start_new_session=True,
    )


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent (process id) dies; end at once if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
