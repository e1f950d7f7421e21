"""Event streams of jobs and saved searches: one poller for each that is followed, and a limit on streams."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from app.api.concurrency import ThreadPools
from app.api.schemas.jobs import JobOut
from app.core.errors import Busy, Overloaded, RateLimited, SightlineError
from app.core.types import Job, JobState

POLL_SECONDS = 0.5
RUNNING = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)
SHARE = 4  # one caller may have a quarter of the streams


class _Poller:
    """Reads one value until it ends or nobody follows it; wakes the followers when it has changed."""

    def __init__(self) -> None:
        self.followers = 0
        self.now: Any = None
        self.has_ended = False
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def publish(self, now: Any) -> None:
        if now != self.now or self.has_ended:
            self.now = now
            self.changed.set()
            self.changed = asyncio.Event()


class JobEvents:
    """The streams of one server: at most `most` at once. `read` reads the job of an id, in a thread."""

    def __init__(self, read: Callable[[str], Job], threads: ThreadPools, most: int) -> None:
        self._read = read
        self._threads = threads
        self._most = most
        self._share = max(1, most // SHARE)
        self._streams: Counter[str] = Counter()
        self._pollers: dict[str, _Poller] = {}

    @contextmanager
    def count(self, caller: str) -> Iterator[None]:
        """Count a stream while it lasts. Raises RateLimited, Overloaded."""
        if self._streams[caller] >= self._share:
            raise RateLimited(f"this caller reads {self._share} event streams already; that is the limit at once")
        if self._streams.total() >= self._most:
            raise Overloaded(f"{self._most} event streams are read already; that is the limit at once")
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            self._streams += Counter()  # without those who have none

    def follow(self, job: Job, patience: float) -> AsyncGenerator[JobOut | None]:
        """The job whenever it has changed, until it ends; None after `patience` seconds without a change."""

        def read() -> tuple[JobOut, bool]:
            now = self._read(job.id)
            return JobOut.of(now), now.state not in RUNNING

        return self._follow(f"job {job.id}", read, patience)

    def follow_value(self, name: str, read: Callable[[], int], patience: float) -> AsyncGenerator[int | None]:
        """The number that `read` returns whenever it has changed, until that raises a SightlineError; None as above.

        Streams of the same name share one poller.
        """
        return self._follow(name, lambda: (read(), False), patience)

    async def _follow(self, name: str, read: Callable[[], tuple[Any, bool]], patience: float) -> AsyncGenerator[Any]:
        """What `read` returns whenever it has changed; its second value says whether it is the last."""
        poller = self._pollers.get(name)
        if poller is None:
            poller = self._pollers[name] = _Poller()
            poller.task = asyncio.create_task(self._poll(poller, name, read))
        poller.followers += 1
        sent: Any = None
        try:
            while True:
                changed = poller.changed
                if poller.now != sent:
                    sent = poller.now
                    yield sent
                elif poller.has_ended:
                    return
                else:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), patience)
                        continue
                    yield None
        finally:
            poller.followers -= 1
            if not poller.followers and poller.task is not None:
                self._forget(poller, name)
                poller.task.cancel()

    async def _poll(self, poller: _Poller, name: str, read: Callable[[], tuple[Any, bool]]) -> None:
        try:
            while True:
                with suppress(Busy):  # the next look may be in time
                    now, is_last = await self._threads.reads.run(read)
                    poller.publish(now)
                    if is_last:
                        return
                await asyncio.sleep(POLL_SECONDS)
        except SightlineError:  # what is followed was deleted, or cannot be read: the streams end
            return
        finally:
            self._forget(poller, name)
            poller.has_ended = True
            poller.publish(poller.now)

    def _forget(self, poller: _Poller, name: str) -> None:
        if self._pollers.get(name) is poller:
            del self._pollers[name]
