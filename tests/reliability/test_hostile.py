"""Short forms of the proofs against hostile input and too much of it. (`test_kills.py`, `test_disks.py`: the others.)

`roles` is no line of it: `tests/app/api/test_permissions.py` goes through its matrix.
"""

from __future__ import annotations

import pytest

from tests.reliability.short import hold_promise

NAMES = (
    *("pictures", "poison", "overload", "bodies", "slow", "fetch"),
    *("archives", "bound", "schema", "offline", "models", "sandbox", "crowding"),
)


@pytest.mark.timeout(1200)  # on a machine that is busy with others; alone the longest takes five minutes
@pytest.mark.parametrize("name", NAMES)
def test_the_promise_holds(name: str) -> None:
    hold_promise(name)
