"""Reading what one has written, at any server of a cluster: an answer to a write carries a token (`Sightline-Token`),
and a search with `?after=TOKEN` waits until the index of the server that answers holds that write."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request

from app.api.concurrency import ThreadPools
from app.api.dependencies import ImageWaiterDep, LibraryDep, SearchDep, ThreadsDep
from app.core.errors import NotApplied, NotFound, Validation
from app.core.types import Image, Job, JobState, Status, Target
from app.service.image_waiter import UNFINISHED, ImageWaiter
from app.service.search_service import SearchService
from app.storage.library import Library

WRITE_HEADER = "Sightline-Token"
AFTER_SECONDS = 10.0
POLL_SECONDS = 0.01  # between two looks at a number in memory
TOKEN = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
AFTER = (
    "Wait until this server has the write whose answer had this Sightline-Token, up to 10 seconds; with several servers"
    " a search finds what was just written by another one only so."
)


@dataclass(frozen=True, slots=True)
class WriteToken:
    """What a write has done: the log up to `seq`, and a picture, by its key, that a worker has still to embed."""

    seq: int = 0
    pending: int | None = None

    @classmethod
    def parse(cls, text: str) -> WriteToken:
        """Raises Validation."""
        if (match := TOKEN.fullmatch(text)) is None:
            raise Validation(f"after: expected a token that an answer had in its header {WRITE_HEADER}")
        return cls(int(match[1]), int(match[2]) if match[2] else None)

    @classmethod
    def of_image(cls, image: Image) -> WriteToken:
        pending = image.key if image.status in UNFINISHED else None
        return cls(image.embedded_seq or 0, pending)

    @classmethod
    def of_job(cls, job: Job) -> WriteToken:
        """Of a job that has succeeded: all that it brought."""
        return cls(job.last_seq if job.state is JobState.SUCCEEDED else 0)

    def __str__(self) -> str:
        return str(self.seq) if self.pending is None else f"{self.seq}-{self.pending}"


def set_token(request: Request, token: WriteToken) -> None:
    """Let the answer to this request carry the token."""
    request.state.token = token


def find_token(request: Request) -> WriteToken | None:
    """The token that the answer is to carry; that of a write whose effect every server sees at once is 0."""
    token: WriteToken | None = getattr(request.state, "token", None)
    is_write = request.method not in ("GET", "HEAD") and "/search" not in request.url.path
    return token or (WriteToken() if is_write else None)


class AfterWrite:
    """A dependency of routes that take `after`; `wait` before reading."""

    def __init__(
        self,
        token: WriteToken | None,
        search: SearchService,
        library: Library,
        waiter: ImageWaiter,
        threads: ThreadPools,
    ) -> None:
        self._token = token
        self._search, self._library, self._waiter, self._threads = search, library, waiter, threads

    async def wait(self, collection: str, target: Target) -> None:
        """Wait until a search of `target` in the collection sees the write. Raises NotApplied, Validation."""
        if self._token is None:
            return
        until = time.monotonic() + AFTER_SECONDS
        seq = self._token.seq
        if self._token.pending is not None:
            seq = max(seq, await self._wait_until_embedded(collection, self._token.pending, until))
        await self._threads.reads.run(self._search.require_known, seq)
        with suppress(NotFound):  # the search will say so
            is_applied = await self._threads.reads.run(self._search.watch_applied, collection, target, seq)
            await poll(is_applied, until)

    async def _wait_until_embedded(self, collection: str, key: int, until: float) -> int:
        """The number of the log entry of a picture; 0 if it will have none."""
        image = await self._threads.reads.run(self._library.find_by_key, collection, key)
        if image is None:
            return 0
        if image.status in UNFINISHED:
            future = self._waiter.watch(image)
            try:
                waiting = asyncio.wrap_future(future)
                image = await asyncio.wait_for(waiting, max(0.0, until - time.monotonic()))
            except NotFound:
                return 0
            except (TimeoutError, FutureTimeoutError):
                raise NotApplied(
                    f"no worker has embedded the picture of this token within {AFTER_SECONDS:g} s"
                ) from None
        return (image.embedded_seq or 0) if image.status is Status.READY else 0


async def poll(is_applied: Callable[[], bool], until: float) -> None:
    """Wait for a number in memory to rise. Raises NotApplied."""
    while not is_applied():
        if time.monotonic() > until:
            raise NotApplied(f"this server has not seen the write of this token within {AFTER_SECONDS:g} s")
        await asyncio.sleep(POLL_SECONDS)


async def get_after(
    search: SearchDep,
    library: LibraryDep,
    waiter: ImageWaiterDep,
    threads: ThreadsDep,
    after: Annotated[str | None, Query(description=AFTER, max_length=40, examples=["1234"])] = None,
) -> AfterWrite:
    return AfterWrite(None if after is None else WriteToken.parse(after), search, library, waiter, threads)


AfterDep = Annotated[AfterWrite, Depends(get_after)]
