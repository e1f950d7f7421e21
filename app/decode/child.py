"""What a decode child does: it takes one task after the other, and answers each."""

from __future__ import annotations

import errno
import math
import os
import pkgutil
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from app.core.errors import SightlineError
from app.decode.picture import DecodedPicture
from app.decode.picture_answer import encode_picture
from app.decode.sandbox import confine_child
from app.decode.task_channel import ChannelClosed, TaskChannel, close_files, pack_answer, with_descriptors


def serve_tasks(connection: socket.socket) -> None:
    """Confine this process as the first message says, then run tasks until the parent closes the connection."""
    channel = TaskChannel(connection)
    with suppress(ChannelClosed, ConnectionError):
        confinement, _ = channel.receive()
        confine_child(confinement)
        os.dup2(0, 2)  # libtiff writes there, to the log of the service, what is wrong with a file
        channel.send_answer(pack_answer({"ready": True}))
        while True:
            task, descriptors = channel.receive()
            call = partial(pkgutil.resolve_name(task.function), *with_descriptors(task.args, descriptors))
            channel.send_answer(run_task(call, task.cpu_seconds, opens=confinement.opens))
            close_files(descriptors)


def run_task(call: Callable[[], Any], cpu_seconds: int, *, opens: bool) -> bytes:
    """The answer to one task, which runs within its processor time.

    The limit of the kernel counts the whole life of a process, so each task raises it by its own share.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = spent + cpu_seconds if hard == resource.RLIM_INFINITY else min(spent + cpu_seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    try:
        return encode_result(call())
    except BaseException as error:
        return encode_error(error, opens=opens)
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))  # the next share counts from its own start


def encode_result(result: Any) -> bytes:
    """A picture, or a value that JSON has."""
    return encode_picture(result) if isinstance(result, DecodedPicture) else pack_answer({"value": result})


def encode_error(error: BaseException, *, opens: bool) -> bytes:
    """What a task has raised: one of our errors, a lack of memory, a file past its limit, what the sandbox refused, or
    anything else.

    Of a child that `opens` files, a refusal may also be that of the file system.
    """
    if isinstance(error, MemoryError):
        return pack_answer({"memory": True})
    if not opens and PermissionError in (type(error), type(error.__cause__)):
        return pack_answer({"refused": True})
    if errno.EFBIG in (getattr(one, "errno", 0) for one in (error, error.__cause__)):
        return pack_answer({"file": True})
    if isinstance(error, SightlineError):
        return pack_answer({"error": type(error).__name__, "detail": error.detail})
    return pack_answer({"odd": repr(error)[:200]})
