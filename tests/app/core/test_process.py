from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from app.core.process import child_env, sightline_command, spawn
from tests.support.servers import wait_until

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
child.wait()
"""
CHILD = """
import os, time
from app.core.process import die_with_parent
die_with_parent(os.getppid())
print("bound", flush=True)
time.sleep(60)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_is_killed_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline() == "bound\n"
    assert running(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not running(pid), 30)


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    code = "from app.core.process import die_with_parent; die_with_parent(1); print('still here')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert os.getpid() != 1


def test_a_child_runs_our_code_whatever_lies_in_its_working_directory(tmp_path: Path) -> None:
    for name in ("app", "index"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    child = subprocess.run(
        sightline_command("--version"),
        env=child_env(os.environ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (child.returncode, child.stdout.strip()) == (0, f"sightline, version {__version__}"), child.stderr


def test_a_child_keeps_the_import_path_that_was_given() -> None:
    assert "/given/by/hand" in child_env({"PYTHONPATH": "/given/by/hand"})["PYTHONPATH"].split(os.pathsep)


REPORT = "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '', sys.argv[1:], os.environ['ADDED'])"


def test_a_spawned_module_gets_its_arguments_no_input_and_a_session_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reporting.py").write_text(REPORT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with spawn("reporting", "a", "b c", env={"ADDED": "1"}, stdout=subprocess.PIPE) as child:
        assert child.communicate(timeout=30)[0].decode().strip() == "True True ['a', 'b c'] 1"
