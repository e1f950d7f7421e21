from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.core.locks import StopRequested, hold_lock, pause_unless_stopped

WAIT = 20.0


def test_one_holds_it_and_the_next_follows(tmp_path: Path) -> None:
    waiting, order = threading.Event(), []

    def second() -> None:
        waiting.set()
        with hold_lock(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with hold_lock(tmp_path / "lock"):
        thread.start()
        assert waiting.wait(WAIT)
        pause_unless_stopped(None)
        order.append("first")
    thread.join(WAIT)
    assert order == ["first", "second"]


def test_who_is_told_to_stop_waits_no_longer(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with hold_lock(tmp_path / "lock", stop), pytest.raises(StopRequested), hold_lock(tmp_path / "lock", stop):
        pass
    with hold_lock(tmp_path / "lock", stop):
        pass  # free again
