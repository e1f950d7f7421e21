"""For tests of whole processes: coverage makes one half as slow again, and other tests cover what runs in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def uncovered() -> Iterator[None]:
    """Processes that the package's tests start are not measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield
