"""A database with one write thread: the changes of several callers share a transaction, and so an fsync.

`app.storage.sqlite` has the database of one machine, `app.storage.postgresql` that of several.
`app.storage.address` opens either.
"""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from app.core.errors import Overloaded, ReadOnly, StorageFull
from app.core.metrics import ProcessMetrics
from app.storage.sql import Connection

T = TypeVar("T")
Work = Callable[[Connection], T]

MAX_GROUP = 64  # changes that share one commit


class Database(ABC):
    """`write` runs on the write thread, `read` on the caller's."""

    def __init__(self, address: str, metrics: ProcessMetrics | None = None) -> None:
        self.address = address  # what another process opens it by; it may hold a password
        self.fault: str | None = None  # why the last commit failed, if the disk was the reason
        self._metrics = metrics or ProcessMetrics()
        self._queue: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="database-write", daemon=True)

    def write(self, work: Work[T]) -> T:
        """Run `work(connection)` in a transaction and return its result once it is durable."""
        return self.submit(work).result()

    def submit(self, work: Work[T]) -> Future[T]:
        """Like `write`, but returns at once. The write thread applies changes in the order of submission."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise Overloaded("the service is stopping")
            self._queue.put((work, future))
        return future

    @abstractmethod
    def read(self, work: Work[T]) -> T:
        """Run `work(connection)` on one consistent snapshot of what is committed."""

    @abstractmethod
    def watch_commits(self) -> Callable[[], int]:
        """A function whose number changes when any process has committed since its last call."""

    @abstractmethod
    def check(self) -> list[str]:
        """Every fault that the database finds in its own files."""

    def alive(self) -> bool:
        """Whether the write thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish the writes that were submitted, then close every connection."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self._disconnect()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < MAX_GROUP and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)  # it ends the outer loop, too
                    break
                batch.append(following)
            self._commit_batch(batch)

    def _commit_batch(self, batch: list[tuple[Work[Any], Future[Any]]]) -> None:
        """Commit the batch in one transaction; a change that fails is undone alone."""
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            self._begin()
            for work, future in batch:
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    outcomes.append((future, self._change(work), None))
                except Exception as error:
                    if not self._is_in_transaction():  # the database undid everything: full disk, I/O error
                        raise
                    outcomes.append((future, None, error))
            with self._metrics.commits.time():
                self._commit()
        except Exception as error:
            mapped = self._map_error(error)
            self.fault = mapped.detail if isinstance(mapped, StorageFull | ReadOnly) else None
            self._roll_back()  # nothing may end this thread; the next batch tries again
            for _, future in batch:
                if not future.done():
                    future.set_exception(mapped)
            return
        self.fault = None
        for future, result, failure in outcomes:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(self._map_error(failure))

    # Of the transaction of the write thread:

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _change(self, work: Work[T]) -> T:
        """Run one change in a savepoint of its own."""

    @abstractmethod
    def _commit(self) -> None: ...

    @abstractmethod
    def _roll_back(self) -> None:
        """End the transaction, if there is one. Raises nothing."""

    @abstractmethod
    def _is_in_transaction(self) -> bool: ...

    @abstractmethod
    def _map_error(self, error: BaseException) -> BaseException:
        """Our error for one of the database; those of bugs stay as they are."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close every connection. The write thread has ended."""
