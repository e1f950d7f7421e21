"""What lies in a data directory is opened without what only a server needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVER_ONLY = (
    "app.search",
    "app.encoder.loader",
    "app.sources",
    "app.decode.pool",
    "app.api",
    "faiss",
    "numpy",
    "httpcore",
)


@pytest.mark.parametrize("module", ["app.cli.keys", "app.service.data_dir"])
def test_commands_on_keys_import_no_model_and_no_index(module: str) -> None:
    code = f"import {module}, sys; print([name for name in {SERVER_ONLY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
