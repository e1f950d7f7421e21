from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.sources import folder_events
from app.sources.folder_events import FolderEvents, describe_events_error, is_of_network


def test_the_kernel_reports_what_changes_below_a_folder(tmp_path: Path) -> None:
    events = FolderEvents(tmp_path, threading.Event(), polls=False)
    try:
        (tmp_path / "a").mkdir()
        deadline = time.monotonic() + 30
        found: set[str] = set()
        while str(tmp_path / "a") not in found and time.monotonic() < deadline:
            found |= events.wait()
        assert str(tmp_path / "a") in found
        assert (events.polls, events.fault) == (False, None)
    finally:
        events.close()
        events.close()


def test_what_cannot_be_listened_to_is_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = threading.Event()
    stopped.set()
    events = FolderEvents(tmp_path, stopped, polls=True)
    events.check(1)
    assert (events.wait(), events.fault) == (set(), None)
    monkeypatch.setattr(folder_events, "find_file_system", lambda path: ("nfs4", "/mnt"))
    drive = FolderEvents(tmp_path, stopped, polls=False)
    assert (drive.polls, drive.fault) == (True, None)


LIMITED = """
import sys, threading
from pathlib import Path
from app.sources.folder_events import FolderEvents
events = FolderEvents(Path(sys.argv[1]), threading.Event(), polls=False)
events.check(20)
print(events.polls, events.fault)
"""


@pytest.mark.parametrize(
    ("limit", "value", "expected"),
    [
        ("max_inotify_watches", 5, "max_user_watches=1048576"),
        ("max_inotify_instances", 0, "max_user_instances=1024"),
        ("max_inotify_watches", 50, "False None"),
    ],
)
def test_a_limit_of_the_kernel_is_named_with_the_command_that_raises_it(
    limit: str, value: int, expected: str, tmp_path: Path
) -> None:
    """In a user namespace, whose limit concerns nobody else."""
    for n in range(19):
        (tmp_path / str(n)).mkdir()
    command = f'echo {value} > /proc/sys/user/{limit} && exec "$0" -c "$1" "$2"'
    ended = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", command, sys.executable, LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode and "unshare" in ended.stderr:
        pytest.skip("there are no user namespaces here")
    assert expected in ended.stdout, ended.stderr


def test_another_failure_of_the_kernel_is_reported() -> None:
    assert describe_events_error(OSError("odd")).endswith("by scans only: odd")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nfs4", True),
        ("cifs", True),
        ("fuse.sshfs", True),
        ("9p", True),
        ("virtiofs", True),
        ("ext4", False),
        ("", False),
    ],
)
def test_file_systems_of_networks_are_recognised(kind: str, expected: bool) -> None:
    assert is_of_network(kind) is expected
