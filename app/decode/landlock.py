"""Landlock: a process gives up all files but those that it names, by calls of Linux that libc does not wrap."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # numbers of the calls, on every machine
VERSION_FLAG, PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << n for n in range(6))
MAKE_DIR, MAKE_REG = 1 << 7, 1 << 8
REFER, TRUNCATE = 1 << 13, 1 << 14
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_FILE | MAKE_REG | REFER | TRUNCATE
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE  # the rights that a rule for a single file may give
# By the version of Landlock: the rights that a process can give up. Version 5 has those on devices, 4 TCP (bind and
# connect), 6 abstract sockets and signals to others.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
TCP_RIGHTS, SCOPES = 3, 3


def read_version() -> int:
    """The version of Landlock in this kernel; 0 if it has none, or none that this process may use."""
    return max(0, _call(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG))


def restrict_files(version: int, readable: Iterable[Path] = (), writable: Iterable[Path] = ()) -> None:
    """Give up all files but these and what lies below them; files that are open already stay usable.

    Of TCP, signals and abstract sockets nothing is left either, as far as `version` has them. A path that does not
    exist is left out. The process must have `no_new_privs`. Raises OSError.
    """
    handled = (1 << FILE_RIGHTS[min(version, max(FILE_RIGHTS))]) - 1
    attributes = struct.pack("=QQQ", handled, TCP_RIGHTS, SCOPES)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock made no rules")
    try:
        for paths, rights in ((readable, READ), (writable, WRITE)):
            for path in paths:
                _add_rule(ruleset, path, rights & handled)
        if _call(RESTRICT_SELF, ruleset, 0):
            raise OSError(ctypes.get_errno(), "Landlock did not restrict this process")
    finally:
        os.close(ruleset)


def _add_rule(ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= OF_FILES
        if _call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", rights, opened), 0):
            raise OSError(ctypes.get_errno(), "Landlock did not take a rule")
    finally:
        os.close(opened)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(ctypes.c_long(number), *arguments))
