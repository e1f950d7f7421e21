from __future__ import annotations

import threading
from typing import Any

import pytest

from app.service.maintenance import MaintenanceLoop
from app.storage.jobs import JobService
from app.storage.library import Library
from tests.support.servers import until

WAIT = 20.0


def test_what_it_cannot_do_is_told_and_ends_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.service.maintenance.PRUNE_SECONDS", 0.01)
    failing = threading.Event()
    failing.set()

    def fail(*_: Any) -> Any:
        if failing.is_set():
            raise RuntimeError("at /secret/place")

    bulks = JobService(library)
    monkeypatch.setattr(bulks, "forget", fail)
    monkeypatch.setattr(library, "collect_garbage", fail)
    sweeper = MaintenanceLoop(library, bulks, 30.0)
    sweeper.start()
    left = "what killed processes left is not swept away: RuntimeError"
    until(lambda: sweeper.faults() == [left, "old jobs are not forgotten: RuntimeError"], WAIT, sweeper.faults)
    failing.clear()
    until(lambda: sweeper.faults() == [left], WAIT)  # that is swept at the next start
    sweeper.close()


def test_it_ends_at_once_and_need_not_have_begun(library: Library) -> None:
    sweeper = MaintenanceLoop(library, JobService(library), 30.0)
    sweeper.close()
    other = MaintenanceLoop(library, JobService(library), 30.0)
    other.start()
    other.close()
    assert other.faults() == []
