"""What an installation needs: memory at rest and under load, processor time, disk, and the least memory it works in.

python -m bench.needs [MIB...]  (each MIB is a limit that `sightline demo --once` is tried in, which takes root)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from app.core.process import child_env, sightline_command
from app.service.demo_gallery import find_gallery

HOST = "127.0.0.1"
MIB = 1 << 20
SETTLE_SECONDS = 5.0
SAMPLE_SECONDS = 0.1
DEMO_SECONDS = 600
CGROUPS = (  # (where, the limit, what was used at most, where kills are counted) of version 1 and 2
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    ("/sys/fs/cgroup", "memory.max", "memory.peak", "memory.events"),
)


def main() -> None:
    """Print a table of needs."""
    table = Table("need", "figure")
    packages = size(Path(sys.prefix))
    table.add_row("disk of the environment that runs this", f"{packages / MIB:.0f} MiB")
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port(HOST, 0)
        with run_server(Path(scratch), HOST, port) as process, Client(f"http://{HOST}:{port}") as client:
            wait_until_ready(client, process)
            until_worker(process.pid)
            at_rest(process.pid, table)
            under_load(process.pid, client, table)
            on_disk(Path(scratch), client, table)
    for limit in sorted(map(int, sys.argv[1:]), reverse=True):
        table.add_row(f"the demo within {limit} MiB", within(limit))
    console = Console(width=140)
    console.print(f"{os.cpu_count()} cores; starter model, one worker, two decoders in each process")
    console.print(table)


def family(pid: int, part: str = "server") -> Iterator[tuple[int, str]]:
    """(id, part) of the server, its worker and the children of both."""
    yield pid, part
    for child in children(pid):
        yield from family(child, "worker" if is_worker(child) else f"children of the {part.split()[-1]}")


def children(pid: int) -> list[int]:
    """The ids of those that the process started and that still run."""
    try:
        tasks = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for listed in tasks for child in listed.split()]


def is_worker(pid: int) -> bool:
    """Whether it is a process of `sightline worker`."""
    try:
        return b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def proportional(pid: int) -> int:
    """Bytes of a process in memory, pages that n processes share counted as an n-th."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def processor_seconds(pid: int) -> float:
    """Of the family, with the children that ended."""
    ticks = 0
    for member, _ in family(pid):
        try:
            stat = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, stat[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def until_worker(pid: int) -> None:
    """Until the worker has its model, too."""
    while sum(proportional(member) for member, part in family(pid) if part == "worker") < 90 * MIB:
        time.sleep(0.2)
    time.sleep(SETTLE_SECONDS)


def at_rest(pid: int, table: Table) -> None:
    parts: dict[str, int] = {}
    for member, part in family(pid):
        parts[part] = parts.get(part, 0) + proportional(member)
    told = ", ".join(f"{part} {used / MIB:.0f}" for part, used in parts.items())
    table.add_row("memory at rest (proportional)", f"{sum(parts.values()) / MIB:.0f} MiB: {told}")
    before, began = processor_seconds(pid), time.monotonic()
    time.sleep(SETTLE_SECONDS)
    spent = (processor_seconds(pid) - before) / (time.monotonic() - began)
    table.add_row("processor at rest", f"{spent:.1%} of one core")


def under_load(pid: int, client: Client, table: Table) -> None:
    """The gallery as one bulk."""
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(SAMPLE_SECONDS):
            most = max(most, sum(proportional(member) for member, _ in family(pid)))

    watcher = threading.Thread(target=watch)
    before = processor_seconds(pid)
    watcher.start()
    job = client.upload_bulk([("gallery.zip", find_gallery() / "gallery.zip")])
    while (job := client.job(job["id"]))["state"] in ("queued", "running"):
        time.sleep(0.1)
    done.set()
    watcher.join()
    spent = processor_seconds(pid) - before
    table.add_row(f"memory under a bulk of {job['total']}, at most", f"{most / MIB:.0f} MiB")
    table.add_row("processor of that bulk", f"{spent:.0f} s, {1000 * spent / job['total']:.0f} ms a picture")


def on_disk(data: Path, client: Client, table: Table) -> None:
    """What the data directory takes, put on a thousand pictures."""
    pictures = client.stats()["images"]["total"]
    parts = {path.name: size(path) * 1000 / pictures / MIB for path in sorted(data.iterdir())}
    told = ", ".join(f"{name} {used:.1f}" for name, used in parts.items() if used >= 0.05)
    table.add_row("disk of 1,000 pictures of the gallery", f"{sum(parts.values()):.1f} MiB: {told}")


def size(path: Path) -> int:
    """Bytes that a file or folder takes on its disk; a file with several names is counted once."""
    seen: dict[tuple[int, int], int] = {}
    for file in [path, *path.rglob("*")]:
        stat = file.lstat()
        seen[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(seen.values())


@contextmanager
def cgroup(mib: int) -> Iterator[tuple[Path, str, str]]:
    """A control group with a limit: its folder, and the files of its peak and its kills."""
    for where, limit, peak, kills in CGROUPS:
        folder = Path(where) / f"sightline-needs-{os.getpid()}"
        if (Path(where) / limit).exists() or (where.endswith("cgroup") and (Path(where) / "cgroup.procs").exists()):
            folder.mkdir()
            try:
                (folder / limit).write_text(str(mib * MIB))
                yield folder, peak, kills
            finally:
                folder.rmdir()
            return
    raise SystemExit("this machine has no control groups for memory")


def within(mib: int) -> str:
    """How the demo ends under a limit."""
    with cgroup(mib) as (folder, peak, kills):
        began = time.monotonic()
        ended = subprocess.run(
            [
                "sh",
                "-c",
                f'echo $$ > {folder}/cgroup.procs; exec "$@"',
                "sh",
                *sightline_command("demo", "--once", "--port", "0"),
            ],
            env=child_env(os.environ),
            capture_output=True,
            text=True,
            timeout=DEMO_SECONDS,
            check=False,
        )
        seconds = time.monotonic() - began
        most = int((folder / peak).read_text()) / MIB
        killed = next(line.split()[1] for line in (folder / kills).read_text().splitlines() if "oom_kill " in line)
    said = "works" if ended.returncode == 0 else json.dumps(ended.stderr.strip()[-100:])
    return f"{said}, {killed} processes killed, {seconds:.0f} s, {most:.0f} MiB used at most with its files"


if __name__ == "__main__":
    main()
