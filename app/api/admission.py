"""What the bodies of requests may cost, decided before they are read.

Each router declares the `BodyLimit` of its calls. `Admission` counts the bytes of all bodies that are under way, in all
and for each caller (a key, or an address without one): from the Content-Length before the first byte is read, else as
they come. What would pass a limit is refused at once. Costly bodies of one caller take turns, so that they cannot take
the processor from everybody else.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

import anyio.to_thread
from fastapi import Request
from starlette.types import Message, Receive

from app.core.errors import Overloaded, PayloadTooLarge, RateLimited
from app.core.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

SMALL = 64 << 10  # bytes: the protocol holds as many of each connection anyway
TINY = 1 << 10  # of a body that is a key, or where none is taken
FORM_OVERHEAD = 1 << 20  # of a multipart body beside its file
SHARE = 4  # one caller may have a quarter of a budget, and the last quarter is for small bodies
# What one caller may have under way at once; more wait. A call with many searches, labels or texts is mostly work of
# Python, which two such calls would do no faster; there are two decoders.
LARGE, PICTURES, BATCHES = "large requests", "searches with pictures", "calls with many parts"
EMBEDDINGS = "requests for embeddings"  # the encoder's work: while it has some for each core, the next are decoded
EXPLANATIONS = "explanations"  # of which each is fourteen pictures
CORES = os.cpu_count() or 2
AT_ONCE = {
    LARGE: 16,
    PICTURES: max(2, CORES),
    BATCHES: max(1, CORES // 2),
    EMBEDDINGS: 4 * max(2, CORES),
    EXPLANATIONS: 1,
}
MAX_WAITING = 48  # of one kind and caller
REFUSAL_SECONDS = 0.5  # until the refusal of one more is sent: who asks again at once would take the event loop
CHEAP_SECONDS = 0.001  # of the processor: what takes longer is followed by a pause
PAUSE = 31  # times as long as the work before it: a caller has a 32nd of one processor for costly bodies
MAX_IDLE_CALLERS = 256


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """Most bytes of the bodies of a call: of JSON, and of what is written to files as it comes.

    `pictures`: its JSON may hold pictures, which go to files: in fields called `image`, or with `anywhere` in any
    string that is long and has base64 alone, but for those of the field `texts`. `takes_turns`: its forms wait like
    large JSON.
    """

    json: Callable[[Settings], int]
    form: Callable[[Settings], int] = lambda settings: TINY
    pictures: bool = False
    anywhere: bool = False
    texts: bytes | None = None
    takes_turns: bool = False


TINY_BODY = BodyLimit(lambda settings: TINY)
JSON = BodyLimit(lambda settings: settings.max_json_bytes)
QUERY = BodyLimit(lambda settings: settings.max_query_json_bytes, pictures=True)
QUERY_PICTURE = BodyLimit(
    lambda settings: settings.max_json_bytes,
    lambda settings: settings.max_image_bytes + FORM_OVERHEAD,
    takes_turns=True,
)
PICTURE = BodyLimit(lambda settings: settings.max_json_bytes, lambda settings: settings.max_image_bytes + FORM_OVERHEAD)
FOREIGN = BodyLimit(lambda settings: settings.max_query_json_bytes, pictures=True, anywhere=True)
UPLOAD = BodyLimit(lambda settings: settings.max_json_bytes, lambda settings: settings.max_upload_bytes)


class ByteBudget:
    """Bytes that are under way, in all and for each caller. `most` is raised to what one body may have."""

    def __init__(self, name: str, most: int, largest: int) -> None:
        self.name = name
        self.most = max(most, largest)
        self.share = max(self.most // SHARE, largest)
        self.taken = 0
        self.callers: dict[str, int] = {}

    def take(self, caller: str, size: int, *, small: bool) -> None:
        """Raises RateLimited past the share of the caller, Overloaded when the budget is spent."""
        mine = self.callers.get(caller, 0)
        if mine + size > self.share:
            raise RateLimited(
                f"{mine} bytes of {self.name} of this caller are under way; the limit is {self.share} at once"
            )
        room = self.most if small else max(self.most - self.most // SHARE, self.share)
        if self.taken + size > room:
            raise Overloaded(f"{self.taken} bytes of {self.name} are under way; the limit is {room} at once")
        self.taken += size
        self.callers[caller] = mine + size

    def give_back(self, caller: str, size: int) -> None:
        self.taken -= size
        self.callers[caller] -= size
        if not self.callers[caller]:
            del self.callers[caller]


class Reservation:
    """What one body has taken of the budgets; each counts up to as many bytes as are given with it."""

    def __init__(self, caller: str, parts: list[tuple[ByteBudget, int]]) -> None:
        self._caller = caller
        self._parts = parts
        self._taken = [0] * len(parts)

    def grow(self, size: int) -> None:
        """Take what a body of this size in all needs. Raises RateLimited, Overloaded."""
        for n, (budget, most) in enumerate(self._parts):
            if (more := min(size, most) - self._taken[n]) > 0:
                budget.take(self._caller, more, small=size <= SMALL)
                self._taken[n] += more

    def end(self) -> None:
        for (budget, _), size in zip(self._parts, self._taken, strict=True):
            if size:
                budget.give_back(self._caller, size)


class _Seats:
    """A few requests at once; some more wait. `name` is what they are called in a refusal."""

    def __init__(self, name: str, width: int) -> None:
        self._name = name
        self._inside = asyncio.Semaphore(width)
        self._most = width + MAX_WAITING
        self._taken = 0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Raises RateLimited when too many wait."""
        if self._taken >= self._most:
            await asyncio.sleep(REFUSAL_SECONDS)
            raise RateLimited(f"{MAX_WAITING} {self._name} of this caller wait already; that is the limit")
        self._taken += 1
        try:
            async with self._inside:
                yield
        finally:
            self._taken -= 1


@dataclass(slots=True, eq=False)
class _Caller:
    """The costly requests of one caller. The processor is free for its next body at `free_at`."""

    seats: Mapping[str, _Seats] = field(default_factory=lambda: {name: _Seats(name, n) for name, n in AT_ONCE.items()})
    working: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0  # entered, or at work
    free_at: float = 0.0


class Turns:
    """Who may work on a costly request now."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller] = {}

    @asynccontextmanager
    async def enter(self, caller: str, name: str) -> AsyncIterator[None]:
        """Be one of the few requests of this caller in AT_ONCE, once another has ended. Raises RateLimited."""
        with self._use(caller) as one:
            async with one.seats[name].take():
                yield

    async def work(self, caller: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread. After a costly call, the next one of the same caller waits."""
        with self._use(caller) as one:
            async with one.working:
                if (wait := one.free_at - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                spent: list[float] = []
                try:
                    return await anyio.to_thread.run_sync(_measure, spent, partial(function, *args, **kwargs))
                finally:
                    if spent and spent[0] > CHEAP_SECONDS:
                        one.free_at = time.monotonic() + PAUSE * spent[0]

    @contextmanager
    def _use(self, caller: str) -> Iterator[_Caller]:
        if len(self._callers) > MAX_IDLE_CALLERS:
            now = time.monotonic()
            self._callers = {name: one for name, one in self._callers.items() if one.users or one.free_at > now}
        one = self._callers.setdefault(caller, _Caller())
        one.users += 1
        try:
            yield one
        finally:
            one.users -= 1


def _measure(spent: list[float], function: Callable[[], T]) -> T:
    """Call a function; `spent` gets the seconds of the processor that it took."""
    began = time.thread_time()
    try:
        return function()
    finally:
        spent.append(time.thread_time() - began)


class Admission:
    """The budgets of one server. `admit` lets a request in, with a body that is counted as it comes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.memory = ByteBudget("JSON", settings.max_memory_bodies, settings.max_json_bytes)
        largest = max(
            settings.max_upload_bytes, settings.max_query_json_bytes, settings.max_image_bytes + FORM_OVERHEAD
        )
        self.files = ByteBudget("uploads", settings.max_incoming_bytes, largest)
        self.turns = Turns()

    @asynccontextmanager
    async def admit(self, request: Request, limit: BodyLimit) -> AsyncIterator[Request]:
        """The request, whose body raises PayloadTooLarge, RateLimited or Overloaded where it passes a limit."""
        length, is_json = read_length(request), is_json_type(content_type(request))
        most = limit.json(self._settings) if is_json else max(limit.form(self._settings), TINY)
        if length is not None and length > most:
            raise too_large(most)
        caller = request.scope["caller"]
        memory = [(self.memory, self._settings.max_json_bytes)] if is_json else []
        files = [(self.files, most)] if limit.pictures or not is_json else []
        reservation = Reservation(caller, memory + files)
        request.scope["takes_turns"] = takes_turns = is_json or limit.takes_turns
        is_costly = takes_turns and (length is None or length > SMALL)
        try:
            reservation.grow(length or 0)
            async with self.turns.enter(caller, LARGE) if is_costly else nullcontext():
                yield Request(request.scope, count_body(request.receive, reservation, most))
        finally:
            reservation.end()


def count_body(receive: Receive, reservation: Reservation, most: int) -> Receive:
    """The same body, counted as it comes."""
    size = 0

    async def receive_counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise too_large(most)
        reservation.grow(size)
        return message

    return receive_counted


def too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body of this call may have {most} bytes")


def read_length(request: Request) -> int | None:
    """The Content-Length; None where there is none. The protocol has checked that it is a number."""
    length = request.headers.get("content-length")
    return int(length) if length is not None and length.isdecimal() else None


def has_small_body(request: Request) -> bool:
    """Whether its body has SMALL bytes at most, so that the event loop may look at it."""
    length = read_length(request)
    return length is not None and length <= SMALL


def content_type(request: Request) -> str:
    """The media type of the body, in lower case, without parameters."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def is_json_type(kind: str) -> bool:
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


async def work(request: Request, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread; for JSON and searches in turn with the other costly calls of the same caller."""
    if not request.scope.get("takes_turns"):  # not of a call without a body
        return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))
    admission: Admission = request.app.state.admission
    return await admission.turns.work(request.scope["caller"], function, *args, **kwargs)


def take_seat(request: Request, name: str | None) -> AbstractAsyncContextManager[None]:
    """Around the work of a call that costs like many searches (PICTURES, BATCHES): its caller has few seats, so that
    others get a thread however many such calls it sends. Raises RateLimited."""
    turns: Turns = request.app.state.admission.turns
    return nullcontext() if name is None else turns.enter(request.scope["caller"], name)
