"""Child processes that run this program once more."""

from __future__ import annotations

import ctypes
import os
import signal
import site
import sys
from collections.abc import Mapping
from pathlib import Path

SOURCE_ROOT = str(Path(__file__).parents[2])
PR_SET_PDEATHSIG = 1


def sightline_command(*words: str) -> list[str]:
    """The arguments that run `sightline` with these words; run them with `child_env` as the environment."""
    return [sys.executable, "-m", "app", *words]


def child_env(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that imports the modules of this process, not those of the working directory."""
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if SOURCE_ROOT not in site.getsitepackages():  # which come last in the path, and must
        paths.insert(0, SOURCE_ROOT)
    safe = {**environment, "PYTHONSAFEPATH": "1"}
    return {**safe, "PYTHONPATH": os.pathsep.join(paths)} if paths else safe


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent (process id) dies; end at once if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
