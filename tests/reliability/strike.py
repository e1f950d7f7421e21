"""kill -9 of a server, of its workers, or of both; what belonged to them must end with them."""

from __future__ import annotations

import os
import signal

from tests.support.processes import descendants, is_running, is_unlocked, read_command_line
from tests.support.servers import RunningServer, wait_until

SECONDS = 30.0


def workers(server: RunningServer) -> list[int]:
    """The worker processes, once there is one."""
    return [pid for pid in server.pids() if "worker" in read_command_line(pid)]


def kill_processes(server: RunningServer, kind: str) -> None:
    """Kill the `worker`, the `server` or `both`. Raises AssertionError when a child lives on."""
    those = workers(server)
    if kind == "worker":
        gone = [*those, *(child for pid in those for child in descendants(pid))]
    else:
        gone = descendants(server.process.pid)
    if kind != "server":
        for pid in those:
            os.kill(pid, signal.SIGKILL)
    if kind != "worker":
        server.kill()
    wait_until(lambda: not [pid for pid in gone if is_running(pid)], SECONDS, lambda: f"still there: {gone}")
    if kind != "worker":
        assert is_unlocked(server.data_dir)
