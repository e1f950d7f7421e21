"""A server that the tests of this package share: with a port for Immich, and fetching from loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.servers import RunningServer


@pytest.fixture(scope="package")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    settings: dict[str, Any] = {"immich_port": 0, "max_image_bytes": 100_000, "fetch": True, "fetch_also": "127.0.0.1"}
    with RunningServer(tmp_path_factory.mktemp("wires"), **settings) as server:
        yield server


def find_immich_url(server: RunningServer) -> str:
    """What a server has printed for Immich."""
    found = re.search(r"vectors at (http://\S+), without a key", server.output())
    assert found, server.output()
    return found[1]
