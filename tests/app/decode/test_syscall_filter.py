"""The filter of system calls: its table is that of the kernel's headers, and its program decides as it says."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from app.decode.syscall_filter import (
    ALLOW,
    ARCHITECTURES,
    CLONE_THREAD,
    COMPUTING,
    ERRNO,
    FATAL,
    IOCTLS,
    KILL_PROCESS,
    NUMBERS,
    OPENING,
    build_filter,
)

DENIED = ERRNO | errno.EPERM
PID = 4711
HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define\s+__NR_(\w+)\s+(\d+)"),
    "aarch64": ("/usr/include/asm-generic/unistd.h", r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)"),
}


def decide(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Run the program as the kernel does, over the data of one call."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("=HBBI", program))
    at, loaded = 0, 0
    while True:
        operation, if_true, if_false, value = instructions[at]
        at += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
            continue
        is_true = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[operation]
        at += if_true if is_true else if_false


@pytest.mark.parametrize("machine", list(ARCHITECTURES))
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    path, line = HEADERS[machine]
    if not Path(path).exists():
        pytest.skip(f"this machine lacks {path}")
    known = {name: int(number) for name, number in re.findall(line, Path(path).read_text())}
    known.setdefault("newfstatat", known.get("fstatat", -1))
    column = ARCHITECTURES[machine][0]
    for name, numbers in NUMBERS.items():
        if name in known or numbers[column] is None:
            assert known.get(name) == numbers[column], name


@pytest.mark.parametrize("machine", list(ARCHITECTURES))
@pytest.mark.parametrize("opening", [False, True])
def test_every_call_of_the_lists_gets_what_its_list_says(machine: str, opening: bool) -> None:
    column, architecture = ARCHITECTURES[machine]
    program = build_filter(machine, PID, opening=opening)
    for names, action in (
        (COMPUTING, ALLOW),
        (OPENING, ALLOW if opening else DENIED),
        (FATAL, KILL_PROCESS),
    ):
        for name in names.split():
            if (number := NUMBERS[name][column]) is not None:
                assert decide(program, architecture, number) == action, name


@pytest.mark.parametrize("machine", list(ARCHITECTURES))
def test_arguments_decide_where_they_matter(machine: str) -> None:
    column, architecture = ARCHITECTURES[machine]
    program = build_filter(machine, PID, opening=False)

    def of(name: str, *arguments: int) -> int:
        number = NUMBERS[name][column]
        assert number is not None
        return decide(program, architecture, number, *arguments)

    assert of("clone", CLONE_THREAD | 0x100) == ALLOW
    assert of("clone", 17) == KILL_PROCESS  # SIGCHLD: a fork
    assert of("clone3", 0) == ERRNO | errno.ENOSYS
    assert of("tgkill", PID) == ALLOW
    assert of("tgkill", 1) == KILL_PROCESS
    assert [of("prlimit64", pid) for pid in (0, PID, 1)] == [ALLOW, ALLOW, DENIED]
    assert [of("ioctl", 3, command) for command in IOCTLS] == [ALLOW] * 3
    assert of("ioctl", 3, 0x5412) == ERRNO | errno.ENOTTY  # TIOCSTI, which types into a terminal


@pytest.mark.parametrize("machine", list(ARCHITECTURES))
def test_calls_of_no_list_and_of_other_architectures_are_refused(machine: str) -> None:
    _, architecture = ARCHITECTURES[machine]
    program = build_filter(machine, PID, opening=True)
    known = {number for numbers in NUMBERS.values() for number in numbers}
    for number in set(range(600)) - known:
        assert decide(program, architecture, number) == DENIED
    assert decide(program, 0x40000003, 1) == KILL_PROCESS  # i386
    assert decide(program, architecture, 0x40000000 + 1) == KILL_PROCESS  # x32
