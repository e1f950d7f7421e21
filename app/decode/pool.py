"""A pool of decode children. Each task ends with a result or one of our errors, whatever happens to its child."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar, TypeVarTuple

from pebble import ProcessExpired, ProcessPool

from app.core.errors import ArchiveCorrupt, ImageCorrupt, Overloaded, Rejected, SightlineError
from app.core.metrics import ProcessMetrics
from app.decode.limits import ChildLimits, PictureLimits
from app.decode.sandbox import confine_child, make_child_context, run_task

Args = TypeVarTuple("Args")
T = TypeVar("T")

log = logging.getLogger(__name__)

TASKS_PER_CHILD = 1_000  # then a new child takes its place, so that leaks of the decoders stay small
ATTEMPTS = 3  # starts of a task while the pool breaks for another reason than the task
DEATH_CAUSES = {-signal.SIGXCPU: "processor", -signal.SIGKILL: "memory"}  # by exit status of the child
_CLOSED = "the decoders are stopping"
_NO_CHILD = "no decoder could be started; try again"


@dataclass(slots=True, eq=False)
class _Task(Generic[T]):
    """A function to call in a child, its limits, and the caller's future."""

    function: Callable[..., T]
    args: tuple[Any, ...]
    seconds: float
    cpu_seconds: int
    refusal: type[Rejected]  # raised if the child dies of the task
    future: Future[T] = field(default_factory=Future)
    attempts: int = 0
    started: float = 0.0
    pool: ProcessPool | None = None


class DecodePool:
    """`workers` child processes, each of which runs one task at a time and can be killed.

    A future fails only with a SightlineError: Overloaded if the pool is in trouble, the task's `refusal` if the child
    died of the task. Thread-safe. Children start with the first task; new ones replace those that die.
    """

    def __init__(
        self,
        workers: int,
        child_limits: ChildLimits | None = None,
        picture_limits: PictureLimits | None = None,
        metrics: ProcessMetrics | None = None,
    ) -> None:
        self.workers = workers
        self.child_limits = child_limits or ChildLimits()
        self.picture_limits = picture_limits or PictureLimits()
        self._metrics = metrics or ProcessMetrics()
        self._lock = threading.Lock()
        self._closed = False
        self._context = make_child_context()
        self._pool: ProcessPool | None = None
        self._open: set[_Task[Any]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, function: Callable[[*Args], T], *args: *Args, seconds: float | None = None) -> Future[T]:
        """Run an importable function in a child; if the caller cancels the future, the pool kills that child.

        By default the task is one picture, within `child_limits`, and ImageCorrupt if the child dies of it. With
        `seconds` (of wall and processor time) it is something larger, and ArchiveCorrupt. A child that is killed leaves
        its files behind; the caller removes them.
        """
        if seconds is None:
            limits = self.child_limits
            task = _Task(function, args, limits.seconds, limits.cpu_seconds, ImageCorrupt)
        else:
            task = _Task(function, args, seconds, max(1, round(seconds)), ArchiveCorrupt)
        self._open.add(task)
        task.future.add_done_callback(lambda _: self._open.discard(task))
        self._schedule(task)
        return task.future

    def prewarm(self) -> None:
        """Wait until a child has started. Raises Overloaded if none can be started."""
        self.submit(time.monotonic).result()

    def close(self) -> None:
        """Kill all running tasks; every open future fails with Overloaded."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            _stop(pool)
        for task in tuple(self._open):
            _fail(task, Overloaded(_CLOSED))

    def _schedule(self, task: _Task[Any]) -> None:
        task.attempts += 1
        try:
            pool = task.pool = self._running_pool()
            task.started = time.monotonic()
            inner: Future[Any] = pool.schedule(
                run_task, (task.cpu_seconds, task.function, *task.args), timeout=task.seconds
            )
        except SightlineError as error:
            _fail(task, error)
        except RuntimeError:  # pebble's error for a pool that broke a moment ago
            self._retry(task)
        except OSError:
            _fail(task, Overloaded(_NO_CHILD))
        else:
            task.future.add_done_callback(lambda outer: outer.cancelled() and inner.cancel())
            inner.add_done_callback(lambda done: self._finish(task, done))
            if not pool.active:  # it broke while the task entered its queue, which pebble does not look at again
                with suppress(SightlineError):
                    self._running_pool()

    def _running_pool(self) -> ProcessPool:
        """The pool; a new one if it broke."""
        with self._lock:
            if self._closed:
                raise Overloaded(_CLOSED)
            if self._pool is not None and not self._pool.active:
                log.warning("the decode pool broke; starting a new one")
                # In a thread: this one may belong to the broken pool, and would wait for its own end.
                threading.Thread(target=self._discard, args=(self._pool,), daemon=True).start()
                self._pool = None
            if self._pool is None:
                pool = ProcessPool(self.workers, TASKS_PER_CHILD, confine_child, (self.child_limits,), self._context)
                self._pool = pool if pool.active else None  # to read `active` starts the children
            if self._pool is None:
                raise Overloaded(_NO_CHILD)
            return self._pool

    def _discard(self, broken: ProcessPool) -> None:
        """Stop a broken pool, and schedule again the tasks that it never started: pebble leaves those waiting."""
        _stop(broken)
        for task in tuple(self._open):
            if task.pool is broken:
                self._retry(task)

    def _finish(self, task: _Task[Any], done: Future[Any]) -> None:
        """Hand the result of a child, or our error for its failure, to the caller."""
        try:
            result, seconds = done.result()
        except BrokenProcessPool:
            self._retry(task)
        except TimeoutError as error:
            if time.monotonic() - task.started < task.seconds:
                self._retry(task)  # pebble reads the wall clock, which somebody has set
            else:
                self._metrics.count_decoder_death("timeout")
                _fail(task, _map_error(error, task))
        except CancelledError:
            _fail(task, Overloaded(_CLOSED))
        except BaseException as error:
            if isinstance(error, ProcessExpired):
                self._metrics.count_decoder_death(DEATH_CAUSES.get(error.exitcode, "crash"))
            _fail(task, _map_error(error, task))
        else:
            self._metrics.decodes.observe(seconds)
            with suppress(InvalidStateError):  # the caller has cancelled it
                task.future.set_result(result)

    def _retry(self, task: _Task[Any]) -> None:
        if task.attempts < ATTEMPTS:
            self._schedule(task)
        else:
            _fail(task, Overloaded(_NO_CHILD))


def _map_error(error: BaseException, task: _Task[Any]) -> SightlineError:
    """Our error for whatever a task has raised or a child has died of."""
    if isinstance(error, SightlineError):
        return error
    if isinstance(error, TimeoutError):
        return task.refusal(f"reading it took longer than {task.seconds:g} s")
    if isinstance(error, MemoryError):
        return task.refusal("reading it needs more memory than allowed")
    if isinstance(error, ProcessExpired):
        if error.exitcode == -signal.SIGXCPU:
            return task.refusal(f"reading it took longer than {task.cpu_seconds} s of processor time")
        if error.exitcode == -signal.SIGKILL:
            return task.refusal("the decoder was killed, most likely for the memory it used")
        return task.refusal("the decoder crashed")
    log.warning("a decode task failed: %r", error)
    return task.refusal("it could not be read")


def _fail(task: _Task[Any], error: SightlineError) -> None:
    with suppress(InvalidStateError):
        task.future.set_exception(error)


def _stop(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()
