"""Messages from a service to its broker, and from the broker to a decode child, over a socket that carries open files.

A function goes by its name, so that the broker loads no decoder. A child gets pickles, with descriptors. Nothing of
that kind is read from a child, which a file may have taken over: an answer is JSON with, perhaps, one block of bytes,
of a bounded size, and its parts are checked.
"""

from __future__ import annotations

import json
import os
import pickle
import pkgutil
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

_HEAD = struct.Struct("=QI")  # bytes of the message, and of the JSON in it (0 for a pickle)
REQUEST = b"child"  # to the fork server, with the sockets of a new child
STATUS = struct.Struct("=i")  # of the fork server, when a child has ended: what waitpid says
MAX_FILES = 8  # descriptors of one message
MAX_ANSWER = 64 << 20  # bytes


CLOSED = "the decoders are stopping"
NO_CHILD = "no decoder could be started; try again"
UNREADABLE = "it could not be read"


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An argument: a file that the task writes. It is at `path` when the task has succeeded, and only then."""

    path: Path


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """An argument of a large task: a folder in which it writes files. What a killed one leaves, the caller removes."""

    path: Path


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """A task for the broker: `function` as "module:name". With `seconds` it is a large one."""

    function: str
    args: tuple[Any, ...]
    seconds: float | None


class ChannelClosed(Exception):
    """The other side has ended, or sent what is no message."""


@dataclass(frozen=True, slots=True)
class Task:
    """A function ("module:name") for a child to call.

    Its arguments hold `TaskFile`s in the order of the descriptors sent along.
    """

    cpu_seconds: int
    function: str
    args: tuple[Any, ...]


@dataclass(slots=True)
class TaskFile:
    """An open file among the arguments of a task."""

    name: str
    descriptor: int = -1

    @property
    def suffix(self) -> str:
        return PurePath(self.name).suffix

    def open(self, mode: str = "r") -> IO[Any]:
        """As `Path.open`."""
        return open(os.dup(self.descriptor), mode)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a child says: the fields of its JSON, and the block of bytes behind."""

    fields: dict[str, Any]
    block: bytes = b""


class TaskChannel:
    """One end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, message: Task | object, descriptors: Sequence[int] = ()) -> None:
        """Send a pickle, with open files. Raises ChannelClosed."""
        content = pickle.dumps(message)
        try:
            self._socket.settimeout(None)
            head = _HEAD.pack(len(content), 0)
            if descriptors:
                socket.send_fds(self._socket, [head], descriptors)
                self._socket.sendall(content)
            else:
                self._socket.sendall(head + content)
        except OSError as error:
            raise ChannelClosed from error

    def receive(self) -> tuple[Any, list[int]]:
        """A pickle and its open files. Raises ChannelClosed."""
        head, descriptors, _, _ = socket.recv_fds(self._socket, _HEAD.size, MAX_FILES, socket.MSG_WAITALL)
        if len(head) < _HEAD.size:
            raise ChannelClosed
        return pickle.loads(self._read(_HEAD.unpack(head)[0])), descriptors  # noqa: S301 (the parent's)

    def send_answer(self, packed: bytes) -> None:
        self._socket.sendall(packed)

    def receive_answer(self, deadline: float) -> Answer:
        """Raises TimeoutError after `deadline` (monotonic), ChannelClosed if the child ends or sends no answer."""
        size, count = _HEAD.unpack(self._read(_HEAD.size, deadline))
        if not 0 < count <= size <= MAX_ANSWER:
            raise ChannelClosed
        fields = self._read(count, deadline)
        block = self._read(size - count, deadline)
        try:
            found = json.loads(fields)
        except (ValueError, RecursionError) as error:
            raise ChannelClosed from error
        if not isinstance(found, dict):
            raise ChannelClosed
        return Answer(found, bytes(block))

    def close(self) -> None:
        self._socket.close()

    def is_closed(self) -> bool:
        """Whether the other side has ended, or says something unasked."""
        try:
            self._socket.setblocking(False)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _read(self, size: int, deadline: float | None = None) -> bytearray:
        content = bytearray(size)
        view, done = memoryview(content), 0
        while done < size:
            if deadline is not None:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                count = self._socket.recv_into(view[done:])
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosed from error
            if not count:
                raise ChannelClosed
            done += count
        return content


def name_function(function: Callable[..., Any]) -> str:
    """Its name in messages. Raises ValueError if it cannot be found by that."""
    name = f"{function.__module__}:{function.__qualname__}"
    try:
        found = pkgutil.resolve_name(name)
    except (AttributeError, ValueError):  # one within a function
        found = None
    if found is not function:
        raise ValueError(f"{function} has no name by which a decoder could import it")
    return name


def pack_answer(fields: dict[str, Any], block: bytes = b"") -> bytes:
    """An answer as it is sent. Raises TypeError for what JSON does not have; a path is text."""
    content = json.dumps(fields, default=os.fspath).encode()
    return _HEAD.pack(len(content) + len(block), len(content)) + content + block


def with_descriptors(args: Sequence[Any], descriptors: Sequence[int]) -> tuple[Any, ...]:
    """The arguments, each `TaskFile` with its descriptor."""
    given = iter(descriptors)
    return tuple(TaskFile(one.name, next(given)) if isinstance(one, TaskFile) else one for one in args)


def close_files(descriptors: Sequence[int]) -> None:
    for one in descriptors:
        os.close(one)
