"""The HTTP/1.1 protocol of the server: uvicorn's, with a timeout for every wait and refusals before the application.

uvicorn waits for ever for a header, a body, a reader or a first byte. Here each connection has one timer at a time, for
what its client owes next: the first byte, the rest of a header, or a part of the body; a second one watches that the
client reads what was sent. When the limit of connections is reached, a new connection replaces the one that has owed a
request for longest. When a limit of requests is reached (`concurrency.RequestLimits`), one more is refused before the
application is called: the application would spend its time on refusals, and those it has accepted would wait.
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

from app.api.concurrency import RequestLimit, RequestLimits, ThreadPools, too_many
from app.api.middleware import PAGE_POLICY, SECURITY_HEADERS
from app.core.settings import Settings

LATE_TIMER_SECONDS = 0.25  # a timer that is later than this says that the server is busy
BUSY_GRACE_SECONDS = 1.0
MIN_IDLE_SECONDS = 2.0  # a connection without a request is closed for a new one after this
MAX_HEADER_BYTES = 64 << 10  # of a request line and its headers
MAX_HEADERS = 200
MAX_PATH_BYTES = 8192


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds, bytes a second of a body, and how many connections."""

    header: float = 10.0
    body: float = 60.0
    rate: int = 1024
    idle: float = 5.0
    write: float = 30.0
    connections: int = 8192


class RequestPhase(Enum):
    """Which part of a request the client is sending."""

    NOTHING = "nothing"
    HEAD = "head"
    BODY = "body"


class TimeoutProtocol(HttpToolsProtocol):
    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    requests: ClassVar[RequestLimits]
    owing: ClassVar[dict[TimeoutProtocol, float]] = {}  # connections without a whole request, since when; oldest first

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = RequestPhase.NOTHING
        self._armed: RequestPhase | None = None
        self._received = 0  # bytes of the present header, or of the body in the present window
        self._head = 0  # bytes of the names and values of the present header
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._write_pauses = 0
        self._counted: RequestLimit | None = None  # the limit that counts the request under way

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections and not self._make_room():
            self._refuse(503, "overloaded", too_many("connections", self.limits.connections))
            return
        self.owing[self] = self.loop.time()
        self._arm(self.limits.idle, self._time_out)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self.owing.pop(self, None)
        self._stop_counting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._phase is RequestPhase.NOTHING and not self._is_answering():
            self._begin(RequestPhase.HEAD)  # from the first byte on, whatever it is
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._after_close()
        elif self._phase is RequestPhase.HEAD and self._received > MAX_HEADER_BYTES:
            self._refuse_head()
        else:
            self._arm_for_phase()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0
        if self._phase is not RequestPhase.HEAD:
            self._begin(RequestPhase.HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value)
        if self.transport.is_closing():
            return
        if self._head > MAX_HEADER_BYTES:
            self._refuse_head()
        elif len(self.headers) == MAX_HEADERS:
            self._refuse(431, "bad_request", f"a request may have {MAX_HEADERS} headers")
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.owing.pop(self, None)
        self._begin(RequestPhase.BODY)
        if self.transport.is_closing():  # refused already
            return
        if len(self.url.partition(b"?")[0]) > MAX_PATH_BYTES:
            self._refuse(414, "bad_request", f"the path of an address may have {MAX_PATH_BYTES} bytes")
            return
        limit = self._find_limit()
        if limit is not None and limit.is_full() and not self._is_answering():
            self._refuse(503, "overloaded", too_many(limit.name, limit.capacity))
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._begin(RequestPhase.NOTHING)
        if self.transport.is_closing():  # refused already
            return
        super().on_message_complete()
        if self._counted is None and self._is_answering() and (limit := self._find_limit()) is not None:
            limit.running += 1  # not before: a client that sends a body slowly keeps nobody else out
            self._counted = limit

    def on_response_complete(self) -> None:
        self._stop_counting()
        super().on_response_complete()
        if self.transport.get_write_buffer_size():  # closed or not, the client must take it
            self._watch_writing()
        if self.transport.is_closing():
            self._after_close()
        elif self._phase is not RequestPhase.BODY and not self._is_answering():
            self.owing[self] = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_pauses += 1
        self._watch_writing()

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this for what is not HTTP."""
        self._refuse(400, "bad_request", "this is not HTTP")

    def _find_limit(self) -> RequestLimit | None:
        return self.requests.find(self.parser.get_method(), self.url)

    def _stop_counting(self) -> None:
        if self._counted is not None:
            self._counted.running -= 1
            self._counted = None

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _begin(self, phase: RequestPhase) -> None:
        self._phase = phase
        self._received = 0

    def _arm_for_phase(self) -> None:
        """Set the timer for what the client sends now, unless it is set for that already."""
        if self._phase is self._armed:
            return
        self._armed = self._phase
        if self._phase is RequestPhase.HEAD:
            self._arm(self.limits.header, self._time_out)
        elif self._phase is RequestPhase.BODY:
            self._arm(self.limits.body, self._check_body_rate)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._on_timer, self.loop.time() + seconds, then)

    def _on_timer(self, due: float, then: Callable[[], None]) -> None:
        """If the server was too busy for this timer, it first reads what has come meanwhile."""
        if self.loop.time() - due > LATE_TIMER_SECONDS:
            # At different times, so that clients that reconnect at once do not do so all together.
            grace = random.uniform(BUSY_GRACE_SECONDS, 2 * BUSY_GRACE_SECONDS)
            self._timer = self.loop.call_later(grace, then)
        else:
            then()

    def _check_body_rate(self) -> None:
        """At the end of a window. While we do not read, the client cannot send."""
        is_enough = self._received >= self.limits.rate * self.limits.body or self.flow.read_paused
        if is_enough and self._is_answering():
            self._received = 0
            self._arm(self.limits.body, self._check_body_rate)
        else:  # too slow, or the body goes on although the request was answered
            self._time_out()

    def _time_out(self) -> None:
        if self.transport.is_closing():
            return
        if self._armed is None or (self._phase is RequestPhase.BODY and not self._is_answering()):
            self.transport.close()  # the client has sent nothing, or has its answer
            self._after_close()
        else:
            self._refuse(408, "timeout", "the request came too slowly")

    def _watch_writing(self) -> None:
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write, self._check_writing, self._write_pauses)

    def _check_writing(self, pauses: int) -> None:
        """Abort when the client has not read what was there to be sent a window ago."""
        self._write_timer = None
        if not self.transport.get_write_buffer_size():
            return
        if pauses == self._write_pauses:
            self.transport.abort()
        else:
            self._watch_writing()

    def count_refusal(self, code: str) -> None:
        """Called with the code of every refusal that the application does not see; `make_protocol` replaces it."""

    def _make_room(self) -> bool:
        """Close the connection that has owed a request for longest, unless it had no time to send one."""
        for oldest, since in self.owing.items():
            if self.loop.time() - since < MIN_IDLE_SECONDS:
                return False
            oldest.give_way()
            return True
        return False

    def give_way(self) -> None:
        """Close for a new connection."""
        self.owing.pop(self, None)
        if self.transport.is_closing():
            self.transport.abort()
        elif self._phase is RequestPhase.HEAD or self.cycle is None:  # its request may be on the way
            self._refuse(503, "overloaded", too_many("connections", self.limits.connections))
        else:
            self.transport.close()
            self._after_close()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer without the application, unless it has begun to, and close."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
            return
        self.count_refusal(code)
        self.transport.write(render_refusal(status, code, detail))
        self.transport.close()
        self._after_close()

    def _refuse_head(self) -> None:
        self._refuse(431, "bad_request", f"the headers of a request may have {MAX_HEADER_BYTES} bytes")

    def _after_close(self) -> None:
        """A closed connection still waits until the client has read what was sent: not for ever."""
        self.owing.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._watch_writing()


def render_refusal(status: int, code: str, detail: str) -> bytes:
    """A whole HTTP response in problem+json."""
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
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def make_protocol(
    settings: Settings, pools: ThreadPools, count_refusal: Callable[[str], None] = lambda code: None
) -> type[asyncio.Protocol]:
    """The protocol with the limits of these settings; `count_refusal` gets the code of each refusal."""
    limits = ConnectionLimits(
        header=settings.header_seconds,
        body=settings.body_seconds,
        rate=settings.body_rate,
        idle=settings.idle_seconds,
        write=settings.write_seconds,
        connections=settings.max_connections,
    )
    return bind_protocol(limits, RequestLimits(pools.queries.capacity, pools.reads.capacity), count_refusal)


def bind_protocol(
    limits: ConnectionLimits, requests: RequestLimits, count_refusal: Callable[[str], None] = lambda code: None
) -> type[TimeoutProtocol]:
    """uvicorn makes one object of a class for each connection: what they share are attributes of the class."""
    own = {"limits": limits, "requests": requests, "owing": {}, "count_refusal": lambda _, code: count_refusal(code)}
    return type("Protocol", (TimeoutProtocol,), own)
