"""What lies in a data directory is opened without what only a server needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.service.data_dir import make_data_dir

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


def test_a_folder_in_which_the_user_may_not_write_is_told_in_one_line(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("to become another user needs root")
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    code = "import os, sys; from pathlib import Path; from app.service.data_dir import make_data_dir\n"
    code += "from app.core.errors import StartupError\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    code += "try: make_data_dir(Path(sys.argv[1]))\nexcept StartupError as error: print(error.detail)"
    for data_dir in (shut / "data", shut, tmp_path / "new"):
        command = [sys.executable, "-c", code, str(data_dir)]
        (line,) = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert line.startswith(f"the data directory {data_dir} cannot be used: it is on ")
        assert "Permission denied; let the user 65534 write there" in line


def test_a_directory_that_was_made_is_told_from_one_that_was_there(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    assert make_data_dir(data_dir) == tmp_path / "new"
    assert make_data_dir(data_dir) is None
