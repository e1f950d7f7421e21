"""Deadlines on what clients do: uvicorn waits for ever for a header, a body, a reader, or a first byte.

uvicorn's protocol is followed from callback to callback; each connection has one timer at a time, for what its client
owes next: the first byte, the rest of a header, a part of the body, or taking what was sent. When there are as many
connections as there may be, a newcomer takes the place of the one that has owed a request for longest. When twice as
many searches are under way as may wait for the encoder, one more is refused here, before the application is called:
it would otherwise spend its time on refusals, and those it has let in would wait for them.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.middleware import PAGE_POLICY, SECURITY_HEADERS
from app.core.settings import Settings

LATE_TIMER_SECONDS = 0.25  # seconds that a timer is late when the server has too much to do
BUSY_GRACE_SECONDS = 1.0
PATIENCE = 2.0  # seconds after which a connection without a request gives way when there are too many
SEARCH_PREFIX = b"/v1/search"
MAX_HEADER_BYTES = 64 << 10  # bytes of a request line and its headers


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds, bytes a second of a body, and how many connections and searches at a time."""

    header: float = 10.0
    body: float = 60.0
    rate: int = 1024
    idle: float = 5.0
    write: float = 30.0
    connections: int = 8192
    searches: int = 512


class RequestPhase(Enum):
    """What of a request the client is sending."""

    NOTHING = "nothing"
    HEAD = "head"
    BODY = "body"


class TimeoutProtocol(HttpToolsProtocol):
    """HTTP/1.1 by uvicorn, with an end to every wait."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    waiting: ClassVar[dict[TimeoutProtocol, float]] = {}  # for a whole request, since when; the longest first
    searching: ClassVar[set[TimeoutProtocol]] = set()  # have sent a whole search, and wait for the answer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading = RequestPhase.NOTHING
        self._armed: RequestPhase | None = None
        self._received = 0  # of the present head, or of the body in the present window
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections and not self._make_room():
            self._refuse(503, "overloaded", "too many connections are open; try again in a moment")
            return
        self.waiting[self] = self.loop.time()
        self._arm(self.limits.idle, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self.waiting.pop(self, None)
        self.searching.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._reading is RequestPhase.NOTHING and not self._answering():
            self._begin(RequestPhase.HEAD)  # from the first byte on, whatever it is
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._closed()
        elif self._reading is RequestPhase.HEAD and self._received > MAX_HEADER_BYTES:
            self._refuse(431, "bad_request", f"the headers of a request may have {MAX_HEADER_BYTES} bytes")
        else:
            self._follow()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._reading is not RequestPhase.HEAD:
            self._begin(RequestPhase.HEAD)

    def on_headers_complete(self) -> None:
        self.waiting.pop(self, None)
        self._begin(RequestPhase.BODY)
        crowded = len(self.searching) >= self.limits.searches
        if crowded and self.url.startswith(SEARCH_PREFIX) and not self._answering():
            self._refuse(503, "overloaded", "too many searches at once; try again in a moment")
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._begin(RequestPhase.NOTHING)
        if self.transport.is_closing():  # refused already
            return
        super().on_message_complete()
        if self.url.startswith(SEARCH_PREFIX) and self._answering():
            self.searching.add(self)  # not before: who sends a body slowly keeps nobody else out

    def on_response_complete(self) -> None:
        self.searching.discard(self)
        super().on_response_complete()
        if self.transport.is_closing():
            self._closed()
        elif self._reading is not RequestPhase.BODY and not self._answering():
            self.waiting[self] = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._closed()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._closed()

    def send_400_response(self, msg: str) -> None:
        """What no parser understands is refused in the shape of every refusal."""
        self._refuse(400, "bad_request", "this is not HTTP")

    def _unsupported_upgrade_warning(self) -> None:
        """No other protocol is offered; who asks for one is answered in HTTP, and is no matter for the log."""

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _begin(self, reading: RequestPhase) -> None:
        self._reading = reading
        self._received = 0

    def _follow(self) -> None:
        """Set the timer for what the client is at now, unless it is set for that already."""
        if self._reading is self._armed:
            return
        self._armed = self._reading
        if self._reading is RequestPhase.HEAD:
            self._arm(self.limits.header, self._late)
        elif self._reading is RequestPhase.BODY:
            self._arm(self.limits.body, self._weigh)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float, then: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._due, self.loop.time() + seconds, then)

    def _due(self, moment: float, then: Any) -> None:
        """The time is over. If it is so only because we were busy, what has come meanwhile must be read first."""
        if (
            self.loop.time() - moment > LATE_TIMER_SECONDS
        ):  # those who come again as soon as they are closed do not come all at once
            self._timer = self.loop.call_later(random.uniform(BUSY_GRACE_SECONDS, 2 * BUSY_GRACE_SECONDS), then)
        else:
            then()

    def _weigh(self) -> None:
        """At the end of a window: whether enough of the body has come. While we do not read, nothing can."""
        enough = self._received >= self.limits.rate * self.limits.body or self.flow.read_paused
        if enough and self._answering():
            self._received = 0
            self._arm(self.limits.body, self._weigh)
        else:  # too slow, or it goes on although it was answered
            self._late()

    def _late(self) -> None:
        if self.transport.is_closing():
            return
        if self._armed is None or (self._reading is RequestPhase.BODY and not self._answering()):
            self.transport.close()  # it never said anything, or has its answer
            self._closed()
        else:
            self._refuse(408, "timeout", "the request came too slowly")

    def refused(self, code: str) -> None:
        """Told of every refusal that no application sees; counts nothing by itself."""

    def _make_room(self) -> bool:
        """Close the connection that has owed a request for longest; not one that had no time to send it."""
        for longest, since in self.waiting.items():
            if self.loop.time() - since < PATIENCE:
                return False
            longest.give_way()
            return True
        return False

    def give_way(self) -> None:
        """Close for another one's sake."""
        if self._reading is RequestPhase.HEAD or self.cycle is None:  # its request may be on the way
            self._refuse(503, "overloaded", "too many connections are open; try again in a moment")
        else:
            self.transport.close()
            self._closed()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer without the application, unless it has begun to, and close."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
            return
        self.refused(code)
        id = uuid.uuid4().hex
        title = HTTPStatus(status).phrase
        body = json.dumps(
            {"type": "about:blank", "title": title, "status": status, "detail": detail}
            | {"code": code, "request_id": id, "retryable": status == 503}
        ).encode()
        headers = {
            "Content-Type": "application/problem+json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "X-Request-Id": id,
            "Content-Security-Policy": PAGE_POLICY,
            **SECURITY_HEADERS,
            **({"Retry-After": "1"} if status == 503 else {}),
        }
        lines = [f"HTTP/1.1 {status} {title}", *(f"{name}: {value}" for name, value in headers.items())]
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self.transport.close()
        self._closed()

    def _closed(self) -> None:
        """A closed connection still waits until what was sent is taken: not for ever."""
        self.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write, self.transport.abort)


def make_protocol(settings: Settings, refused: Callable[[str], None] = lambda code: None) -> type[asyncio.Protocol]:
    """The protocol with the limits of these settings; `refused` is told the code of each refusal."""
    limits = ConnectionLimits(
        header=settings.header_seconds,
        body=settings.body_seconds,
        rate=settings.body_rate,
        idle=settings.idle_seconds,
        write=settings.write_seconds,
        connections=settings.max_connections,
        searches=2 * settings.max_concurrent_queries,
    )
    own = {"limits": limits, "waiting": {}, "searching": set(), "refused": lambda _, code: refused(code)}
    return type("Protocol", (TimeoutProtocol,), own)
