"""What a proof sees of a server from outside: its memory, and the crowd that is sent against it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.servers import RunningServer

MIB = 1 << 20


def read_memory(pid: int) -> int:
    """Bytes that a process holds resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


class Watch:
    """The most memory that a process holds, looked at ten times a second, above what it held at first."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.first = self.most = read_memory(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def more(self) -> int:
        """MiB above the first."""
        return (self.most - self.first) // MIB

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            try:
                self.most = max(self.most, read_memory(self.pid))
            except OSError:  # it is gone, which the proof itself will see
                return


@dataclass(slots=True)
class Probe:
    """What one client in good faith got: the statuses, or what came instead, and the seconds of those served."""

    asked: int = 0
    served: list[float] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the requests, those that were served."""
        return len(self.served) / max(1, self.asked)

    def quantile(self, share: float) -> float:
        """Seconds within which that share of the served ones was."""
        return sorted(self.served)[int(share * (len(self.served) - 1))] if self.served else float("inf")


def port_of(server: RunningServer) -> int:
    """Where it listens."""
    return urlsplit(server.url).port or 0


def ask(port: int, path: str, timeout: float = 10.0) -> tuple[str, float]:
    """A request on a connection of its own: its status or error, and the seconds."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status), time.monotonic() - began
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, time.monotonic() - began
    finally:
        connection.close()


def probe(port: int, path: str, seconds: float, rate: float = 5.0) -> Probe:
    """Ask so many times a second, whether or not the one before was answered yet."""
    result = Probe()
    asked: list[Future[tuple[str, float]]] = []
    began = time.monotonic()
    with ThreadPoolExecutor(64) as threads:
        while time.monotonic() < began + seconds:
            asked.append(threads.submit(ask, port, path))
            time.sleep(max(0.0, began + len(asked) / rate - time.monotonic()))
    result.asked = len(asked)
    for status, took in (each.result() for each in asked):
        if status == "200":
            result.served.append(took)
        else:
            result.others.append(status)
    return result


@contextmanager
def start_crowd(order: dict[str, Any], module: str = "tests.reliability.crowd") -> Iterator[Future[dict[str, Any]]]:
    """A crowd in a process of its own; what it tells at its end. It is ended with the block if it has not by itself."""
    process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with ThreadPoolExecutor(1) as thread:
        told = thread.submit(lambda: dict(json.loads(process.communicate(json.dumps(order))[0] or "{}")))
        try:
            yield told
            told.result(120)
        finally:
            process.kill()
            process.wait()
