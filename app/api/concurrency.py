"""How much may be under way at once: requests, counted before the application sees them, and calls in threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

from app.core.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

SEARCHES = b"/v1/search"
READS = b"/v1/"
ENDLESS = b"/events"  # an event stream lasts as long as its job, and waits nearly all of the time


def too_many(what: str, limit: int) -> str:
    """The one sentence of every refusal for overload."""
    return f"too many {what} at once: the limit is {limit}; try again in a moment"


class ThreadPool:
    """At most `width` calls at once and `depth` waiting; more are refused with Overloaded."""

    def __init__(self, name: str, width: int, depth: int) -> None:
        self.name = name
        self.capacity = width + depth
        self._limiter = anyio.CapacityLimiter(width)
        self._running = 0  # not the limiter's own count: a burst would pass the limit before that changes

    @property
    def running(self) -> int:
        """How many calls run or wait."""
        return self._running

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in a thread of this pool."""
        if self._running >= self.capacity:
            raise Overloaded(too_many(self.name, self.capacity))
        self._running += 1
        try:
            return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._limiter)
        finally:
            self._running -= 1


class ThreadPools:
    """The pools of one application, so that no kind of work can take the threads of another."""

    def __init__(self, queries: int) -> None:
        self.queries = ThreadPool("queries", min(queries, 64), queries)
        self.reads = ThreadPool("reads", 8, 1024)
        self.writes = ThreadPool("writes", 32, 1024)
        self.explanations = ThreadPool("explanations", 2, 14)  # each is many pictures; searches go first
        self.outside = ThreadPool("questions", 4, 28)  # calls that wait for another server
        self.checks = ThreadPool("checks", 2, 256)  # health checks are answered while everything else waits


@dataclass(slots=True, eq=False)
class RequestLimit:
    """How many requests of one kind may be read and not yet answered."""

    name: str
    capacity: int
    running: int = 0

    def is_full(self) -> bool:
        return self.running >= self.capacity


class RequestLimits:
    """What the protocol counts. Each limit is as many requests as the pool takes that does their work."""

    def __init__(self, searches: int, reads: int) -> None:
        self._searches = RequestLimit("searches", searches)
        self._reads = RequestLimit("reads", reads)

    def find(self, method: bytes, url: bytes) -> RequestLimit | None:
        """The limit that counts this request; None for checks, uploads and event streams."""
        if url.startswith(SEARCHES):
            return self._searches
        if method in (b"GET", b"HEAD") and url.startswith(READS) and not url.partition(b"?")[0].endswith(ENDLESS):
            return self._reads
        return None
