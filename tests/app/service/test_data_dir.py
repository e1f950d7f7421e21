"""What lies in a data directory is opened without what only a server needs."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import StartupError
from app.core.locks import DataDirLock, find_holder
from app.core.settings import Settings
from app.service.data_dir import check_places, make_data_dir, refuse_other_machine

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


def test_places_that_do_not_go_together_are_refused_in_clear_words(tmp_path: Path) -> None:
    url = "postgresql://owner:hunter22@db/pictures"
    shared, cache = tmp_path / "shared", tmp_path / "cache"
    bucket: dict[str, Any] = {"database": url, "media": "s3://pictures/prod"}
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"shared_media": True}, "SQLite is a database of one machine"),
        ({"database": url}, "name a bucket with --media"),
        ({"database": url, "shared_media": True}, "--cache-dir"),
        ({"database": url, "shared_media": True, "cache_dir": shared}, "--cache-dir"),
        ({**bucket, "index": "milvus:engine.db"}, "Milvus Lite is a file of one machine"),
    )
    for settings, words in wrong:
        with pytest.raises(StartupError) as refused:
            check_places(Settings(data_dir=shared, **settings))
        assert words in refused.value.detail
        assert "hunter22" not in refused.value.detail
    check_places(Settings(data_dir=shared))
    check_places(Settings(data_dir=shared, **bucket, index="milvus://engine"))
    check_places(Settings(data_dir=shared, database=url, shared_media=True, cache_dir=cache))
    shared.mkdir()
    (shared / "sightline.db").touch()
    with pytest.raises(StartupError) as refused:
        check_places(Settings(data_dir=shared, **bucket))
    assert "two databases are named: postgresql://owner@db/pictures, and" in refused.value.detail


def test_a_worker_with_sqlite_on_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_other_machine(tmp_path)
    with closing(DataDirLock(tmp_path)):
        holder = find_holder(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()
        monkeypatch.setattr("app.service.data_dir.is_of_several_machines", lambda _: True)  # NFS, say
        refuse_other_machine(tmp_path)
        monkeypatch.setattr("socket.gethostname", lambda: "another")
        with pytest.raises(StartupError, match="SQLite is a database of one machine"):
            refuse_other_machine(tmp_path)
    assert find_holder(tmp_path) is None
