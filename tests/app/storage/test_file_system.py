"""A file system that lacks something is named at the start, with the operation and what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.errors import StartupError
from app.core.locks import DataDirLock
from app.core.settings import Settings
from app.service.service import open_service
from app.storage.file_system import check_file_system, find_file_system
from tests.app.conftest import SmallDisk
from tests.reliability import traced
from tests.reliability.promise import Impossible

TRY = "import sys; from pathlib import Path; from app.storage.file_system import check_file_system as check\n"
TRY += "from app.core.errors import StartupError\n"
TRY += "try: check(Path(sys.argv[1]))\nexcept StartupError as error: print(error.detail)"
ANOTHER = "keep the data on a local disk"


def test_a_usual_disk_has_all_that_is_needed_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    check_file_system(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("calls", "error", "what", "remedy"),
    [
        ("flock", "ENOLCK", "lock a file (flock): No locks available", ANOTHER),
        ("flock", "EOPNOTSUPP", "lock a file (flock): Operation not supported", ANOTHER),
        ("fsync", "EINVAL", "write a file durably (fsync): Invalid argument", ANOTHER),
        ("fsync", "EOPNOTSUPP:when=2", "make a folder durable (fsync): Operation not supported", ANOTHER),
        ("rename,renameat,renameat2", "EPERM", "rename a file over another: Operation not permitted", "let the user"),
        ("mkdir,mkdirat", "EROFS", "make a folder in it: Read-only file system", "mount it for writing"),
        ("fdatasync", "EINVAL", "share a database among processes (SQLite's WAL)", ANOTHER),
    ],
)
def test_what_a_file_system_lacks_is_told_in_one_line(
    calls: str, error: str, what: str, remedy: str, tmp_path: Path
) -> None:
    try:
        strace = traced.require()
    except Impossible as missing:
        pytest.skip(str(missing))
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    command = [strace, "-f", "-qq", "-o", "/dev/null", *inject, sys.executable, "-B", "-c", TRY, str(tmp_path)]
    (line,) = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    kind, mounted_at = find_file_system(tmp_path)
    assert f"{tmp_path} cannot be used: it is on {kind} (mounted at {mounted_at}), which cannot {what}" in line
    assert remedy in line
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_reason_not_to_start(small_disk: SmallDisk) -> None:
    small_disk.fill()
    check_file_system(small_disk.folder)


def test_a_new_data_directory_on_a_full_disk_is_one_line(small_disk: SmallDisk) -> None:
    data_dir = small_disk.folder / "data"
    data_dir.mkdir()
    (data_dir / "lock").touch()
    small_disk.fill()
    DataDirLock(data_dir).close()
    shutil.rmtree(small_disk.folder / "names")  # names are left, and no bytes
    with pytest.raises(StartupError, match=r"^sightline\.db cannot be opened: the disk is full; free some space$"):
        open_service(Settings(data_dir=data_dir, model="colours"))


def test_the_file_system_of_a_path_is_the_one_mounted_nearest_to_it(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /mnt/my\\040disk rw shared:2 - exfat /dev/sdb1 rw\n"
        "31 30 0:41 / /mnt/my\\040disk rw - nfs4 nas:/share rw\n"
        "32 22 0:42 / /mnt/my rw master:1 shared:9 - tmpfs tmpfs rw\n"
    )
    for path, kind in (("/mnt/my disk/data", "nfs4"), ("/mnt/my/data", "tmpfs"), ("/mnt/mystery", "ext4")):
        assert find_file_system(Path(path), mounts)[0] == kind
    assert find_file_system(Path("/x"), tmp_path / "nothing") == ("", "")
