"""The decode children of a broker. Each task ends with a result or one of our errors, whatever happens to its child."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from app.core import errors
from app.core.errors import ArchiveCorrupt, ImageCorrupt, Overloaded, Rejected, SightlineError
from app.decode.child_process import ChildProcess, ForkFailed, ForkServerProcess
from app.decode.limits import ChildLimits
from app.decode.sandbox import Confinement
from app.decode.task_channel import (
    CLOSED,
    NO_CHILD,
    UNREADABLE,
    Answer,
    ChannelClosed,
    OutputFile,
    OutputFolder,
    Task,
    TaskFile,
    TaskRequest,
)

TASKS_PER_CHILD = 1_000  # then a new child takes its place, so that leaks of the decoders stay small
ATTEMPTS = 3  # starts of a task while children end for another reason than the task
# Only tables need these libraries, which take a second to load and 340 MB of address space: their children come from a
# fork server of their own, which starts with the first table.
TABLE_LIBRARIES = ("pyarrow.parquet", "app.decode.parquet")
TABLE_MODULES = ("app.decode.table", "app.decode.parquet_metadata")
MAX_LIST = 8 << 30  # bytes of a file that a large task writes: a list of a million items, or a member of an archive
MAX_DETAIL = 1_000  # characters of an error that a child may say
# By exit status of the child. The kernel ends it with SIGSYS for a call that only a decoder makes that is taken over.
DEATH_CAUSES = {-signal.SIGXCPU: "processor", -signal.SIGKILL: "memory", -signal.SIGSYS: "sandbox"}
_FORBIDDEN = "the decoder tried what no decoder may do, and was stopped"
# The errors that a child may raise, by name.
ERRORS: dict[str, type[SightlineError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, SightlineError) and kind is not SightlineError
}
_Opened = AbstractContextManager[tuple[tuple[Any, ...], Sequence[int]]]  # the arguments of a task, and its open files


class _ChildLost(Exception):
    """The child ended, and the task had no part in that."""


@dataclass(slots=True, eq=False)
class _Task:
    """A function to call in a child, its limits, and the caller's future."""

    function: str  # "module:name"
    args: tuple[Any, ...]
    seconds: float
    cpu_seconds: int
    refusal: type[Rejected]  # raised if the child dies of the task
    future: Future[tuple[Answer, float]] = field(default_factory=Future)
    child: ChildProcess | None = None  # that runs it

    def finish(self, result: tuple[Answer, float]) -> None:
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


class ChildPool:
    """`workers` child processes for pictures, each of which runs one task at a time, and one for each large task.

    A future fails only with a SightlineError: Overloaded if no child can run, the task's `refusal` if the child died of
    the task. Thread-safe. Children start with the first task; new ones replace those that die.
    """

    def __init__(
        self, workers: int, limits: ChildLimits, modules: Sequence[str], on_death: Callable[[str], object]
    ) -> None:
        """`modules` hold functions of tasks, beside those of `app.decode`. `on_death` gets the cause of each death."""
        self._limits = limits
        self._on_death = on_death
        self._server = ForkServerProcess(modules)
        self._table_server = ForkServerProcess((*TABLE_LIBRARIES, *modules))
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._open: set[_Task] = set()
        self._threads = [threading.Thread(target=self._serve, name=f"decoder {n}", daemon=True) for n in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, request: TaskRequest) -> Future[tuple[Answer, float]]:
        """What the child of a task answers, unread, and the seconds that it took; see `DecodePool.submit`."""
        limits, seconds = self._limits, request.seconds
        if seconds is None:
            task = _Task(request.function, request.args, limits.seconds, limits.cpu_seconds, ImageCorrupt)
        else:
            task = _Task(request.function, request.args, seconds, max(1, round(seconds)), ArchiveCorrupt)
        with self._lock:
            if self._closed:
                task.fail(Overloaded(CLOSED))
                return task.future
            self._open.add(task)
        task.future.add_done_callback(lambda _: self._drop(task))
        if seconds is None:
            self._waiting.put(task)
        else:
            threading.Thread(target=self._run_alone, args=(task,), name="large task", daemon=True).start()
        return task.future

    def close(self) -> None:
        """Kill all running tasks; every open future fails with Overloaded."""
        with self._lock:
            self._closed = True
            tasks = tuple(self._open)
        for task in tasks:
            task.fail(Overloaded(CLOSED))
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._server.close()
        self._table_server.close()

    def _drop(self, task: _Task) -> None:
        """The future of a task is done; if its child still runs it, the caller has cancelled it."""
        with self._lock:
            self._open.discard(task)
            if task.child is not None:
                task.child.kill()

    def _serve(self) -> None:
        """One thread of the pool: it has one child, and gives it one picture after the other."""
        slot = _Slot(self._server, Confinement(self._limits))
        while (task := self._waiting.get()) is not None:
            self._run(task, slot, ATTEMPTS, partial(_open_files, task.args))
        slot.end()

    def _run_alone(self, task: _Task) -> None:
        """A large task, in a child of its own. The caller tries again if that is lost: it must remove what is left."""
        try:
            args, readable, writable = _grant_paths(task.args)
        except OSError as error:
            task.fail(errors.from_os_error(error))
            return
        server = self._table_server if task.function.partition(":")[0] in TABLE_MODULES else self._server
        slot = _Slot(server, Confinement(replace(self._limits, file_bytes=MAX_LIST), True, readable, writable))
        self._run(task, slot, 1, lambda: nullcontext((args, ())))
        slot.end()

    def _run(self, task: _Task, slot: _Slot, attempts: int, open_files: Callable[[], _Opened]) -> None:
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
            except Exception as error:  # a fault of ours, in the arguments
                slot.end()
                refusal = task.refusal(UNREADABLE)
                refusal.add_note(repr(error)[:200])
                task.fail(refusal)
            return
        task.fail(Overloaded(NO_CHILD))

    def _ask(
        self, task: _Task, slot: _Slot, child: ChildProcess, args: tuple[Any, ...], descriptors: Sequence[int]
    ) -> tuple[Answer, float]:
        """The answer of a task, and its seconds. Raises its error, that of the child's death, or _ChildLost."""
        with self._lock:
            if task.future.done():
                raise Overloaded(CLOSED)
            task.child = child
        began = time.monotonic()
        try:
            child.send(Task(task.cpu_seconds, task.function, args), descriptors)
            answer = child.receive(began + task.seconds)
        except TimeoutError:
            slot.end()
            self._on_death("timeout")
            raise task.refusal(f"reading it took longer than {task.seconds:g} s") from None
        except ChannelClosed:
            raise self._explain_death(task, slot.end()) from None
        finally:
            with self._lock:
                task.child = None
        if answer.fields.get("refused"):
            slot.end()
            self._on_death("sandbox")
            raise task.refusal(_FORBIDDEN)
        seconds = time.monotonic() - began
        if not {"value", "picture"} & answer.fields.keys():
            raise read_error(answer.fields, task.refusal)
        return answer, seconds

    def _explain_death(self, task: _Task, status: int | None) -> Exception:
        """The error for a task whose child has ended."""
        if task.future.done():
            return Overloaded(CLOSED)
        if status is None:  # the fork server ended, and its children with it
            return _ChildLost()
        self._on_death(DEATH_CAUSES.get(status, "crash"))
        if status == -signal.SIGXCPU:
            return task.refusal(f"reading it took longer than {task.cpu_seconds} s of processor time")
        if status == -signal.SIGKILL:
            return task.refusal("the decoder was killed, most likely for the memory it used")
        return task.refusal(_FORBIDDEN if status == -signal.SIGSYS else "the decoder crashed")


def read_error(fields: dict[str, Any], refusal: type[Rejected]) -> SightlineError:
    """The error that a child says. Nothing of it is believed that a decoder could not have raised."""
    if fields.get("memory"):
        return refusal("reading it needs more memory than allowed")
    if fields.get("file"):
        return refusal("reading it writes a larger file than allowed")
    kind, detail = ERRORS.get(str(fields.get("error"))), fields.get("detail")
    if kind is not None and isinstance(detail, str):
        return kind(detail[:MAX_DETAIL])
    error = refusal(UNREADABLE)
    error.add_note(f"{fields.get('odd')!s:.200}")  # for the log of the service
    return error


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
