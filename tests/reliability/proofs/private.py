"""Other users of the machine read nothing that Sightline keeps, and cannot lock the server out.

The proof starts a server under the usual umask (022), loads pictures one by one and as an archive that waits, makes
an API key, a backup, a report of a job and a restored directory, in a folder that everybody may enter. Another user
(nobody) then tries to list and to open every file and folder that root finds there. He also tries to lock each file,
as the server locks its own, and holds what he gets while the server is started again. Then all is opened wide, as a
version before left it: the server must say so with a command, lock nobody's hands with its lock file, and the command
must close everything.

Failing: the stranger opens, lists or locks something below the data directory, the backup or the restored directory; a
server does not start beside him; a server on an old directory gives no command, or the command does not close it. The
proof itself fails when the stranger cannot read a file that everybody may read.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from tests.acceptance.commands import sightline
from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.support.archives import make_zip
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(24, "private", "Other users of the machine read nothing of it, and cannot lock the server out.")
NOBODY = 65534
OPENED = """
import fcntl, json, os, sys
held, opened = [], []
for path in json.load(sys.stdin):
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        continue
    opened.append(path)
    held.append(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as SQLite locks; it needs no more than reading
    except OSError:
        pass
print(json.dumps(opened), flush=True)
os.close(1)
os.read(int(sys.argv[1]), 1)  # hold the locks until the other end of the pipe is closed
"""


def run(scale: Scale) -> Outcome:
    """One server in both forms; 200 pictures in the long one."""
    if os.geteuid() != 0:
        raise Impossible("to become another user needs root")
    wrong: list[str] = []
    before = os.umask(0o022)
    try:
        with tempfile.TemporaryDirectory() as name:
            top = Path(name)
            top.chmod(0o755)
            (top / "public").write_bytes(b"x")
            files = keep_everything(top, scale.pick(6, 200))
            tried = find_below(top)
            wrong += [f"the stranger opens {path.relative_to(top)}" for path in open_as_stranger(top, tried)]
            wrong += start_beside_stranger(top, tried)
            wrong += check_old_directory(top)
    finally:
        os.umask(before)
    figure = (
        f"{files} files and {len(tried) - files} folders: {len(wrong)} faults{'; ' * bool(wrong)}{'; '.join(wrong[:3])}"
    )
    return Outcome(figure, not wrong and files > 12)


def keep_everything(top: Path, count: int) -> int:
    """Bring about every kind of file that Sightline keeps; returns their number."""
    data = top / "data"
    assert sightline("keys", "create", "me", "--scope", "admin", "--data-dir", data).returncode == 0
    assert sightline("keys", "clear", "--yes", "--data-dir", data).returncode == 0
    with RunningServer(data) as server:
        for n in range(count):
            server.upload(picture("red", seed=n)).raise_for_status()
        job = server.bulk([("all.zip", make_zip({"a.png": picture("blue")}))])
        server.wait_job(job["id"])
        environment = {"SIGHTLINE_SERVER": server.url}
        report = sightline("job", job["id"], "--report", top / "report.jsonl", **environment)
        assert report.returncode == 0, report.stderr
        assert sightline("backup", top / "backup", "--data-dir", data).returncode == 0
    with RunningServer(data, workers=0) as server:  # nobody imports this: it waits, and is part of a second backup
        server.bulk([("all.zip", make_zip({"b.png": picture("green")}))])
        assert sightline("backup", top / "backup", "--data-dir", data).returncode == 0
    assert sightline("restore", top / "backup", "--data-dir", top / "restored").returncode == 0
    return sum(path.is_file() for path in find_below(top))


def find_below(top: Path) -> list[Path]:
    """All that root sees, but what everybody may read."""
    return [path for path in sorted(top.rglob("*")) if path != top / "public"]


@contextmanager
def be_stranger(paths: list[Path]) -> Iterator[list[Path]]:
    """What another user can open of these paths; he holds it, locked, until the block ends."""
    ours, his = os.pipe()
    command = [find_python(), "-c", OPENED, str(ours)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        pass_fds=[ours],
        cwd="/",
        text=True,
    ) as stranger:
        os.close(ours)
        try:
            assert stranger.stdin is not None
            assert stranger.stdout is not None
            stranger.stdin.write(json.dumps([str(path) for path in paths]))
            stranger.stdin.close()
            yield [Path(path) for path in json.loads(stranger.stdout.readline())]
        finally:
            os.close(his)


@cache
def find_python() -> str:
    """A Python that another user may run: one in a private home he may not."""
    for python in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([python, "-c", ""], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", check=True)
            return python
    raise Impossible("no Python of this machine may be run by another user")


def open_as_stranger(top: Path, paths: list[Path]) -> list[Path]:
    """What another user opens. Fails when he does not open what everybody may read."""
    with be_stranger([top / "public", *paths]) as opened:
        assert opened[0] == top / "public", "the stranger cannot try anything here"
        return opened[1:]


def start_beside_stranger(top: Path, paths: list[Path]) -> list[str]:
    """Start the server while another user tries to hold every file."""
    with be_stranger(paths):
        try:
            with RunningServer(top / "data") as server:
                server.upload(picture("blue", seed=999)).raise_for_status()
        except AssertionError as error:
            return [f"a server beside the stranger: {str(error)[:200]}"]
    return []


def check_old_directory(top: Path) -> list[str]:
    """Open everything wide, start a server, and run the command that it gives."""
    data = top / "data"
    subprocess.run(["chmod", "-R", "go=rX", str(data)], check=True)
    found = []
    if data / "sightline.db" not in open_as_stranger(top, find_below(top)):
        found.append("the proof did not open the directory")
    with RunningServer(data) as server:
        locked = [data / "lock", *data.glob("sightline.db*")]
        found += [f"the stranger can lock {path.name} of an old directory" for path in open_as_stranger(top, locked)]
        command = re.search(rf"chmod -R go= {re.escape(str(data))}", server.output())
    if command is None:
        return [*found, "no command for an old directory"]
    subprocess.run(command.group(), shell=True, check=True)
    left = open_as_stranger(top, find_below(data))
    return found + [f"the stranger opens {path} after {command.group()}" for path in left]
