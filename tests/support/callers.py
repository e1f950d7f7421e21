"""Clients of other systems, in virtual environments of their own below `build/callers`, from hashed requirements."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
INSTALL_SECONDS = 900


def install_callers(name: str) -> Path:
    """The Python of the environment with `requirements/callers-NAME.txt`, made once. Skips where that is impossible."""
    requirements = ROOT / f"requirements/callers-{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    place = ROOT / "build/callers" / name
    python, marker = place / "bin/python", place / f".{digest[:16]}"
    if not marker.exists():
        uv = Path(sys.executable).parent / "uv"
        commands: list[list[str | Path]] = [
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, place],
            # The file names everything that is needed.
            [uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--require-hashes", "-r", requirements],
        ]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
            if done.returncode:
                pytest.skip(f"the callers {name} cannot be installed: {done.stderr[-300:]}")
        marker.touch()
    return python


def run_calls(python: Path, script: Path, *arguments: str | Path) -> dict[str, dict[str, Any]]:
    """What a script tells, a line of JSON for each call, by the names of the calls."""
    done = subprocess.run(
        [python, script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    told = {one["call"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, f"after {list(told)[-1:]}: {done.stderr[-2000:]}"
    return told
