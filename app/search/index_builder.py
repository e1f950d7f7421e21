"""IndexBuilder: gives large indexes a new sealed segment when it is worth it, one after the other, in the background.

A process of its own builds the segment (`app.search.build_process`); the builder checks it whole before the index goes
on with it. A build that fails or is killed changes nothing: the old segment answers, and another try follows, more and
more rarely.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.errors import describe_error
from app.core.metrics import ProcessMetrics
from app.core.process import spawn
from app.search.build_process import ADDRESS, BuildOrder, write_arrays
from app.search.index_handle import IndexHandle, IndexKey
from index import snapshot
from index.errors import IndexClosed, InvalidSnapshot, SegmentDamaged
from index.factory import IndexConfig, load_sealed_segment
from index.segmented import RebuildPolicy, SegmentedIndex
from index.types import Embeddings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
PROCESS_POLL_SECONDS = 0.05
RETRY_FIRST, RETRY_LAST = 10.0, 600.0
ERROR_BYTES = 2000


class BuildFailed(Exception):
    """A build did not succeed; the message says why."""


class BuildCancelled(Exception):
    """Nobody waits for this build any more."""


@dataclass(slots=True)
class _Watch:
    """The builder's state of one index. `idle` is set unless a build runs."""

    backoff: Backoff
    not_before: float = 0.0
    cancelled: threading.Event = field(default_factory=threading.Event)
    idle: threading.Event = field(default_factory=threading.Event)
    fault: str | None = None

    def __post_init__(self) -> None:
        self.idle.set()


class IndexBuilder:
    """A thread that checks and rebuilds the sealed segments of indexes from `watch` to `release`.

    It calls `on_damaged` for an index whose segment is damaged on the disk. `poll` is the pause between two checks,
    `retry` the first pause after a failed build, in seconds. Any thread may call any method.
    """

    def __init__(
        self,
        database: str,
        policy: RebuildPolicy | None = None,
        *,
        on_damaged: Callable[[IndexHandle], None] | None = None,
        metrics: ProcessMetrics | None = None,
        poll: float = POLL_SECONDS,
        retry: float = RETRY_FIRST,
    ) -> None:
        self._database = database
        self._policy = policy or RebuildPolicy()
        self._on_damaged = on_damaged
        self._metrics = metrics or ProcessMetrics()
        self._poll = poll
        self._retry = retry
        self._watched: dict[IndexHandle, _Watch] = {}
        self._lock = threading.Lock()
        self.list_asked: Callable[[IndexKey], Sequence[Embeddings]] = lambda key: ()
        """The vectors of queries to calibrate the segment of an index with, an array for each kind."""
        self._loop = BackgroundLoop("index-builder", self._check_all, "indexes get no new sealed segments")
        self._loop.start()

    def watch(self, handle: IndexHandle) -> None:
        """Check this index from now on."""
        with self._lock:
            self._watched[handle] = _Watch(Backoff(self._retry, RETRY_LAST))

    def release(self, handle: IndexHandle) -> None:
        """Check this index no more. Cancels its build, which has ended when this returns."""
        with self._lock:
            watch = self._watched.pop(handle, None)
            if watch is None:
                return
            watch.cancelled.set()
        watch.idle.wait()

    def is_alive(self) -> bool:
        return self._loop.is_alive()

    def faults(self) -> list[str]:
        """What keeps it from checking indexes at present. Failed builds are in their handles."""
        with self._lock:
            watches = list(self._watched.values())
        return [watch.fault for watch in watches if watch.fault is not None]

    def close(self) -> None:
        """Cancel the build that runs, and end. May be called again."""
        self._loop.close()

    def build(
        self,
        key: IndexKey,
        config: IndexConfig,
        end: tuple[int, str],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Build a sealed segment of the log up to its `end`, in a process of its own, and wait for that to end.

        Raises BuildFailed with the reason, and BuildCancelled when `is_cancelled()` or the builder was closed.
        """
        label, target = key
        asked = write_arrays(self.list_asked(key))
        upto, mark = end
        order = BuildOrder(label, target, config.space, config.d, upto, str(config.segment_folder), config.name, mark)
        process = spawn(
            "app.search.build_process",
            order.to_json(),
            str(os.getpid()),
            # the database's address may hold a password; waiting threads leave the processor
            env={ADDRESS: self._database, "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            stdin, process.stdin = process.stdin, None  # `communicate` would flush it
            with suppress(BrokenPipeError):  # the process has ended: its code says why
                if stdin is not None:
                    with stdin:
                        stdin.write(asked)
            while process.poll() is None:
                if self._loop.is_closing() or is_cancelled():
                    raise BuildCancelled
                time.sleep(PROCESS_POLL_SECONDS)
            stderr = process.stderr.read(ERROR_BYTES).decode(errors="replace") if process.stderr else ""
        finally:
            process.kill()
            process.communicate()
        if process.returncode:
            last = stderr.strip().splitlines()[-1:] or ["it printed nothing"]
            raise BuildFailed(f"the build ended with code {process.returncode}: {last[0]}")

    def _check_all(self) -> float:
        with self._lock:
            watched = list(self._watched.items())
        for handle, watch in watched:
            if self._loop.is_closing():
                break
            try:
                self._check(handle, watch)
                watch.fault = None
            except IndexClosed:
                continue
            except Exception as error:  # the others are checked all the same
                watch.fault = f"the sealed segment of {handle.config.name} is not checked: {describe_error(error)}"
                log.exception("%s", watch.fault)
        return self._poll

    def _check(self, handle: IndexHandle, watch: _Watch) -> None:
        index = handle.index
        if not isinstance(index, SegmentedIndex):
            return
        sealed = index.sealed
        if sealed is not None and not sealed.verified:
            try:
                sealed.verify(lambda: self._is_cancelled(watch))
            except SegmentDamaged as error:
                log.error("the sealed segment of %s is damaged (%s); it is built again", handle.config.name, error)
        if sealed is not None and sealed.damage is not None:
            if self._on_damaged is not None and not watch.cancelled.is_set():
                self._on_damaged(handle)
            return
        if time.monotonic() < watch.not_before or not self._policy.is_due(index.stats(), index.seconds_unchanged()):
            return
        with self._lock:
            if watch.cancelled.is_set():
                return
            watch.idle.clear()
        handle.building = True
        try:
            self._rebuild(handle, index, watch)
        finally:
            handle.building = False
            watch.idle.set()

    def _rebuild(self, handle: IndexHandle, index: SegmentedIndex, watch: _Watch) -> None:
        config = handle.config
        began = time.monotonic()
        index.begin_rebuild()
        try:
            self.build(handle.key, config, handle.log.read_end(), watch.cancelled.is_set)
            sealed = load_sealed_segment(config)
            sealed.verify(lambda: self._is_cancelled(watch))
            if self._is_cancelled(watch):
                return
            index.replace_segment(sealed)
        except (BuildFailed, SegmentDamaged, InvalidSnapshot, OSError) as error:
            handle.build_error = str(error)
            self._metrics.observe_build(time.monotonic() - began, ok=False)
            pause = watch.backoff.next()
            watch.not_before = time.monotonic() + pause
            log.warning("no new sealed segment of %s, retry in %.0f s: %s", config.name, pause, error)
            return
        except BuildCancelled:
            return
        finally:
            index.end_rebuild()
        took = time.monotonic() - began
        self._metrics.observe_build(took, ok=True)
        handle.build_error = None
        watch.backoff.reset()
        watch.not_before = time.monotonic() + took  # half of the time at most goes into building
        snapshot.discard(config.folder)  # of the time before the first sealed segment
        log.info("new sealed segment of %s: %d vectors in %.1f s", config.name, sealed.n, took)

    def _is_cancelled(self, watch: _Watch) -> bool:
        return self._loop.is_closing() or watch.cancelled.is_set()
