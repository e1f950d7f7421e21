"""The header Idempotency-Key over HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
import uuid
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from fastapi import Request

from app.api.concurrency import ThreadPools
from app.api.idempotency import Idempotency, IdempotentCall
from app.api.schemas.images import ImageOut
from app.storage.idempotency import IdempotencyStore
from app.storage.library import AddResult, Library
from tests.app.api.asking import check_refusal, make_picture
from tests.support.makers import add
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until


def send(server: RunningServer, path: str, key: str, **sent: Any) -> httpx.Response:
    response: httpx.Response = server.http.post(path, headers={"Idempotency-Key": key}, **sent)
    return response


def total(server: RunningServer, collection: str = "default") -> int:
    return int(server.http.get("/v1/stats", params={"collection": collection}).json()["images"]["total"])


def jobs(server: RunningServer) -> int:
    return len(server.http.get("/v1/jobs", params={"limit": 1000}).json()["jobs"])


def test_an_upload_that_is_sent_again_is_answered_the_same(server: RunningServer) -> None:
    assert server.http.post("/v1/collections", json={"name": "again"}).status_code in (201, 409)
    content, key, before = make_picture(), str(uuid.uuid4()), total(server, "again")
    for path in ("/v1/images?collection=again", "/v1/images?collection=again&wait=30"):
        first, *rest = (send(server, path, key + path[-2:], files={"file": ("a.png", content)}) for _ in range(3))
        assert first.status_code in (200, 202)
        assert "idempotent-replayed" not in first.headers
        for again in rest:
            assert (again.status_code, again.json()) == (first.status_code, first.json())
            assert again.headers["idempotent-replayed"] == "true"
    assert total(server, "again") == before + 1
    other = send(server, "/v1/images?collection=again", key + "in", files={"file": ("a.png", make_picture())})
    check_refusal(other, 409, "idempotency_key_reused")
    check_refusal(
        send(server, "/v1/images?collection=again&replace=true", key + "in", files={"file": ("a.png", content)}),
        409,
        other.json()["code"],
    )
    assert total(server, "again") == before + 1
    quoted = send(server, "/v1/images?collection=again", f'"{key}in"', files={"file": ("a.png", content)})
    assert quoted.headers["idempotent-replayed"] == "true"


def test_a_bulk_and_texts_that_are_sent_again_are_answered_the_same(server: RunningServer) -> None:
    before = jobs(server)
    content = make_picture()
    requests: list[tuple[str, Any]] = [
        ("/v1/images/bulk", lambda: {"files": [("files", ("a.png", content)), ("files", ("b.png", content))]}),
        ("/v1/texts", lambda: {"json": {"texts": [{"text": "a red square"}, {"id": "two", "text": "blue"}]}}),
    ]
    for path, body in requests:
        key = str(uuid.uuid4())
        first, again = (send(server, path, key, **body()) for _ in range(2))
        assert first.is_success
        assert (again.status_code, again.json()) == (first.status_code, first.json())
        assert again.headers["idempotent-replayed"] == "true"
        if path.endswith("bulk"):
            server.wait_job(first.json()["id"])  # the tests below count pictures
    assert jobs(server) == before + 1
    check_refusal(send(server, "/v1/texts", key, json={"texts": [{"text": "green"}]}), 409, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", '""', "two words", "x" * 256])
def test_what_is_no_key_is_refused(server: RunningServer, key: str) -> None:
    before = total(server)
    check_refusal(send(server, "/v1/images", key, files={"file": ("a.png", make_picture())}), 400, "bad_request")
    assert total(server) == before


def test_a_socket_that_is_cut_after_the_last_byte_and_three_retries_make_one_row(server: RunningServer) -> None:
    before, content, key = total(server), make_picture(), str(uuid.uuid4())
    request = httpx.Request(
        "POST", f"{server.url}/v1/images", headers={"Idempotency-Key": key}, files={"file": ("a.png", content)}
    )
    body = request.read()
    address = urlsplit(server.url)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((address.hostname, address.port)) as cut:
        cut.sendall(f"POST /v1/images HTTP/1.1\r\n{head}\r\n".encode() + body)

    def send_unless_in_progress() -> httpx.Response | None:
        response = send(server, "/v1/images", key, files={"file": ("a.png", content)})
        if response.status_code == 409:
            check_refusal(response, 409, "in_progress")
            return None
        return response

    ids = {wait_until(send_unless_in_progress, 30).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    assert total(server) == before + 1


def test_answers_are_rendered_outside_the_write_transaction_and_again_after_a_kill(library: Library) -> None:
    """What takes long to render, or fails, holds up nobody's commit."""
    rendered: list[str] = []
    threads = ThreadPools(2)

    def render(added: AddResult) -> tuple[int, ImageOut]:
        rendered.append(threading.current_thread().name)
        return 202, ImageOut.of(added.image, duplicate=added.duplicate)

    def call() -> AbstractAsyncContextManager[IdempotentCall[AddResult]]:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/images",
            "query_string": b"",
            "headers": [(b"idempotency-key", b"k")],
            "principal": None,
        }
        store = IdempotencyStore(library.database)  # a new one each time, as after a kill
        return Idempotency(Request(scope), store, threads).begin(lambda: b"content", AddResult, render)

    async def send_three_times() -> None:
        async with call() as first:
            assert first.replay is None
            added = await threads.writes.run(partial(add, library, picture(), slot=first.slot, metadata={"a": 0.1}))
            answer = render(added)[1].model_dump_json()
        async with call() as again:  # nothing was sent: the process was killed after the commit
            assert again.replay is not None
            assert (again.replay.status_code, bytes(again.replay.body).decode()) == (202, answer)
            await again.finish(added, *render(added))  # the same answer: nothing is written
            assert again.slot is not None
            await again.finish(added, 200, render(added)[1])  # another one: it was waited for
        async with call() as last:
            assert last.replay is not None
            assert (last.replay.status_code, bytes(last.replay.body).decode()) == (200, answer)

    asyncio.run(send_three_times())
    assert rendered
    assert "sqlite-write" not in rendered
