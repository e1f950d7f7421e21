"""strace: what a server asks of the system, in order; and a kill or an error at a chosen call."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.promise import Impossible

LINE = re.compile(r"(\d+) +(?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*))$")
END = re.compile(r"(.*)\) += (.*)$")


def require() -> str:
    """The path of strace. Raises Impossible where it is not installed, or may trace nothing."""
    found = shutil.which("strace")
    if found is None:
        raise Impossible("strace is not installed")
    if subprocess.run([found, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        raise Impossible("strace may not trace here")
    return found


@contextmanager
def attach_strace(pid: int, *options: str, into: str | Path = "/dev/null") -> Iterator[subprocess.Popen[str]]:
    """strace looking at every thread of a process, from the first line of the `with` to its last."""
    command = [require(), "-f", "-p", str(pid), "-o", str(into), *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert tracer.stderr is not None
    try:
        first = tracer.stderr.readline()
        assert "attached" in first, first
        yield tracer
    finally:
        tracer.terminate()
        tracer.wait(20)
        tracer.stderr.close()


def kill_at_syscall(call: str, when: int) -> tuple[str, str]:
    """strace's options for: kill -9 on the way into the nth such call of a thread."""
    return "-e", f"inject={call}:signal=KILL:when={when}"


def fail_syscall(calls: str, when: int) -> tuple[str, str]:
    """strace's options for: the nth such call of a thread does nothing and fails with EIO."""
    return "-e", f"inject={calls}:error=EIO:when={when}"


@dataclass(frozen=True, slots=True)
class Call:
    """One system call. `began` and `ended` count the lines of the trace."""

    name: str
    arguments: str
    result: str
    began: int
    ended: int

    @property
    def ok(self) -> bool:
        """Whether it did what was asked."""
        return self.result[:1].isdigit()


def read_calls(trace: Path, first: int = 0) -> list[Call]:
    """The calls of a trace (`-f -o FILE`), in the order in which they began; those that never ended are left out.

    `first` is the number of its first line.
    """
    begun: dict[str, tuple[str, str, int]] = {}
    found: list[Call] = []
    with open(trace, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, first):
            match = LINE.match(line)
            if match is None:
                continue
            thread, name, rest, resumed, more = match.groups()
            if name is not None and rest.endswith("<unfinished ...>"):
                begun[thread] = (name, rest.removesuffix("<unfinished ...>"), number)
                continue
            began = number
            if resumed is not None:
                if thread not in begun:
                    continue
                name, before, began = begun.pop(thread)
                rest = before + more
            if ended := END.match(rest):
                found.append(Call(name, ended[1], ended[2], began, number))
    return sorted(found, key=lambda call: call.began)
