"""Short forms of the proofs of what survives: kills, disks, restarts. (`tests/prove/test_hostile.py`: the others.)"""

from __future__ import annotations

import pytest

from tests.prove.short import hold

NAMES = ("retries",)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_the_promise_holds(name: str) -> None:
    hold(name)
