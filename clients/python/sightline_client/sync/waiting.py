"""Waits and bounded concurrency, with threads. `aio/waiting.py` does the same with asyncio."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

sleep = time.sleep


def run_in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function that reads files: here."""
    return function(*args, **kwargs)


def run_at_once(work: Callable[[T], R], items: Iterable[T], limit: int) -> Iterator[R]:
    """The results in the order of the items, of which `limit` are at work at once. A failure ends all."""
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(limit) as threads:
        try:
            for item in items:
                running.append(threads.submit(work, item))
                if len(running) >= limit:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
