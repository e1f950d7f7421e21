"""Bounded lanes of threads, so that no kind of work can take the threads of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
from starlette.types import Scope

from app.core.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")


class ThreadPool:
    """At most `width` calls at once and `depth` waiting; more are refused with Overloaded."""

    def __init__(self, width: int, depth: int) -> None:
        self._limiter = anyio.CapacityLimiter(width)
        self.most = width + depth
        self._inside = 0  # not the limiter's own count, which a burst has passed before it changes

    @property
    def inside(self) -> int:
        """How many calls run or wait."""
        return self._inside

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in a thread of this lane."""
        if self._inside >= self.most:
            raise Overloaded("too many requests are waiting; try again in a moment")
        self._inside += 1
        try:
            return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._limiter)
        finally:
            self._inside -= 1


class ThreadPools:
    """The lanes of one application: queries, reads of rows and files, writes, and checks."""

    def __init__(self, queries: int) -> None:
        self.queries = ThreadPool(min(queries, 64), queries)
        self.reads = ThreadPool(8, 1024)
        self.writes = ThreadPool(32, 1024)
        self.checks = ThreadPool(2, 256)  # whoever watches the service is answered while all others wait


ENDLESS = ("/v1/jobs/{id}/events",)  # it lasts as long as its job, and waits nearly all of the time


@dataclass(slots=True)
class Door:
    """At most `most` inside."""

    most: int
    inside: int = 0

    @property
    def full(self) -> bool:
        """Whether another one must be refused."""
        return self.inside >= self.most

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        self.inside -= 1


class Doors:
    """One for searches, one for everything else that is read."""

    def __init__(self, lanes: ThreadPools) -> None:
        self._searches = Door(lanes.queries.most)
        self._reads = Door(lanes.reads.most)

    def of(self, scope: Scope) -> Door | None:
        """The door of this request, which the gate has let in; None when it is not counted here."""
        path = scope["call"].path
        if scope["method"] != "GET" or not path.startswith("/v1/") or path in ENDLESS:
            return None
        return self._searches if path == "/v1/search" else self._reads
