"""The header `Idempotency-Key`: a request that is sent again changes nothing and gets the same answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel, TypeAdapter

from app.api.concurrency import ThreadPools
from app.api.dependencies import ServiceDep, ThreadsDep
from app.api.errors import Problem, respond
from app.api.multipart import Form
from app.api.openapi import describe_field
from app.core.errors import BadRequest
from app.core.files import sha256_file
from app.service.auth import Principal
from app.storage.idempotency import RESULT, IdempotencyStore, ResponseSlot

T = TypeVar("T")

KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")
REPLAYED = {"Idempotent-Replayed": "true"}
IdempotencyKeyHeader = Annotated[
    Annotated[str, describe_field(pattern=r'^(?!""$)[\x21-\x7e]{1,255}$')] | None,
    Header(alias="Idempotency-Key", description="Sent again with the same request, the answer is the same."),
]


class IdempotentCall(Generic[T]):
    """One request that may be a repeat. Its work stores a result of type T in `slot`, which is None without a key."""

    def __init__(
        self,
        slot: ResponseSlot | None,
        result_type: type[T],
        render: Callable[[T], tuple[int, BaseModel]],
        threads: ThreadPools,
        request_id: str = "",
    ) -> None:
        self.slot = slot
        self._request_id = request_id
        self._result_type = result_type
        self._render = render
        self._threads = threads

    @property
    def replay(self) -> Response | None:
        """The answer that the request got before, None the first time."""
        if self.slot is None or (stored := self.slot.stored) is None:
            return None
        status, body = stored.status, stored.body
        if status == RESULT:
            status, model = self._render(TypeAdapter(self._result_type).validate_json(body))
            body = model.model_dump_json()
        if status < 400:
            return Response(body, status, REPLAYED, media_type="application/json")
        problem = Problem.model_validate_json(body)
        return respond(problem.model_copy(update={"request_id": self._request_id}), REPLAYED)

    async def finish(self, result: T, status: int, model: BaseModel) -> None:
        """Store the answer as it is sent, if it is not the one that `result` renders to."""
        if self.slot is not None and (status, model) != self._render(result):
            await self._threads.writes.run(self.slot.replace, status, model.model_dump_json())


class Idempotency:
    """A dependency of routes that take the header."""

    def __init__(self, request: Request, store: IdempotencyStore, threads: ThreadPools) -> None:
        self._request = request
        self._store = store
        self._threads = threads

    @asynccontextmanager
    async def begin(
        self, content: Callable[[], bytes], result_type: type[T], render: Callable[[T], tuple[int, BaseModel]]
    ) -> AsyncIterator[IdempotentCall[T]]:
        """Compare this request with the earlier ones of its key, by its address and `content`.

        `render` makes the answer (status and body) of the result of the work, now and when the request comes again.
        Raises IdempotencyKeyReused, InProgress, BadRequest.
        """
        request = self._request
        key = read_idempotency_key(request)
        if key is None:
            yield IdempotentCall(None, result_type, render, self._threads)
            return
        digest = hashlib.sha256(await self._threads.writes.run(content))
        for part in (request.method, request.url.path, *sorted(map(str, request.query_params.multi_items()))):
            digest.update(b"\0" + part.encode())
        principal: Principal | None = request.scope["principal"]
        with self._store.slot(principal.key_id if principal else "", key, digest.hexdigest()) as slot:
            yield IdempotentCall(slot, result_type, render, self._threads, request.scope.get("request_id", ""))


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
