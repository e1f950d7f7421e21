"""Short forms of the proofs of a cluster."""

from __future__ import annotations

import pytest

from tests.reliability.short import hold_promise

NAMES = ("cluster", "frozen", "shared", "cut", "moves")


@pytest.mark.timeout(600)  # on a machine that is busy with others; alone each takes less than a minute
@pytest.mark.parametrize("name", NAMES)
def test_the_promise_holds(name: str) -> None:
    hold_promise(name)
