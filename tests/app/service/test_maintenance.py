from __future__ import annotations

import threading
from typing import Any

import pytest

from app.service.maintenance import MaintenanceLoop
from app.storage.jobs import JobService
from app.storage.library import Library
from tests.support.servers import wait_until

WAIT = 20.0


def test_failures_are_told_and_tried_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.service.maintenance.PRUNE_SECONDS", 0.01)
    monkeypatch.setattr("app.service.maintenance.RETRY_SECONDS", 0.05)
    failing = threading.Event()
    failing.set()

    def fail(*_: Any) -> Any:
        if failing.is_set():
            raise RuntimeError("at /secret/place")
        return 0

    jobs = JobService(library)
    monkeypatch.setattr(jobs, "delete_old", fail)
    monkeypatch.setattr(library, "collect_garbage", fail)
    maintenance = MaintenanceLoop(library, jobs, 30.0)
    maintenance.start()
    faults = ["files that nothing uses are not removed: RuntimeError", "old jobs are not forgotten: RuntimeError"]
    wait_until(lambda: maintenance.faults() == faults, WAIT, maintenance.faults)
    failing.clear()
    wait_until(lambda: maintenance.faults() == [], WAIT, maintenance.faults)
    maintenance.close()


def test_it_ends_at_once_and_need_not_have_begun(library: Library) -> None:
    maintenance = MaintenanceLoop(library, JobService(library), 30.0)
    maintenance.close()
    other = MaintenanceLoop(library, JobService(library), 30.0)
    other.start()
    other.close()
    assert other.faults() == []
