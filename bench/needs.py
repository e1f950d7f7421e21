"""Measure the needs of an installation: memory at rest and under load, processor time, disk, and the least memory.

python -m bench.needs [MIB...]  (runs `sightline demo --once` within each limit of MIB, which takes root)
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
CGROUPS = (  # (folder, limit, peak, count of kills) of control groups, version 1 and 2
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    ("/sys/fs/cgroup", "memory.max", "memory.peak", "memory.events"),
)


def main() -> None:
    table = Table("need", "figure")
    packages = disk_bytes(Path(sys.prefix))
    table.add_row("disk of the environment that runs this", f"{packages / MIB:.0f} MiB")
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port(HOST, 0)
        with run_server(Path(scratch), HOST, port) as process, Client(f"http://{HOST}:{port}") as client:
            wait_until_ready(client, process)
            wait_for_worker(process.pid)
            measure_at_rest(process.pid, table)
            measure_under_load(process.pid, client, table)
            measure_disk(Path(scratch), client, table)
    for limit in sorted(map(int, sys.argv[1:]), reverse=True):
        table.add_row(f"the demo within {limit} MiB", try_limit(limit))
    console = Console(width=140)
    console.print(f"{os.cpu_count()} cores; starter model, one worker, two decoders in each process")
    console.print(table)


def list_processes(pid: int, part: str = "server") -> Iterator[tuple[int, str]]:
    """Yield (id, part) of the server, its worker and the children of both."""
    yield pid, part
    for child in list_children(pid):
        yield from list_processes(child, "worker" if is_worker(child) else f"children of the {part.split()[-1]}")


def list_children(pid: int) -> list[int]:
    """The ids of the process's running children."""
    try:
        tasks = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for listed in tasks for child in listed.split()]


def is_worker(pid: int) -> bool:
    try:
        return b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def proportional_bytes(pid: int) -> int:
    """Memory of a process; a page that n processes share counts as an n-th (PSS)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def processor_seconds(pid: int) -> float:
    """Processor time of the server's processes, including children that ended."""
    ticks = 0
    for member, _ in list_processes(pid):
        try:
            stat = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, stat[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_for_worker(pid: int) -> None:
    """Wait until the worker has loaded its model."""
    while sum(proportional_bytes(member) for member, part in list_processes(pid) if part == "worker") < 90 * MIB:
        time.sleep(0.2)
    time.sleep(SETTLE_SECONDS)


def measure_at_rest(pid: int, table: Table) -> None:
    parts: dict[str, int] = {}
    for member, part in list_processes(pid):
        parts[part] = parts.get(part, 0) + proportional_bytes(member)
    detail = ", ".join(f"{part} {used / MIB:.0f}" for part, used in parts.items())
    table.add_row("memory at rest (proportional)", f"{sum(parts.values()) / MIB:.0f} MiB: {detail}")
    before, began = processor_seconds(pid), time.monotonic()
    time.sleep(SETTLE_SECONDS)
    spent = (processor_seconds(pid) - before) / (time.monotonic() - began)
    table.add_row("processor at rest", f"{spent:.1%} of one core")


def measure_under_load(pid: int, client: Client, table: Table) -> None:
    """Upload the gallery as one bulk; record peak memory and processor time."""
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(SAMPLE_SECONDS):
            most = max(most, sum(proportional_bytes(member) for member, _ in list_processes(pid)))

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


def measure_disk(data: Path, client: Client, table: Table) -> None:
    """Record what the data directory takes for a thousand pictures."""
    pictures = client.stats()["images"]["total"]
    parts = {path.name: disk_bytes(path) * 1000 / pictures / MIB for path in sorted(data.iterdir())}
    detail = ", ".join(f"{name} {used:.1f}" for name, used in parts.items() if used >= 0.05)
    table.add_row("disk of 1,000 pictures of the gallery", f"{sum(parts.values()):.1f} MiB: {detail}")


def disk_bytes(path: Path) -> int:
    """Bytes that a file or folder takes on its disk; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for file in [path, *path.rglob("*")]:
        stat = file.lstat()
        seen[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(seen.values())


@contextmanager
def cgroup(mib: int) -> Iterator[tuple[Path, str, str]]:
    """Make a control group with a limit; yield its folder and the names of its peak and kill-count files."""
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


def try_limit(mib: int) -> str:
    """Run the demo within `mib` MiB; say how it ended."""
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
    result = "works" if ended.returncode == 0 else json.dumps(ended.stderr.strip()[-100:])
    return f"{result}, {killed} processes killed, {seconds:.0f} s, {most:.0f} MiB used at most with its files"


if __name__ == "__main__":
    main()
