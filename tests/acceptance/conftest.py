"""What the acceptance tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import RunningServer


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with the colours model that read-mostly tests share; each uses pictures of its own."""
    with RunningServer(tmp_path_factory.mktemp("server")) as running:
        yield running
