from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.core.locks import Stopped, alone, pause

WAIT = 20.0


def test_one_holds_it_and_the_next_follows(tmp_path: Path) -> None:
    waiting, order = threading.Event(), []

    def second() -> None:
        waiting.set()
        with alone(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with alone(tmp_path / "lock"):
        thread.start()
        assert waiting.wait(WAIT)
        pause(None)
        order.append("first")
    thread.join(WAIT)
    assert order == ["first", "second"]


def test_who_is_told_to_stop_waits_no_longer(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with alone(tmp_path / "lock", stop), pytest.raises(Stopped), alone(tmp_path / "lock", stop):
        pass
    with alone(tmp_path / "lock", stop):
        pass  # free again
