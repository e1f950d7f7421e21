"""What a model needs and what the machine has: the arithmetic, and files of several kinds of system."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import StartupError
from app.encoder.memory_check import (
    CONVERTING,
    NO_PROCESSES,
    ModelProcesses,
    available_memory,
    check_memory,
    estimate_conversion,
    estimate_gpu_loading,
    estimate_openvino,
    estimate_torch,
)
from app.encoder.weights import ParameterCount

MIB, GIB = 1 << 20, 1 << 30
STARTER = ParameterCount(whole=5_673_217, image=2_876_352)
VIT_B_32 = ParameterCount(whole=151_277_313, image=87_849_216)


@pytest.mark.parametrize(
    ("need", "measured"),
    [
        (estimate_openvino(VIT_B_32, ModelProcesses(servers=1), "bf16"), 821),
        (estimate_openvino(VIT_B_32, ModelProcesses(servers=1), "fp32"), 1109),
        (estimate_openvino(VIT_B_32, ModelProcesses(workers=1), "bf16"), 277),
        (estimate_openvino(VIT_B_32, ModelProcesses(workers=1), "fp32"), 488),
        (estimate_torch(VIT_B_32, ModelProcesses(servers=1)), 1131),
        (estimate_conversion(VIT_B_32), 1714),
        (estimate_openvino(STARTER, ModelProcesses(servers=1), "bf16"), 75),
        (estimate_openvino(STARTER, ModelProcesses(workers=1), "bf16"), 61),
        (estimate_conversion(STARTER), 572),
        (
            estimate_conversion(STARTER, ModelProcesses(1, 1)),
            814 - 85,
        ),  # of a whole service, without the server that asks
    ],
)
def test_the_need_is_never_more_than_was_measured_and_not_far_below(need: int, measured: int) -> None:
    assert measured * 0.3 < need / MIB <= measured


def test_every_process_of_the_crew_counts() -> None:
    alone, three = (
        estimate_openvino(VIT_B_32, ModelProcesses(1), "bf16"),
        estimate_openvino(VIT_B_32, ModelProcesses(1, 2), "bf16"),
    )
    assert three - alone == 2 * estimate_openvino(VIT_B_32, ModelProcesses(workers=1), "bf16")
    assert (
        estimate_torch(VIT_B_32, ModelProcesses(1, 2))
        == 3 * estimate_torch(VIT_B_32, ModelProcesses(1))
        == 3 * estimate_gpu_loading(VIT_B_32)
    )
    waiting = estimate_conversion(STARTER, ModelProcesses(1, 2)) - estimate_conversion(STARTER)
    assert waiting == 2 * (estimate_conversion(STARTER, ModelProcesses(1, 1)) - estimate_conversion(STARTER)) > 0
    assert estimate_conversion(STARTER, ModelProcesses(workers=1)) == estimate_conversion(
        STARTER
    )  # it is the one that asks
    assert (
        estimate_openvino(VIT_B_32, ModelProcesses(1), "fp16")
        == alone
        < estimate_openvino(VIT_B_32, ModelProcesses(1), "fp32")
    )


class System:
    """The files in which a system tells its memory."""

    def __init__(self, root: Path, free: int, swap: int = 0) -> None:
        self.root = root
        self.write("proc/meminfo", f"MemTotal: 9 kB\nMemAvailable: {free >> 10} kB\nSwapFree: {swap >> 10} kB\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group(self, path: str, most: object, used: int, files: int = 0) -> None:
        """A group of cgroup v2."""
        self.write(f"sys/fs/cgroup/{path}/memory.max", f"{most}\n")
        self.write(f"sys/fs/cgroup/{path}/memory.current", f"{used}\n")
        self.write(f"sys/fs/cgroup/{path}/memory.stat", f"anon 1\ninactive_file {files}\nactive_file 0\n")


def test_this_machine_tells_what_it_has() -> None:
    have = available_memory()
    assert have is not None
    assert 16 * MIB < have < 1 << 50


def test_without_groups_it_is_what_the_system_says_with_its_swap(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    System(tmp_path, 2 * GIB)
    assert available_memory(tmp_path) == 2 * GIB
    System(tmp_path, 2 * GIB, swap=GIB)
    assert available_memory(tmp_path) == 3 * GIB


def test_the_tightest_group_of_a_service_counts_and_its_files_can_be_given_back(tmp_path: Path) -> None:
    system = System(tmp_path, 8 * GIB)
    system.write("proc/self/cgroup", "0::/system.slice/sightline.service\n")
    system.group("system.slice/sightline.service", "max", GIB)
    assert available_memory(tmp_path) == 8 * GIB
    system.group("system.slice/sightline.service", 4 * GIB, 2 * GIB, files=GIB)
    assert available_memory(tmp_path) == 3 * GIB
    system.group("system.slice", GIB, 2 * GIB)
    assert available_memory(tmp_path) == 0


def test_a_container_finds_its_limit_at_the_top(tmp_path: Path) -> None:
    system = System(tmp_path, 8 * GIB)
    system.write("proc/self/cgroup", "0::/\n")
    system.group("", 2 * GIB, GIB)
    assert available_memory(tmp_path) == GIB
    system.write("proc/self/cgroup", "0::/../../docker/0123\n")
    assert available_memory(tmp_path) == GIB


def test_groups_of_the_first_version_are_read_too(tmp_path: Path) -> None:
    system = System(tmp_path, 8 * GIB)
    system.write("proc/self/cgroup", "5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n0::/\n")
    limit, top = "memory.limit_in_bytes", "sys/fs/cgroup/memory"
    system.write(f"{top}/memory.usage_in_bytes", f"{GIB}\n")
    system.write(f"{top}/memory.stat", f"inactive_file 5\ntotal_inactive_file {GIB // 2}\ntotal_active_file 0\n")
    system.write(f"{top}/{limit}", "9223372036854771712\n")
    assert available_memory(tmp_path) == 8 * GIB
    system.write(f"{top}/{limit}", f"{2 * GIB}\n")
    assert available_memory(tmp_path) == GIB + GIB // 2


def test_too_little_is_refused_in_one_line_that_names_need_have_and_ways_out(tmp_path: Path) -> None:
    System(tmp_path, GIB)
    with pytest.raises(StartupError) as refused:
        check_memory("big", 2 * GIB, ModelProcesses(1, 3), "to run", tmp_path)
    assert refused.value.detail == (
        "model big needs at least 2.0 GiB of memory to run, but 1024 MiB are available; end other programs, choose a"
        " smaller model (`sightline models`), --workers 2, or set SIGHTLINE_IGNORE_MEMORY=true to try it"
    )
    with pytest.raises(StartupError) as refused:
        check_memory("big", 2 * GIB, ModelProcesses(1, 3), CONVERTING, tmp_path)
    assert "--workers" not in refused.value.detail  # one process converts


def test_what_fits_or_is_not_known_or_is_not_to_be_checked_goes_on(tmp_path: Path) -> None:
    check_memory("big", 2 * GIB, ModelProcesses(1), "to run", tmp_path)
    System(tmp_path, 2 * GIB)
    check_memory("big", 2 * GIB, ModelProcesses(1), "to run", tmp_path)
    check_memory("big", 1 << 60, NO_PROCESSES, "to run", tmp_path)
