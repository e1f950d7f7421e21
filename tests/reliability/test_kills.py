"""Short forms of the proofs that kill, again and again."""

from __future__ import annotations

import pytest

from tests.reliability.short import hold_promise

NAMES = ("kills", "deleted", "jobs", "sigterm", "watch")


@pytest.mark.timeout(1200)  # on a machine that is busy with others; alone each takes half a minute
@pytest.mark.parametrize("name", NAMES)
def test_the_promise_holds(name: str) -> None:
    hold_promise(name)
