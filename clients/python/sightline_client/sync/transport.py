"""Sends calls, again where that is safe, and reads their answers."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self, TypeVar

import httpx

from sightline_client.call import Call, encode_query, to_plain
from sightline_client.errors import ApiError, ConnectionFailed, NotSightline
from sightline_client.events import Event, EventReader, check_event_stream
from sightline_client.pictures import (
    MAX_DOWNLOAD,
    NamedPicture,
    Picture,
    is_stream,
    is_url,
    name_of_url,
    open_picture,
    read_stream,
)
from sightline_client.retry import BUSY, LAST_PAUSE, REFUSED, Patience, read_retry_after
from sightline_client.sync.waiting import run_in_thread, sleep

T = TypeVar("T")

CONNECT_SECONDS = 15.0
TIMEOUT = httpx.Timeout(120.0, connect=CONNECT_SECONDS)
QUIET_SECONDS = 60.0  # a stream of events that is silent for so long is dead: a server sends a comment every 15
MAX_CONNECTIONS = 32


class Transport:
    """A connection to one server. Use it as a context manager, or call `close`."""

    def __init__(
        self,
        server: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        collection: str | None = None,
        patience: float = 60.0,
        http: httpx.Client | None = None,
    ) -> None:
        """`key` is the API key, by default that of SIGHTLINE_KEY. Calls that name no collection go to `collection`.

        A call that the server is too busy for, or whose connection fails, is tried again for up to `patience` seconds.
        `http` brings settings of your own (proxies, certificates, timeouts); the address and the key are added to it.
        """
        self.server = server.rstrip("/")
        self.collection = collection
        self.patience = patience
        self._http = http or httpx.Client(
            timeout=TIMEOUT, limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=8)
        )
        self._is_ours = http is None
        key = os.environ.get("SIGHTLINE_KEY") if key is None else key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless `http` brought them."""
        if self._is_ours:
            self._http.close()

    def _run(self, call: Call[T]) -> T:
        """Do a call. Raises ApiError, ConnectionFailed, NotSightline."""
        return read_answer(call, self._exchange(call))

    def _exchange(self, call: Call[T]) -> httpx.Response:
        """The answer of a server that has done a call. Raises ApiError, ConnectionFailed."""
        call = call.with_collection(self.collection)
        headers = {**self._headers, **({"Idempotency-Key": uuid.uuid4().hex} if call.is_keyed else {})}
        headers |= {"Accept": call.accept} if call.accept else {}
        pictures = self._fetch_pictures(call)
        patience = Patience(self.patience if call.patience is None else call.patience)
        while True:
            failure: ApiError | ConnectionFailed
            try:
                response = self._send(call, headers, pictures)
            except (httpx.RequestError, httpx.InvalidURL) as error:
                failure = read_failure(error, self.server)
            else:
                if response.is_success:
                    self._note_answer(patience)
                    return response
                failure = read_problem(response)
            sleep(self._choose_pause(call, failure, patience))

    def _choose_pause(self, call: Call[T], failure: ApiError | ConnectionFailed, patience: Patience) -> float:
        """How long to wait before a call that failed is sent again. Raises the failure where it is not."""
        pause = None
        if may_send_again(call, failure):
            asked = failure.response.headers.get("Retry-After") if isinstance(failure, ApiError) else None
            pause = self._next_pause(failure, read_retry_after(asked), patience)
        if pause is None:
            raise failure
        return pause

    def _next_pause(self, failure: ApiError | ConnectionFailed, asked: float, patience: Patience) -> float | None:
        """How long to wait before a call that failed is sent again; None to give up."""
        return patience.next_pause(asked)

    def _note_answer(self, patience: Patience) -> None:
        """Called when a server has done a call."""

    def _send(self, call: Call[T], headers: Mapping[str, str], pictures: list[Picture]) -> httpx.Response:
        options: dict[str, Any] = {"params": encode_query(call.query), "headers": dict(headers)}
        if call.timeout is not None:
            options["timeout"] = httpx.Timeout(call.timeout, connect=CONNECT_SECONDS)
        with ExitStack() as opened:
            fields = call.fields()
            if call.content is not None:
                options["content"] = call.content
                options["headers"]["Content-Type"] = call.media_type
            elif pictures or call.is_form:
                parts = [(call.files or "file", open_picture(picture, opened)) for picture in pictures]
                said: dict[str, list[str]] = {}
                for name, value in encode_query(fields):
                    said.setdefault(name, []).append(value)
                options |= {"files": parts, "data": said}
            elif call.body:
                options["json"] = to_plain(fields)
            # A server may have the bytes of pictures read from a bucket; httpx does not send it the key.
            options["follow_redirects"] = call.is_file
            return self._http.request(call.method, self.server + call.path, **options)

    @contextmanager
    def _stream(self, call: Call[T]) -> Iterator[httpx.Response]:
        """The answer of a call as it comes; reading it raises httpx's errors. Raises ApiError, ConnectionFailed."""
        call = call.with_collection(self.collection)
        try:
            options: dict[str, Any] = {"params": encode_query(call.query), "headers": {**self._headers, **call.headers}}
            if call.timeout is not None:
                options["timeout"] = httpx.Timeout(call.timeout, connect=CONNECT_SECONDS)
            request = self._http.build_request(call.method, self.server + call.path, **options)
            response = self._http.send(request, stream=True, follow_redirects=call.is_file)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise read_failure(error, self.server) from error
        try:
            if not response.is_success:
                response.read()
                raise read_problem(response)
            yield response
        finally:
            response.close()

    def _follow(self, path: str, after: str = "") -> Iterator[Event]:
        """The events of a stream without end, past the one whose id is `after`.

        Where the stream breaks or ends, it is opened again behind the last event, until `patience` seconds have
        brought nothing new. Raises ApiError, ConnectionFailed, NotSightline.
        """
        patience, last = Patience(self.patience), ""
        while True:
            headers = {"Last-Event-ID": after} if after else {}
            call: Call[bytes] = Call("GET", path, bytes, headers=headers, timeout=QUIET_SECONDS)
            failure: ApiError | ConnectionFailed
            began = heard = time.monotonic()
            try:
                with self._stream(call) as response:
                    check_event_stream(response)
                    self._note_answer(patience)
                    began, reader = time.monotonic(), EventReader()
                    for part in response.iter_bytes():
                        heard = time.monotonic()
                        for event in reader.feed(part):
                            if event.data != last:
                                patience, last = Patience(self.patience), event.data
                            after = event.id or after
                            yield event
                failure = read_failure(httpx.ReadError("the stream of events has ended"), self.server)
            except (ApiError, ConnectionFailed) as error:
                failure = error
            except httpx.RequestError as error:
                failure = read_failure(error, self.server)
            if heard - began > LAST_PAUSE:  # a proxy may end each stream after a while, whatever it brings
                patience = Patience(self.patience)
            sleep(self._choose_pause(call, failure, patience))

    def _fetch_pictures(self, call: Call[T]) -> list[Picture]:
        """The pictures of a call; those at URLs are fetched, without the key, and pipes are read."""
        value = call.body.get(call.files) if call.files else None
        pictures = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
        return [self._hold_picture(one) for one in pictures]

    def _hold_picture(self, picture: Picture) -> Picture:
        if is_stream(picture):
            return run_in_thread(read_stream, picture)
        return self._fetch_picture(picture) if is_url(picture) else picture

    def _fetch_picture(self, url: Any) -> NamedPicture:
        content = bytearray()
        try:
            with self._http.stream("GET", url, follow_redirects=True) as response:
                response.raise_for_status()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > MAX_DOWNLOAD:
                        raise ValueError(f"{url} has more than {MAX_DOWNLOAD:,} bytes")
        except httpx.HTTPError as error:
            raise ConnectionFailed(f"{url} cannot be fetched: {error}") from error
        return NamedPicture(name_of_url(url), bytes(content))


def read_answer(call: Call[T], response: httpx.Response) -> T:
    try:
        return call.read(response.content)
    except ValueError as error:
        kind = response.headers.get("Content-Type", "nothing")
        raise NotSightline(f"{response.request.url} answered {response.status_code} with {kind}: {error}") from error


def read_problem(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
    except (ValueError, RecursionError):
        problem = None
    found = problem if isinstance(problem, dict) else {}
    return ApiError(response.status_code, found, response.headers.get("X-Request-ID"), response)


def may_send_again(call: Call[T], failure: ApiError | ConnectionFailed) -> bool:
    """Whether the call may succeed later, and doing it again does no harm."""
    if isinstance(failure, ApiError):
        statuses = BUSY if call.is_repeatable else REFUSED
        return failure.status in statuses or failure.problem.get("retryable") is True
    if isinstance(failure.__cause__, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return True
    return call.is_repeatable and isinstance(failure.__cause__, httpx.TransportError)


def read_failure(error: Exception, server: str) -> ConnectionFailed:
    failure = ConnectionFailed(f"no answer from {server}: {str(error) or type(error).__name__}")
    failure.__cause__ = error
    return failure
