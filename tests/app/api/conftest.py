"""A server with keys that the tests of this package share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.app.api.guarded import Guarded, guarded_server


@pytest.fixture(scope="package")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One server for every test of keys."""
    with guarded_server(tmp_path_factory.mktemp("guarded") / "data") as one:
        yield one
