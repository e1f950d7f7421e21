"""The way into the decode children: a broker process has them, and this one sends it tasks.

The broker (`app.decode.broker`) opens files and waits for the children. In this process, whose
interpreter lock the encoder's threads share, each picture would wait a dozen times for that lock.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self, TypeVar

from app.core.errors import ArchiveCorrupt, ImageCorrupt, Overloaded, Rejected, SightlineError
from app.core.metrics import ProcessMetrics
from app.core.picture_formats import find_modules
from app.decode.child_process import clean_environment
from app.decode.limits import ChildLimits, PictureLimits
from app.decode.picture import decode_picture
from app.decode.picture_answer import read_picture
from app.decode.sandbox import find_protections
from app.decode.task_channel import CLOSED, NO_CHILD, UNREADABLE, Answer, TaskRequest, name_function

T = TypeVar("T")

log = logging.getLogger(__name__)

ATTEMPTS = 3  # times that a task is sent to a broker, should that end
BUFFER_BYTES = 1 << 20
STOP_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class _Open:
    """A task whose caller waits."""

    id: int
    function: Callable[..., Any]
    args: tuple[Any, ...]
    seconds: float | None
    future: Future[Any] = field(default_factory=Future)
    attempts: int = 0
    broker: _Broker | None = None  # that has it

    def request(self) -> TaskRequest:
        """Raises ValueError if a child could not import the function."""
        return TaskRequest(name_function(self.function), self.args, self.seconds)


class DecodePool:
    """`workers` child processes for pictures, each of which runs one task at a time, and one for each large task.

    A future fails only with a SightlineError: Overloaded if no child can run, ImageCorrupt or ArchiveCorrupt if the
    child died of the task. Thread-safe. The broker and children start with the first task; others replace those that
    die.
    """

    def __init__(
        self,
        workers: int,
        child_limits: ChildLimits | None = None,
        picture_limits: PictureLimits | None = None,
        metrics: ProcessMetrics | None = None,
        modules: Sequence[str] = (),
    ) -> None:
        """`modules` hold functions of tasks, beside those of `app.decode`."""
        self.workers = workers
        self.child_limits = child_limits or ChildLimits()
        self.picture_limits = picture_limits or PictureLimits()
        self._metrics = metrics or ProcessMetrics()
        self._modules = (*find_modules(self.picture_limits.formats), *modules)
        self._lock = threading.Lock()
        self._closed = False
        self._broker: _Broker | None = None
        self._open: dict[int, _Open] = {}
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, function: Callable[..., T], *args: Any, seconds: float | None = None) -> Future[T]:
        """Run an importable function in a child; if the caller cancels the future, that child is killed.

        By default the task is one picture, within `child_limits`, and ImageCorrupt if the child dies of it. The child
        can open no file: the broker opens each Path and OutputFile among the arguments, and the function gets a
        TaskFile.

        With `seconds` (of wall and processor time) it is something larger, and ArchiveCorrupt. It has a child for
        itself, which may read the Paths among the arguments, and write the OutputFiles and OutputFolders; the function
        gets all of them as Paths. A task that fails may leave parts of these.

        A result is a DecodedPicture or what JSON can hold.
        """
        with self._lock:
            self._count += 1
            task = _Open(self._count, function, args, seconds)
            self._open[task.id] = task
        task.future.add_done_callback(lambda _: self._drop(task))
        self._send(task)
        return task.future

    def prewarm(self) -> None:
        """Wait until a child has started. Raises Overloaded if none can be started."""
        self.submit(time.monotonic).result()

    def close(self) -> None:
        """Kill all running tasks; every open future fails with Overloaded."""
        with self._lock:
            self._closed = True
            broker, self._broker = self._broker, None
        for task in tuple(self._open.values()):
            _fail(task, Overloaded(CLOSED))
        if broker is not None:
            broker.close()

    def _send(self, task: _Open) -> None:
        while not task.future.done():
            task.attempts += 1
            try:
                task.broker = self._running_broker()
                task.broker.send((task.id, task.request()))
            except SightlineError as error:
                _fail(task, error)
            except OSError:
                if task.attempts >= ATTEMPTS:
                    _fail(task, Overloaded(NO_CHILD))
            except Exception as error:  # the request cannot be pickled
                log.warning("a decode task failed: %r", error)
                _fail(task, Overloaded("the task cannot be sent to a decoder"))
            else:
                return

    def _running_broker(self) -> _Broker:
        """The broker; a new one if it has ended."""
        with self._lock:
            if self._closed:
                raise Overloaded(CLOSED)
            if self._broker is None or self._broker.has_ended:
                protections = find_protections()
                if self._broker is None and not (protections.landlock and protections.seccomp):
                    log.warning("this machine lacks a protection against hostile files: %s", protections.describe())
                self._broker = _Broker((self.workers, self.child_limits, self._modules), self._receive, self._resend)
            return self._broker

    def _receive(self, message: tuple[Any, ...]) -> None:
        """What the broker says: the cause of a child's death, or the result of a task and its seconds, or its error."""
        if len(message) == 1:
            self._metrics.count_decoder_death(message[0])
            return
        number, answer, seconds, error = message
        if (task := self._open.get(number)) is None:
            return
        if error is None:
            try:
                result = read_result(task.function, answer, ImageCorrupt if task.seconds is None else ArchiveCorrupt)
            except Rejected as refusal:
                error = refusal
        if error is not None:
            for note in getattr(error, "__notes__", ()):
                log.warning("a decode task failed: %s", note)
            _fail(task, error)
            return
        self._metrics.decodes.observe(seconds)
        with suppress(InvalidStateError):  # the caller has cancelled it
            task.future.set_result(result)

    def _resend(self, ended: _Broker) -> None:
        """The broker has ended: another one gets its pictures. The caller of a large task must remove what is left."""
        log.warning("the process of the decoders ended; starting a new one")
        for task in tuple(self._open.values()):
            if task.broker is ended:
                if task.attempts < ATTEMPTS and task.seconds is None:
                    self._send(task)
                else:
                    _fail(task, Overloaded(NO_CHILD))

    def _drop(self, task: _Open) -> None:
        """The future of a task is done. If it was cancelled, the broker must kill the child."""
        with self._lock:
            self._open.pop(task.id, None)
            broker = self._broker
        if task.future.cancelled() and broker is not None:
            with suppress(OSError):
                broker.send((task.id, None))


MEASURED = ("COVERAGE_PROCESS_CONFIG",)  # the tests measure the broker, too; its children get nothing of it


class _Broker:
    """A running broker process, and the thread that reads what it says."""

    def __init__(
        self, options: tuple[Any, ...], receive: Callable[[tuple[Any, ...]], None], on_end: Callable[[_Broker], None]
    ) -> None:
        ours, theirs = socket.socketpair()
        for one in (ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.decode.broker"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=clean_environment(keep=MEASURED),
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._lock = threading.Lock()
        self._receive, self._on_end = receive, on_end
        self.has_ended = False
        self._is_closing = False
        self.send(options)
        self._thread = threading.Thread(target=self._read, name="decoders", daemon=True)
        self._thread.start()

    def send(self, message: tuple[Any, ...]) -> None:
        """Raises OSError when the broker has ended, and what pickling raises."""
        with self._lock:
            self._connection.send(message)

    def close(self) -> None:
        """Let it kill its children and end."""
        self._is_closing = True
        with suppress(OSError):  # it has ended by itself
            self.send(())
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _read(self) -> None:
        try:
            while True:
                self._receive(self._connection.recv())
        except (EOFError, OSError):
            self.has_ended = True
        self._process.kill()
        self._process.wait()
        with self._lock:
            self._connection.close()
        if not self._is_closing:
            self._on_end(self)


def read_result(function: Callable[..., Any], answer: Answer, refusal: type[Rejected]) -> Any:
    """What the function returned in the child. Raises `refusal` for an answer that it cannot have given."""
    try:
        if function is decode_picture:
            return read_picture(answer.fields.get("picture"), answer.block)
        return answer.fields["value"]
    except (KeyError, ValueError):
        raise refusal(UNREADABLE) from None


def _fail(task: _Open, error: SightlineError) -> None:
    with suppress(InvalidStateError):
        task.future.set_exception(error)
