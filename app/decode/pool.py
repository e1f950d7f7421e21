"""A pool of decode children: tasks go in, pictures or our own errors come out, whatever a child does."""

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
from pathlib import Path
from typing import Any, Generic, ParamSpec, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from app.core.errors import ArchiveCorrupt, ImageCorrupt, Overloaded, Rejected, SightlineError
from app.core.metrics import ProcessMetrics
from app.core.types import Preprocessing
from app.decode import archive, picture
from app.decode.limits import ArchiveLimits, ChildLimits, PictureLimits
from app.decode.picture import DecodedPicture
from app.decode.sandbox import confine_child, make_child_context, run_task

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

TASKS_PER_CHILD = 1_000  # then a fresh one: leaks of the decoders stay small
ATTEMPTS = 3  # starts of a task that a broken pool, not the task itself, brought down
CAUSES = {-signal.SIGXCPU: "processor", -signal.SIGKILL: "memory"}  # of a child's end
_STOPPING = "The decoders are stopping."
_NONE = "No decoder could be started; try again."


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """One picture to decode, and where to write its thumbnail (None: none is written)."""

    path: Path
    preprocessing: Preprocessing
    thumbnail: Path | None = None
    thumbnail_size: int = 320


@dataclass(slots=True, eq=False)
class _Work(Generic[T]):
    """A task on its way: what to call, within which limits, and the caller's future."""

    function: Callable[..., T]
    args: tuple[Any, ...]
    seconds: float
    cpu_seconds: int
    refusal: type[Rejected]
    future: Future[T] = field(default_factory=Future)
    attempts: int = 0
    began: float = 0.0
    pool: ProcessPool | None = None


class DecodePool:
    """`workers` children, each of which decodes one picture at a time and can be killed.

    A future fails only with a SightlineError: what a child could not survive is ImageCorrupt (or
    ArchiveCorrupt), trouble of the pool itself is Overloaded. Thread-safe. Children start with the
    first task, and are replaced when they die.
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
        self._open: set[_Work[Any]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, task: DecodeTask) -> Future[DecodedPicture]:
        """Decode a picture. Cancelling the future stops the child that works on it."""
        return self.run(
            picture.decode_picture,
            task.path,
            task.preprocessing,
            self.picture_limits,
            task.thumbnail,
            task.thumbnail_size,
        )

    def expand(self, path: Path, folder: Path, limits: ArchiveLimits, seconds: float = 300.0) -> Future[Path]:
        """Expand an archive into `folder`, see `archive.expand`; `seconds` bound wall and processor time.

        A child that is stopped leaves its files behind: the folder is the caller's to remove.
        """
        return self.read(seconds, archive.expand_archive, path, folder, limits, self.picture_limits)

    def read(self, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Like `run`, for what is larger than a picture: `seconds` bound wall and processor time."""
        if kwargs:
            raise TypeError("read() takes positional arguments only")
        return self._start(_Work(function, args, seconds, max(1, round(seconds)), ArchiveCorrupt))

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run an importable function in a child, within the pool's ChildLimits."""
        if kwargs:
            raise TypeError("run() takes positional arguments only")
        limits = self.child_limits
        return self._start(_Work(function, args, limits.seconds, limits.cpu_seconds, ImageCorrupt))

    def prewarm(self) -> None:
        """Wait until a child has started, so that the first picture need not."""
        self.run(time.monotonic).result()

    def close(self) -> None:
        """Stop at once: running tasks are killed, and every open future fails with Overloaded."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            _stop(pool)
        for task in tuple(self._open):
            _fail(task, Overloaded(_STOPPING))

    def _start(self, task: _Work[T]) -> Future[T]:
        self._open.add(task)
        task.future.add_done_callback(lambda _: self._open.discard(task))
        self._schedule(task)
        return task.future

    def _schedule(self, task: _Work[Any]) -> None:
        task.attempts += 1
        try:
            pool = task.pool = self._running()
            task.began = time.monotonic()
            inner = pool.schedule(run_task, (task.cpu_seconds, task.function, *task.args), timeout=task.seconds)
        except SightlineError as error:
            _fail(task, error)
        except RuntimeError:  # pebble's word for a pool that broke a moment ago
            self._again(task)
        except OSError:
            _fail(task, Overloaded(_NONE))
        else:
            task.future.add_done_callback(lambda outer: _cancel(inner) if outer.cancelled() else None)
            inner.add_done_callback(lambda done: self._finish(task, done))
            if not pool.active:  # it broke while the task was put in its queue, where nothing looks again
                with suppress(SightlineError):
                    self._running()

    def _running(self) -> ProcessPool:
        """The pool, started anew if it broke."""
        with self._lock:
            if self._closed:
                raise Overloaded(_STOPPING)
            if self._pool is not None and not self._pool.active:
                log.warning("the decode pool broke and is started again")
                # Not here: this may be one of the broken pool's own threads, which end must be awaited.
                threading.Thread(target=self._bury, args=(self._pool,), daemon=True).start()
                self._pool = None
            if self._pool is None:
                pool = ProcessPool(self.workers, TASKS_PER_CHILD, confine_child, (self.child_limits,), self._context)
                self._pool = pool if pool.active else None  # asking is what starts the children
            if self._pool is None:
                raise Overloaded(_NONE)
            return self._pool

    def _bury(self, broken: ProcessPool) -> None:
        """Stop a broken pool and start again what it had not begun: pebble leaves that waiting for ever."""
        _stop(broken)
        for task in tuple(self._open):
            if task.pool is broken:
                self._again(task)

    def _finish(self, task: _Work[Any], done: Future[Any]) -> None:
        """Hand the result of a child, or our name for its failure, to the caller."""
        try:
            result, seconds = done.result()
        except BrokenProcessPool:
            self._again(task)
        except TimeoutError as error:
            if time.monotonic() - task.began < task.seconds:
                self._again(task)  # pebble reads the wall clock, and somebody has set it
            else:
                self._metrics.count_decoder_death("timeout")
                _fail(task, _named(error, task))
        except CancelledError:
            _fail(task, Overloaded(_STOPPING))
        except BaseException as error:
            if isinstance(error, ProcessExpired):
                self._metrics.count_decoder_death(CAUSES.get(error.exitcode, "crash"))
            _fail(task, _named(error, task))
        else:
            self._metrics.observe_decode(seconds)
            with suppress(InvalidStateError):  # cancelled meanwhile
                task.future.set_result(result)

    def _again(self, task: _Work[Any]) -> None:
        if task.attempts < ATTEMPTS:
            self._schedule(task)
        else:
            _fail(task, Overloaded(_NONE))


def _named(error: BaseException, task: _Work[Any]) -> SightlineError:
    """Our error for whatever a task raised or a child died of."""
    if isinstance(error, SightlineError):
        return error
    if isinstance(error, TimeoutError):
        return task.refusal(f"Reading it took longer than {task.seconds:g} s.")
    if isinstance(error, MemoryError):
        return task.refusal("Reading it needs more memory than allowed.")
    if isinstance(error, ProcessExpired):
        if error.exitcode == -signal.SIGXCPU:
            return task.refusal(f"Reading it took longer than {task.cpu_seconds} s of processor time.")
        if error.exitcode == -signal.SIGKILL:
            return task.refusal("The decoder was killed, most likely for the memory it used.")
        return task.refusal("The decoder crashed.")
    log.warning("a decode task failed: %r", error)
    return task.refusal("It could not be read.")


def _fail(task: _Work[Any], error: SightlineError) -> None:
    with suppress(InvalidStateError):
        task.future.set_exception(error)


def _cancel(inner: Future[Any]) -> None:
    inner.cancel()


def _stop(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()
