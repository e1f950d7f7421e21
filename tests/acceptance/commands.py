"""Run the `sightline` command as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 90.0


def sightline(*arguments: str | Path, typed: str = "", **environment: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; keywords are environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "app", *map(str, arguments)],
        input=typed,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "COLUMNS": "200", **{name: str(value) for name, value in environment.items()}},
    )


def check_refused(ended: subprocess.CompletedProcess[str], *words: str) -> str:
    """Check for exit code 2 and one line of error on stderr, which contains `words`; returns the line."""
    assert ended.returncode == 2, (ended.returncode, ended.stdout, ended.stderr)
    lines = ended.stderr.strip().splitlines()
    told = [line for line in lines if line.startswith("sightline: ")]
    assert len(told) == 1, ended.stderr
    assert lines[-1] == told[0], ended.stderr
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in told[0], told[0]
    return told[0]
