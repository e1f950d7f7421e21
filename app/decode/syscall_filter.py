"""A seccomp filter for decode children: which calls of the system they may make.

A list of what is permitted; any other call fails with EPERM, as on a machine where the child has no right to it. A call
that no decoder makes by accident (a socket, another program, another process) ends the child with SIGSYS instead, which
its parent counts. The filter is classic BPF, as `seccomp(2)` describes it, for x86_64 and aarch64; decision 43 says why
no library writes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Numbers of calls: x86_64, aarch64 (None where it has no such call). tests/app/decode/test_syscall_filter.py compares
# them with the headers of the system.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "accept": (43, 202),
    "accept4": (288, 242),
    "access": (21, None),
    "add_key": (248, 217),
    "bind": (49, 200),
    "bpf": (321, 280),
    "brk": (12, 214),
    "chroot": (161, 51),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "close_range": (436, 436),
    "connect": (42, 203),
    "delete_module": (176, 106),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "execve": (59, 221),
    "execveat": (322, 281),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fallocate": (285, 47),
    "fcntl": (72, 25),
    "fdatasync": (75, 83),
    "finit_module": (313, 273),
    "fork": (57, None),
    "fstat": (5, 80),
    "fsync": (74, 82),
    "ftruncate": (77, 46),
    "futex": (202, 98),
    "getcpu": (309, 168),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "getegid": (108, 177),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getrandom": (318, 278),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "listen": (50, 201),
    "lseek": (8, 62),
    "lstat": (6, None),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "mincore": (27, 232),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mmap": (9, 222),
    "mount": (165, 40),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "open": (2, None),
    "open_by_handle_at": (304, 265),
    "openat": (257, 56),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "prlimit64": (302, 261),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pselect6": (270, 72),
    "ptrace": (101, 117),
    "pwrite64": (18, 68),
    "pwritev": (296, 70),
    "read": (0, 63),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "readv": (19, 65),
    "reboot": (169, 142),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "request_key": (249, 218),
    "restart_syscall": (219, 128),
    "rmdir": (84, None),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigqueueinfo": (129, 138),
    "rt_sigreturn": (15, 139),
    "rt_tgsigqueueinfo": (297, 240),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_yield": (24, 124),
    "select": (23, None),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "setns": (308, 268),
    "setrlimit": (160, 164),
    "sigaltstack": (131, 132),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "stat": (4, None),
    "statx": (332, 291),
    "swapon": (167, 224),
    "sysinfo": (99, 179),
    "tgkill": (234, 131),
    "time": (201, None),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "uname": (63, 160),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vfork": (58, None),
    "write": (1, 64),
    "writev": (20, 66),
}
ARCHITECTURES = {
    "x86_64": (0, 0xC000003E),
    "aarch64": (1, 0xC00000B7),
}  # the column above, and what the kernel calls it

# What Python, numpy and the decoders need with memory, time, threads, and the files that are open already.
COMPUTING = (
    "brk clock_getres clock_gettime clock_nanosleep close close_range dup dup2 dup3 exit exit_group fcntl fdatasync"
    " fstat fsync ftruncate futex getcpu getegid geteuid getgid getpid getppid getrandom getrlimit getrusage gettid"
    " gettimeofday getuid lseek madvise membarrier mincore mmap mprotect mremap munmap nanosleep newfstatat poll ppoll"
    " pread64 preadv pselect6 pwrite64 pwritev read readv recvfrom recvmsg restart_syscall rseq rt_sigaction"
    " rt_sigprocmask rt_sigreturn sched_getaffinity sched_getparam sched_getscheduler sched_yield select sendmsg sendto"
    " set_robust_list set_tid_address sigaltstack sysinfo time uname write writev"
)
# What a child needs besides that opens files itself; Landlock says which.
OPENING = (
    "access faccessat faccessat2 fallocate getcwd getdents64 lstat mkdir mkdirat open openat readlink readlinkat rename"
    " renameat renameat2 rmdir stat statx unlink unlinkat"
)
# What ends the child. `clone` makes threads too, which are permitted.
FATAL = (
    "accept accept4 add_key bind bpf chroot connect delete_module execve execveat finit_module fork init_module"
    " io_uring_enter io_uring_register io_uring_setup kexec_load keyctl kill listen mount open_by_handle_at"
    " perf_event_open pidfd_getfd pidfd_open pidfd_send_signal pivot_root process_vm_readv process_vm_writev ptrace"
    " reboot request_key rt_sigqueueinfo rt_tgsigqueueinfo setns socket socketpair swapon tkill umount2 unshare"
    " userfaultfd vfork"
)
CLONE_THREAD = 0x00010000
IOCTLS = (0x5401, 0x5450, 0x5451)  # TCGETS, FIONCLEX, FIOCLEX: "is it a terminal", "keep it over exec", "do not"

ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
ERRNO = 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # operations of BPF
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
X32_BIT = 0x40000000  # of the second set of calls of x86_64, which nothing here uses
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True, slots=True)
class _Instruction:
    operation: int
    value: int
    if_true: int = 0
    if_false: int = 0

    def to_bytes(self) -> bytes:
        return struct.pack("=HBBI", self.operation, self.if_true, self.if_false, self.value)


def build_filter(machine: str, pid: int, *, opening: bool) -> bytes:
    """The filter of a child with this process id; `opening`: it may open files. Raises KeyError for other machines."""
    column, architecture = ARCHITECTURES[machine]
    program = [
        _Instruction(_LOAD, _ARCHITECTURE),
        _Instruction(_EQUAL, architecture, 1, 0),
        _Instruction(_RETURN, KILL_PROCESS),
        _Instruction(_LOAD, _NUMBER),
        _Instruction(_AT_LEAST, X32_BIT, 0, 1),
        _Instruction(_RETURN, KILL_PROCESS),
    ]
    for name, action in _actions(opening):
        if (number := NUMBERS[name][column]) is not None:
            program += [_Instruction(_EQUAL, number, 0, 1), _Instruction(_RETURN, action)]
    for name, test in _tests(pid):
        if (number := NUMBERS[name][column]) is not None:
            program += [_Instruction(_EQUAL, number, 0, len(test)), *test]
    program.append(_Instruction(_RETURN, ERRNO | errno.EPERM))
    return b"".join(one.to_bytes() for one in program)


def _actions(opening: bool) -> Iterator[tuple[str, int]]:
    """Calls whose arguments do not matter."""
    permitted = COMPUTING.split() + (OPENING.split() if opening else [])
    yield from ((name, ALLOW) for name in permitted)
    yield from ((name, KILL_PROCESS) for name in FATAL.split())
    yield "clone3", ERRNO | errno.ENOSYS  # its flags lie in memory, which a filter cannot read: libc takes clone then


def _tests(pid: int) -> Iterator[tuple[str, list[_Instruction]]]:
    """Calls whose first or second argument decides (the lower 32 bits of it, which hold all of it)."""
    yield "clone", _test(0, _ANY_BIT, [CLONE_THREAD], KILL_PROCESS)
    yield "tgkill", _test(0, _EQUAL, [pid], KILL_PROCESS)
    yield "prlimit64", _test(0, _EQUAL, [0, pid], ERRNO | errno.EPERM)
    yield "setrlimit", [_Instruction(_RETURN, ALLOW)]
    yield "ioctl", _test(1, _EQUAL, IOCTLS, ERRNO | errno.ENOTTY)


def _test(argument: int, operation: int, values: Iterable[int], otherwise: int) -> list[_Instruction]:
    """Allow the call if its argument passes for any of the values."""
    found = [_Instruction(_LOAD, _ARGUMENTS + 8 * argument)]
    for value in values:
        found += [_Instruction(operation, value, 0, 1), _Instruction(_RETURN, ALLOW)]
    return [*found, _Instruction(_RETURN, otherwise)]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def is_supported() -> bool:
    """Whether this kernel has filters and this module knows the calls of the machine."""
    if platform.machine() not in ARCHITECTURES:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    # Without a program the kernel answers EFAULT if it knows filters, else EINVAL.
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None, 0, 0)
    return ctypes.get_errno() == errno.EFAULT


def install_filter(*, opening: bool) -> None:
    """Filter the calls of this process for the rest of its life. It must have `no_new_privs`. Raises OSError."""
    _install(build_filter(platform.machine(), os.getpid(), opening=opening))


def refuse_sockets() -> None:
    """Let no thread that this one starts, nor this one, nor a child, make a socket, where the kernel has filters.

    Pairs of connected sockets, which lead nowhere else, are permitted.
    """
    if not is_supported():
        return
    column, architecture = ARCHITECTURES[platform.machine()]
    number = NUMBERS["socket"][column]
    assert number is not None
    program = [
        _Instruction(_LOAD, _ARCHITECTURE),
        _Instruction(_EQUAL, architecture, 1, 0),
        _Instruction(_RETURN, KILL_PROCESS),
        _Instruction(_LOAD, _NUMBER),
        _Instruction(_EQUAL, number, 0, 1),
        _Instruction(_RETURN, ERRNO | errno.EPERM),
        _Instruction(_RETURN, ALLOW),
    ]
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _install(b"".join(one.to_bytes() for one in program))


def _install(content: bytes) -> None:
    program = _Program(len(content) // 8, content)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the filter of calls was not installed")
