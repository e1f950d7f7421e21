"""Clients of other systems, in virtual environments of their own below `build/callers`, from hashed requirements."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "callers"
# What uv says when it reaches no package index: only then is a test skipped.
UNREACHABLE = re.compile(r"error sending request|failed to fetch|could not connect|dns error|timed out", re.IGNORECASE)


def caller_python(name: str) -> Path:
    """The Python of the environment with the packages of `requirements/callers-NAME.txt`, made once.

    Skips the test where no package index can be reached.
    """
    lock = ROOT / "requirements" / f"callers-{name}.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = BUILD / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    uv = str(Path(sys.executable).parent / "uv")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(lock)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode and UNREACHABLE.search(done.stderr):
            pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    (folder / "complete").touch()
    return python


def run_caller(name: str, code: str, **given: Any) -> Any:
    """Run Python code in that environment; `given` are its variables. Returns what it prints as JSON at its end."""
    python = caller_python(name)
    head = f"import json\nglobals().update(json.loads({json.dumps(json.dumps(given))}))\n"
    done = subprocess.run([python, "-I", "-c", head + code], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_calls(name: str, script: Path, *arguments: str | Path) -> dict[str, dict[str, Any]]:
    """What a script tells in that environment, a line of JSON for each call, by the names of the calls."""
    command = [caller_python(name), script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    told = {one["call"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, f"after {list(told)[-1:]}: {done.stderr[-2000:]}"
    return told
