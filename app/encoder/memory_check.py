"""Check before a model is loaded whether the memory of this machine suffices.

The need is a lower bound, measured with ViT-B/32 and the starter in OpenVINO and torch (see
docs/decisions/0018-memory-is-checked.md): memory that the system cannot take back, without mapped files. A machine with
that much memory may still be slow; with less the system would kill the process while it loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.core.errors import StartupError
from app.encoder.weights import ParameterCount

MIB = 1 << 20
OPENVINO = 50 * MIB  # of a process with OpenVINO, without weights
TORCH = 250 * MIB  # of a process with torch
CONVERTER = 528 * MIB  # of the child that converts, with OpenVINO and torch
WAITING_WORKER = 115 * MIB  # of a worker that waits for the conversion, with its decode children
COPIES = 2  # of the weights in fp32, at the peak of the conversion
CONVERTING = "to be converted for this processor, once"
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
NO_LIMIT = 1 << 60  # without a limit, cgroup v1 writes a larger number


@dataclass(frozen=True, slots=True)
class ModelProcesses:
    """The processes that load the model: servers, which answer queries, and workers, which only encode pictures."""

    servers: int = 0
    workers: int = 0


NO_PROCESSES = ModelProcesses()


def estimate_openvino(size: ParameterCount, processes: ModelProcesses, precision: str) -> int:
    """Least bytes for all processes in OpenVINO. The text tower counts half: much of it stays in its file."""
    each = BYTES[precision]
    image, text = size.image * each, (size.whole - size.image) * max(2, each)  # int8 is for pictures alone
    return processes.servers * (OPENVINO + image + text // 2) + processes.workers * (OPENVINO + image)


def estimate_torch(size: ParameterCount, processes: ModelProcesses) -> int:
    """Least bytes for all processes in torch on a CPU: each builds the whole model in fp32."""
    return (processes.servers + processes.workers) * (TORCH + 4 * size.whole)


def estimate_gpu_loading(size: ParameterCount) -> int:
    """Least bytes of main memory while one process builds the model, before it moves to the GPU."""
    return TORCH + 4 * size.whole


def estimate_conversion(size: ParameterCount, processes: ModelProcesses = NO_PROCESSES) -> int:
    """Least bytes for one conversion to OpenVINO, and for the workers that the server starts meanwhile."""
    waiting = processes.workers if processes.servers else 0
    return CONVERTER + COPIES * 4 * size.whole + waiting * WAITING_WORKER


def check_memory(name: str, need: int, processes: ModelProcesses, purpose: str, root: Path = Path("/")) -> None:
    """Raise StartupError, which says what to do, if less than `need` bytes are available and there are processes."""
    have = available_memory(root) if processes.servers + processes.workers else None
    if have is None or have >= need:
        return
    can_drop_worker = processes.servers and processes.workers > 1 and purpose != CONVERTING
    fewer = f", --workers {processes.workers - 1}" if can_drop_worker else ""
    raise StartupError(
        f"model {name} needs at least {_format_bytes(need)} of memory {purpose}, but {_format_bytes(have)} are"
        f" available; end other programs, choose a smaller model (`sightline models`){fewer}, or set"
        " SIGHTLINE_IGNORE_MEMORY=true to try it"
    )


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that the system and the control groups leave to this process; None if the system does not tell."""
    kib = _read_table(root / "proc/meminfo")
    if "MemAvailable:" not in kib:
        return None
    return min([kib["MemAvailable:"] * 1024, *_read_groups(root)]) + kib.get("SwapFree:", 0) * 1024


def _read_groups(root: Path) -> list[int]:
    """Bytes that each control group (v1 or v2) of this process leaves to it."""
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
        # In a container the path may be that of the host, while the group is mounted at the top.
        for depth in range(len(parts) + 1):
            group = top.joinpath(*parts[:depth])
            if (rest := _read_group(group, limit, usage)) is not None:
                left.append(rest)
    return left


def _read_group(group: Path, limit: str, usage: str) -> int | None:
    """Bytes below the limit of a group, with its cached files; None without a limit."""
    most, used = _read_number(group / limit), _read_number(group / usage)
    if most is None or used is None or most >= NO_LIMIT:
        return None
    values = _read_table(group / "memory.stat")
    prefix = "total_" if "total_inactive_file" in values else ""
    files = values.get(f"{prefix}inactive_file", 0) + values.get(f"{prefix}active_file", 0)
    return max(0, most - used + files)


def _read_number(path: Path) -> int | None:
    """The number in a file; None for `max` and for no file."""
    try:
        return int(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _read_table(path: Path) -> dict[str, int]:
    """A file with a word and a number on each line."""
    try:
        rows = [line.split() for line in path.read_text("utf-8").splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _format_bytes(count: int) -> str:
    return f"{count >> 20} MiB" if count < 2 << 30 else f"{count / (1 << 30):.1f} GiB"
