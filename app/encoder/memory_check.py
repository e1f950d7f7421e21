"""Whether a model fits into this machine's memory, told before it is loaded.

The need is a lower bound, from what was measured with ViT-B/32 and the starter in OpenVINO and torch (see
docs/decisions/0018-memory-is-checked.md): memory that cannot be given back, not what is mapped from files.
A machine that has it may still be slow; one that has not would be stopped by the system in the middle of loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.core.errors import StartupError
from app.encoder.weights import ParameterCount

MIB = 1 << 20
RUNTIME = 50 * MIB  # of a process with OpenVINO, before any weights
TORCH = 250 * MIB  # of a process with torch
CONVERTER = 528 * MIB  # of the child that converts, with both
WAITER = 115 * MIB  # of a worker that waits for it, with its decode children
COPIES = 2  # of the weights in fp32 that it holds at its peak
CONVERTING = "to be prepared for this processor, once"
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
NO_LIMIT = 1 << 60  # cgroup v1 writes a number above this for none


@dataclass(frozen=True, slots=True)
class ModelProcesses:
    """The processes that will hold the model here: those that answer queries, and workers, which see pictures only."""

    servers: int = 0
    workers: int = 0


NO_PROCESSES = ModelProcesses()


def estimate_openvino(holds: ParameterCount, crew: ModelProcesses, precision: str) -> int:
    """Bytes that the crew needs at least, in OpenVINO. The text tower counts half: much of it stays in its file."""
    each = BYTES[precision]
    seen, read = holds.image * each, (holds.whole - holds.image) * each
    return crew.servers * (RUNTIME + seen + read // 2) + crew.workers * (RUNTIME + seen)


def estimate_torch(holds: ParameterCount, crew: ModelProcesses) -> int:
    """Bytes that the crew needs at least, in torch on a CPU: each process builds the whole model in fp32."""
    return (crew.servers + crew.workers) * (TORCH + 4 * holds.whole)


def estimate_gpu_loading(holds: ParameterCount) -> int:
    """Bytes of the machine's own memory while one process builds the model, before it goes to the GPU."""
    return TORCH + 4 * holds.whole


def estimate_conversion(holds: ParameterCount, crew: ModelProcesses = NO_PROCESSES) -> int:
    """Bytes that converting for OpenVINO takes at least, once, with the workers that a server starts meanwhile."""
    waiting = crew.workers if crew.servers else 0
    return CONVERTER + COPIES * 4 * holds.whole + waiting * WAITER


def check_memory(name: str, need: int, crew: ModelProcesses, what: str, root: Path = Path("/")) -> None:
    """Raise StartupError, with what to do, if there are not `need` bytes for `what`. An empty crew is not checked."""
    have = available_memory(root) if crew.servers + crew.workers else None
    if have is None or have >= need:
        return
    fewer = f", --workers {crew.workers - 1}" if crew.servers and crew.workers > 1 and what != CONVERTING else ""
    raise StartupError(
        f"model {name} needs at least {_said(need)} of memory {what}, but {_said(have)} are available; end other"
        f" programs, choose a smaller model (`sightline models`){fewer}, or set SIGHTLINE_IGNORE_MEMORY=true to try it"
    )


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still use: the system's, or what its control groups leave; None if nobody says."""
    system = _meminfo(root)
    if system is None:
        return None
    free, swap = system
    return min([free, *_groups(root)]) + swap


def _meminfo(root: Path) -> tuple[int, int] | None:
    """Bytes of memory available and of swap free."""
    said = _numbers(root / "proc/meminfo")
    if "MemAvailable:" not in said:
        return None
    return said["MemAvailable:"] * 1024, said.get("SwapFree:", 0) * 1024


def _groups(root: Path) -> list[int]:
    """Bytes that each control group around this process leaves: those of cgroup v2, or of v1."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, usage = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        # In a container the path may be that of the host, and the group itself is mounted at the top.
        for depth in range(len(parts) + 1):
            group = top.joinpath(*parts[:depth])
            if (rest := _rest(group, limit, usage)) is not None:
                left.append(rest)
    return left


def _rest(group: Path, limit: str, usage: str) -> int | None:
    """Bytes below the group's limit, with what it would give back of files; None without a limit."""
    most, used = _number(group / limit), _number(group / usage)
    if most is None or used is None or most >= NO_LIMIT:
        return None
    said = _numbers(group / "memory.stat")
    prefix = "total_" if "total_inactive_file" in said else ""
    files = said.get(f"{prefix}inactive_file", 0) + said.get(f"{prefix}active_file", 0)
    return max(0, most - used + files)


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none (`max`, no file)."""
    try:
        return int(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _numbers(path: Path) -> dict[str, int]:
    """Lines of a word and a number."""
    try:
        rows = [line.split() for line in path.read_text("utf-8").splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _said(count: int) -> str:
    return f"{count >> 20} MiB" if count < 2 << 30 else f"{count / (1 << 30):.1f} GiB"
