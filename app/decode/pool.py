"""A pool of decode children. Each task ends with a result or one of our errors, whatever happens to its child."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, cast, get_args

import numpy as np

from app.core import errors
from app.core.errors import ArchiveCorrupt, ImageCorrupt, Overloaded, Rejected, SightlineError
from app.core.metrics import ProcessMetrics
from app.decode.child_process import ChildProcess, ForkFailed, ForkServerProcess
from app.decode.headers import Format
from app.decode.limits import ChildLimits, PictureLimits
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.sandbox import Confinement, find_protections
from app.decode.task_channel import Answer, ChannelClosed, Task, TaskFile

T = TypeVar("T")

log = logging.getLogger(__name__)

TASKS_PER_CHILD = 1_000  # then a new child takes its place, so that leaks of the decoders stay small
ATTEMPTS = 3  # starts of a task while children end for another reason than the task
# Only tables need these libraries, which take a second to load and 340 MB of address space: their children come from a
# fork server of their own, which starts with the first table.
TABLE_LIBRARIES = ("pyarrow.parquet", "app.decode.parquet")
TABLE_MODULES = ("app.decode.table", "app.decode.parquet_metadata")
MAX_DETAIL = 1_000  # characters of an error that a child may say
# By exit status of the child. The kernel ends it with SIGSYS for a call that only a decoder makes that is taken over.
DEATH_CAUSES = {-signal.SIGXCPU: "processor", -signal.SIGKILL: "memory", -signal.SIGSYS: "sandbox"}
_CLOSED = "the decoders are stopping"
_NO_CHILD = "no decoder could be started; try again"
_UNREADABLE = "it could not be read"
_FORBIDDEN = "the decoder tried what no decoder may do, and was stopped"
FORMATS = get_args(Format)
MAX_SIDE = 1 << 20
# The errors that a child may raise, by name.
ERRORS: dict[str, type[SightlineError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, SightlineError) and kind is not SightlineError
}
_Opened = AbstractContextManager[tuple[tuple[Any, ...], Sequence[int]]]  # the arguments of a task, and its open files


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An argument: a file that the task writes. It is at `path` when the task has succeeded, and only then."""

    path: Path


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """An argument of a large task: a folder in which it writes files. What a killed one leaves, the caller removes."""

    path: Path


class _ChildLost(Exception):
    """The child ended, and the task had no part in that."""


@dataclass(slots=True, eq=False)
class _Task(Generic[T]):
    """A function to call in a child, its limits, and the caller's future."""

    function: Callable[..., T]
    args: tuple[Any, ...]
    seconds: float
    cpu_seconds: int
    refusal: type[Rejected]  # raised if the child dies of the task
    future: Future[T] = field(default_factory=Future)
    child: ChildProcess | None = None  # that runs it

    def finish(self, result: T) -> None:
        with suppress(InvalidStateError):  # the caller has cancelled it
            self.future.set_result(result)

    def fail(self, error: SightlineError) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(slots=True)
class _Slot:
    """A place for one child at a time, which the next task finds there."""

    server: ForkServerProcess
    confinement: Confinement
    child: ChildProcess | None = None

    def take(self) -> ChildProcess:
        """The child, or a new one for one that has died or grown old. Raises ForkFailed."""
        if self.child is not None and (self.child.tasks >= TASKS_PER_CHILD or self.child.is_dead()):
            self.end()
        if self.child is None:
            self.child = self.server.fork(self.confinement)
        return self.child

    def end(self) -> int | None:
        """Kill the child, if there is one; returns its exit status, None if nobody knows it."""
        child, self.child = self.child, None
        return child.end() if child is not None else None


class DecodePool:
    """`workers` child processes for pictures, each of which runs one task at a time, and one for each large task.

    A future fails only with a SightlineError: Overloaded if no child can run, the task's `refusal` if the child died of
    the task. Thread-safe. Children start with the first task; new ones replace those that die.
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
        self._server = ForkServerProcess(modules)
        self._table_server = ForkServerProcess((*TABLE_LIBRARIES, *modules))
        self._lock = threading.Lock()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._waiting: queue.SimpleQueue[_Task[Any] | None] = queue.SimpleQueue()
        self._open: set[_Task[Any]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, function: Callable[..., T], *args: Any, seconds: float | None = None) -> Future[T]:
        """Run an importable function in a child; if the caller cancels the future, the pool kills that child.

        By default the task is one picture, within `child_limits`, and ImageCorrupt if the child dies of it. The child
        can open no file: the pool opens each Path and OutputFile among the arguments, and the function gets a TaskFile.

        With `seconds` (of wall and processor time) it is something larger, and ArchiveCorrupt. It has a child for
        itself, which may read the Paths among the arguments, and write the OutputFiles and OutputFolders; the function
        gets all of them as Paths. A task that fails may leave parts of these.

        A result is a DecodedPicture or what JSON can hold.
        """
        limits = self.child_limits
        task: _Task[T]
        if seconds is None:
            task = _Task(function, args, limits.seconds, limits.cpu_seconds, ImageCorrupt)
        else:
            task = _Task(function, args, seconds, max(1, round(seconds)), ArchiveCorrupt)
        with self._lock:
            if self._closed:
                task.fail(Overloaded(_CLOSED))
                return task.future
            self._open.add(task)
            if not self._threads:
                self._start_threads()
        task.future.add_done_callback(lambda _: self._drop(task))
        if seconds is None:
            self._waiting.put(task)
        else:
            threading.Thread(target=self._run_alone, args=(task,), name="large task", daemon=True).start()
        return task.future

    def prewarm(self) -> None:
        """Wait until a child has started. Raises Overloaded if none can be started."""
        self.submit(time.monotonic).result()

    def close(self) -> None:
        """Kill all running tasks; every open future fails with Overloaded."""
        with self._lock:
            self._closed = True
            tasks = tuple(self._open)
        for task in tasks:
            task.fail(Overloaded(_CLOSED))
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._server.close()
        self._table_server.close()

    def _start_threads(self) -> None:
        protections = find_protections()
        if not (protections.landlock and protections.seccomp):
            log.warning("this machine lacks a protection against hostile files: %s", protections.describe())
        for n in range(self.workers):
            thread = threading.Thread(target=self._serve, name=f"decoder {n}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _drop(self, task: _Task[Any]) -> None:
        """The future of a task is done; if its child still runs it, the caller has cancelled it."""
        with self._lock:
            self._open.discard(task)
            if task.child is not None:
                task.child.kill()

    def _serve(self) -> None:
        """One thread of the pool: it has one child, and gives it one picture after the other."""
        slot = _Slot(self._server, Confinement(self.child_limits))
        while (task := self._waiting.get()) is not None:
            self._run(task, slot, ATTEMPTS, partial(_open_files, task.args))
        slot.end()

    def _run_alone(self, task: _Task[Any]) -> None:
        """A large task, in a child of its own. The caller tries again if that is lost: it must remove what is left."""
        try:
            args, readable, writable = _grant_paths(task.args)
        except OSError as error:
            task.fail(errors.from_os_error(error))
            return
        server = self._table_server if task.function.__module__ in TABLE_MODULES else self._server
        slot = _Slot(server, Confinement(self.child_limits, True, readable, writable))
        self._run(task, slot, 1, lambda: nullcontext((args, ())))
        slot.end()

    def _run(self, task: _Task[Any], slot: _Slot, attempts: int, open_files: Callable[[], _Opened]) -> None:
        for _ in range(attempts):
            if task.future.done():
                return
            try:
                child = slot.take()
                with open_files() as (args, descriptors):
                    result = self._ask(task, slot, child, args, descriptors)
                task.finish(result)
            except _ChildLost:
                continue
            except ForkFailed:
                break
            except SightlineError as error:
                task.fail(error)
            except OSError as error:
                task.fail(errors.from_os_error(error))
            except Exception:  # a fault of ours, in the arguments
                log.exception("a decode task could not be run")
                slot.end()
                task.fail(task.refusal(_UNREADABLE))
            return
        task.fail(Overloaded(_NO_CHILD))

    def _ask(
        self, task: _Task[Any], slot: _Slot, child: ChildProcess, args: tuple[Any, ...], descriptors: Sequence[int]
    ) -> Any:
        """The result of a task. Raises its error, that of the child's death, or _ChildLost."""
        with self._lock:
            if task.future.done():
                raise Overloaded(_CLOSED)
            task.child = child
        began = time.monotonic()
        try:
            child.send(Task(task.cpu_seconds, task.function, args), descriptors)
            answer = child.receive(began + task.seconds)
        except TimeoutError:
            slot.end()
            self._metrics.count_decoder_death("timeout")
            raise task.refusal(f"reading it took longer than {task.seconds:g} s") from None
        except ChannelClosed:
            raise self._explain_death(task, slot.end()) from None
        finally:
            with self._lock:
                task.child = None
        if answer.fields.get("refused"):
            slot.end()
            self._metrics.count_decoder_death("sandbox")
            raise task.refusal(_FORBIDDEN)
        result = _read_answer(answer, task)
        self._metrics.decodes.observe(time.monotonic() - began)
        return result

    def _explain_death(self, task: _Task[Any], status: int | None) -> Exception:
        """The error for a task whose child has ended."""
        if task.future.done():
            return Overloaded(_CLOSED)
        if status is None:  # the fork server ended, and its children with it
            return _ChildLost()
        self._metrics.count_decoder_death(DEATH_CAUSES.get(status, "crash"))
        if status == -signal.SIGXCPU:
            return task.refusal(f"reading it took longer than {task.cpu_seconds} s of processor time")
        if status == -signal.SIGKILL:
            return task.refusal("the decoder was killed, most likely for the memory it used")
        return task.refusal(_FORBIDDEN if status == -signal.SIGSYS else "the decoder crashed")


def _read_answer(answer: Answer, task: _Task[Any]) -> Any:
    """The result that a child says, or the error. Nothing of it is believed that a decoder could not have made."""
    fields = answer.fields
    if "value" in fields and task.function is not decode_picture:
        return fields["value"]
    if isinstance(fields.get("picture"), dict):
        return _read_picture(fields["picture"], answer.block, task)
    if fields.get("memory"):
        raise task.refusal("reading it needs more memory than allowed")
    kind, detail = ERRORS.get(str(fields.get("error"))), fields.get("detail")
    if kind is not None and isinstance(detail, str):
        raise kind(detail[:MAX_DETAIL])
    log.warning("a decode task failed: %.200s", fields.get("odd"))
    raise task.refusal(_UNREADABLE)


def _read_picture(fields: dict[str, Any], block: bytes, task: _Task[Any]) -> DecodedPicture:
    side, width, height = (fields.get(name) for name in ("side", "width", "height"))
    format_, animated = fields.get("format"), fields.get("animated")
    if not (type(side) is type(width) is type(height) is int and isinstance(animated, bool) and format_ in FORMATS):
        raise task.refusal(_UNREADABLE)
    if min(side, width, height) < 1 or max(width, height) > MAX_SIDE or len(block) != side * side * 3:
        raise task.refusal(_UNREADABLE)
    pixels = np.frombuffer(block, np.uint8).reshape(side, side, 3)
    return DecodedPicture(pixels, width, height, cast(Format, format_), animated)


@contextmanager
def _open_files(args: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Sequence[int]]]:
    """The arguments for a child that opens nothing, and the open files that go with them.

    Afterwards what the task wrote gets its name; after an error it is removed.
    """
    passed: list[Any] = []
    descriptors: list[int] = []
    with ExitStack() as stack:
        for one in args:
            if isinstance(one, Path):
                descriptors.append(os.open(one, os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, descriptors[-1])
            elif isinstance(one, OutputFile):
                descriptors.append(stack.enter_context(_write_file(one.path)))
            else:
                passed.append(one)
                continue
            passed.append(TaskFile(one.name if isinstance(one, Path) else one.path.name))
        yield tuple(passed), descriptors


@contextmanager
def _write_file(path: Path) -> Iterator[int]:
    """A descriptor of a new file, which has the name `path` when the block ends without an error."""
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # two threads may make the same thumbnail
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _grant_paths(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Path, ...], tuple[Path, ...]]:
    """The arguments for a child that opens files itself, what it may read, and what it may write."""
    readable = tuple(one for one in args if isinstance(one, Path))
    outputs = [one for one in args if isinstance(one, OutputFile | OutputFolder)]
    for one in outputs:
        if isinstance(one, OutputFile):  # permission is given for what exists
            one.path.touch()
        else:
            one.path.mkdir(parents=True, exist_ok=True)
    passed = tuple(one.path if isinstance(one, OutputFile | OutputFolder) else one for one in args)
    return passed, readable, tuple(one.path for one in outputs)
