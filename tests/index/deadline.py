"""Waiting for what another thread does, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

DEADLINE = 30.0


def wait_until(true: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Return once `true()` is; fail after so many seconds."""
    began = time.monotonic()
    while not true():
        waited = time.monotonic() - began
        assert waited < seconds, "waited in vain"
        time.sleep(min(max(waited / 10, 0.001), 0.05))


def wait_longer_until(true: Callable[[], bool]) -> None:
    """`until`, for what may have to wait for deadlines and pauses in a row on a busy machine."""
    wait_until(true, 2 * DEADLINE)


def shorten_timeouts(monkeypatch: pytest.MonkeyPatch, seconds: float = 1.5) -> None:
    """Wait no longer than this for a Milvus that is silent."""
    for name in (
        "index.milvus_collection.READ_SECONDS",
        "index.milvus_collection.WRITE_SECONDS",
        "index.milvus_collection.COUNT_SECONDS",
        "index.milvus_client.CONNECT_SECONDS",
    ):
        monkeypatch.setattr(name, seconds)
