"""The header `Idempotency-Key`: a request that is sent again changes nothing and gets the same answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from app.api.concurrency import ThreadPools
from app.api.dependencies import ServiceDep, ThreadsDep
from app.api.multipart import Form
from app.core.errors import BadRequest
from app.core.files import sha256_file
from app.service.auth import Principal
from app.storage.idempotency import IdempotencyStore, Note, ResponseSlot

T = TypeVar("T")

KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")
REPLAYED = {"Idempotent-Replayed": "true"}
IdempotencyKeyHeader = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="Sent again with the same request, the answer is the same."),
]


class IdempotentCall:
    """One request that may be a repeat. `replay` is the answer that it got before, None the first time."""

    def __init__(self, slot: ResponseSlot | None, threads: ThreadPools) -> None:
        self._slot = slot
        self._threads = threads

    @property
    def replay(self) -> Response | None:
        if self._slot is None or (answer := self._slot.answer) is None:
            return None
        return Response(answer.body, answer.status, REPLAYED, media_type="application/json")

    def noting(self, render: Callable[[T], tuple[int, BaseModel]]) -> Note[T] | None:
        """What stores the answer in the transaction of the work; None without a key."""
        if self._slot is None:
            return None

        def rendered(result: T) -> tuple[int, str]:
            status, model = render(result)
            return status, model.model_dump_json()

        return self._slot.noting(rendered)

    async def final(self, status: int, model: BaseModel) -> None:
        """Store the answer as it is sent."""
        if self._slot is not None:
            await self._threads.writes.run(self._slot.final, status, model.model_dump_json())


class Idempotency:
    """A dependency of routes that take the header."""

    def __init__(self, request: Request, store: IdempotencyStore, threads: ThreadPools) -> None:
        self._request = request
        self._store = store
        self._threads = threads

    @asynccontextmanager
    async def begin(self, content: Callable[[], bytes]) -> AsyncIterator[IdempotentCall]:
        """Compare this request with the earlier ones of its key, by its address and `content`.

        Raises IdempotencyKeyReused, InProgress, BadRequest.
        """
        request = self._request
        key = read_idempotency_key(request)
        if key is None:
            yield IdempotentCall(None, self._threads)
            return
        digest = hashlib.sha256(await self._threads.writes.run(content))
        for part in (request.method, request.url.path, *sorted(map(str, request.query_params.multi_items()))):
            digest.update(b"\0" + part.encode())
        principal: Principal | None = request.scope["principal"]
        with self._store.slot(principal.key_id if principal else "", key, digest.hexdigest()) as slot:
            yield IdempotentCall(slot, self._threads)


async def get_idempotency(
    request: Request, service: ServiceDep, threads: ThreadsDep, key: IdempotencyKeyHeader = None
) -> Idempotency:
    return Idempotency(request, service.idempotency, threads)


IdempotencyDep = Annotated[Idempotency, Depends(get_idempotency)]


def read_idempotency_key(request: Request) -> str | None:
    """The key, with or without the quotes of the IETF's draft; None when there is none. Raises BadRequest."""
    sent = request.headers.getlist("idempotency-key")
    if not sent:
        return None
    text = sent[0].strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if len(sent) > 1 or not KEY_PATTERN.fullmatch(text):
        raise BadRequest("an Idempotency-Key has 1 to 255 visible ASCII characters, and is sent once")
    return text


def hash_form(form: Form) -> bytes:
    """A digest of the fields and files of a form; its bytes differ each time, by the boundary."""
    digest = hashlib.sha256()
    for name, value in form.fields:
        digest.update(repr((name, value)).encode())
    for file in form.files:
        digest.update(repr((file.field, file.filename, sha256_file(file.path))).encode())
    return digest.digest()
