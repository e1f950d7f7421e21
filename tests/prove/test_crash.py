"""Short forms of the proofs of what survives: kills, disks, restarts. (`tests/prove/test_hostile.py`: the others.)"""

from __future__ import annotations

import pytest

from tests.prove.short import hold

NAMES = (
    "kills",
    "order",
    "retries",
    "deleted",
    "index",
    "recall",
    "disk",
    "fsync",
    "jobs",
    "backups",
    "sigterm",
    "upgrades",
    "soak",
)


@pytest.mark.timeout(1200)  # on a machine that is busy with others; alone each takes half a minute at most
@pytest.mark.parametrize("name", NAMES)
def test_the_promise_holds(name: str) -> None:
    hold(name)
