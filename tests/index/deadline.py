"""Waiting for what another thread does, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE = 10.0


def until(true: Callable[[], bool]) -> None:
    """Return once `true()` is; fail after DEADLINE seconds."""
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)
