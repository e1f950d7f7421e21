"""Virtual environments for other projects' packages, each below bench/work, apart from our own packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def install(place: Path, packages: Sequence[str]) -> Path:
    """Make the environment at `place` with these packages, once."""
    if not (place / ".installed").exists():
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, place], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", place / "bin/python", *packages], check=True)
        (place / ".installed").touch()
    return place
