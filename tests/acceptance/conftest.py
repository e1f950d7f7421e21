"""Fixtures of the acceptance tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import RunningServer


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the colours model, shared by tests that mostly read; each uses its own pictures."""
    with RunningServer(tmp_path_factory.mktemp("server")) as running:
        yield running
