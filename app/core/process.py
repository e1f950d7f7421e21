"""Child processes: how they run `sightline` once more, and what they do for their parent."""

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
    """The arguments that run `sightline` with these words; takes `importing` as its environment."""
    return [sys.executable, "-m", "app", *words]


def child_env(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that imports what this process does, whatever lies in the working directory."""
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if SOURCE_ROOT not in site.getsitepackages():  # these come last, and must
        paths.insert(0, SOURCE_ROOT)
    given = {**environment, "PYTHONSAFEPATH": "1"}
    return {**given, "PYTHONPATH": os.pathsep.join(paths)} if paths else given


def die_with_parent(parent: int) -> None:
    """Be killed by the kernel when the parent process (its id) dies; at once if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
