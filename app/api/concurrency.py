"""How much may be under way at once: requests, counted before the application sees them, and calls in threads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, ParamSpec, TypeAlias, TypeVar

import anyio
import anyio.to_thread
from fastapi import Response

from app.core.errors import Overloaded, SightlineError
from app.core.settings import count_cores
from app.search.query import SearchQuery
from app.search.searcher import Searcher

P = ParamSpec("P")
T = TypeVar("T")
Q = TypeVar("Q")
R = TypeVar("R")
Answer: TypeAlias = Callable[[Sequence[Q]], Sequence[R | Exception]]

SEARCHES = (
    *(b"/v1/search", b"/mcp", b"/knn-service", b"/compat/weaviate/vectorize", b"/predict"),
    *(b"/v1/embed", b"/v2/embed", b"/v1/multimodalembeddings", b"/embeddings"),
)
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


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Q, R]):
    """A query that waits for a call, and the function that answers it."""

    function: Answer[Q, R]
    query: Q
    answer: asyncio.Future[R] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class SharedCalls(Generic[Q, R]):
    """Answers queries in threads of a pool. Those that wait while `width` calls run share the next one.

    There is no timer. Many small calls in as many threads cost more than their work: all of them want the interpreter.
    """

    most = 32  # queries of a call

    def __init__(self, pool: ThreadPool, width: int) -> None:
        self._pool = pool
        self._width = width
        self._waiting: deque[_Waiting[Q, R]] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, function: Answer[Q, R], query: Q) -> R:
        """The answer of `function`, which takes several queries and returns for each an answer or an error."""
        if len(self._waiting) >= self._pool.capacity:
            raise Overloaded(too_many(self._pool.name, self._pool.capacity))
        waiting = _Waiting(function, query)
        self._waiting.append(waiting)
        if self._running < self._width:
            self._running += 1
            await self._serve()
        return await waiting.answer

    async def _serve(self) -> None:
        """Answer a batch; if others wait then, a task goes on with them."""
        try:
            if batch := self._take_batch():
                await self._answer(batch)
        finally:
            if self._waiting:
                task = asyncio.get_running_loop().create_task(self._serve(), context=Context())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._running -= 1

    def _take_batch(self) -> list[_Waiting[Q, R]]:
        batch: list[_Waiting[Q, R]] = []
        function = self._waiting[0].function if self._waiting else None
        while self._waiting and len(batch) < self.most and self._waiting[0].function == function:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():  # its caller has gone
                batch.append(waiting)
        return batch

    async def _answer(self, batch: Sequence[_Waiting[Q, R]]) -> None:
        answers: Sequence[R | Exception]
        try:
            answers = await self._pool.run(batch[0].function, [waiting.query for waiting in batch])
        except SightlineError as error:
            answers = [error] * len(batch)
        except Exception as error:  # a bug that one query meets must not fail the others
            if len(batch) > 1:
                for waiting in batch:
                    await self._answer([waiting])
                return
            answers = [error]
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)


class ThreadPools:
    """The pools of one application, so that no kind of work can take the threads of another."""

    def __init__(self, queries: int) -> None:
        self.queries = ThreadPool("queries", min(queries, 64), queries)
        self.searches: SharedCalls[tuple[Searcher, SearchQuery], Response] = SharedCalls(
            self.queries, max(2, count_cores())
        )
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
