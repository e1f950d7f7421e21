"""The header `Idempotency-Key`: a request that is sent again changes nothing and gets the same answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from fastapi import Header, Request, Response
from pydantic import BaseModel

from app.api.dependencies import ServiceDep, ThreadPoolsDep
from app.api.multipart import Form
from app.core.errors import BadRequest
from app.service.auth import Principal
from app.storage.idempotency import Note, ResponseSlot

T = TypeVar("T")

KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")
REPLAYED = {"Idempotent-Replayed": "true"}
IdempotencyKeyHeader = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="Sent again with the same request, the answer is the same."),
]


class IdempotentCall:
    """One request that may be a repeat. `replay` is the answer it got before, None if it is to be worked on."""

    def __init__(self, slot: ResponseSlot | None, lanes: ThreadPoolsDep) -> None:
        self._slot = slot
        self._lanes = lanes

    @property
    def replay(self) -> Response | None:
        """The answer from before."""
        if self._slot is None or (answer := self._slot.answer) is None:
            return None
        return Response(answer.body, answer.status, REPLAYED, media_type="application/json")

    def noting(self, render: Callable[[T], tuple[int, BaseModel]]) -> Note[T] | None:
        """What keeps the answer in the transaction of the work; None without a key."""
        if self._slot is None:
            return None

        def rendered(result: T) -> tuple[int, str]:
            status, model = render(result)
            return status, model.model_dump_json()

        return self._slot.noting(rendered)

    async def final(self, status: int, model: BaseModel) -> None:
        """The answer as it is sent."""
        if self._slot is not None:
            await self._lanes.writes.run(self._slot.final, status, model.model_dump_json())


@asynccontextmanager
async def begin_idempotent(
    request: Request, service: ServiceDep, lanes: ThreadPoolsDep, content: Callable[[], bytes]
) -> AsyncIterator[IdempotentCall]:
    """This request, told apart from others by its address and `content`. Raises KeyReused, InProgress, BadRequest."""
    key = read_idempotency_key(request)
    if key is None:
        yield IdempotentCall(None, lanes)
        return
    digest = hashlib.sha256(await lanes.writes.run(content))
    for part in (request.method, request.url.path, *sorted(map(str, request.query_params.multi_items()))):
        digest.update(b"\0" + part.encode())
    grant: Principal | None = request.scope["grant"]
    with service.repeats.slot(grant.key_id if grant else "", key, digest.hexdigest()) as slot:
        yield IdempotentCall(slot, lanes)


def read_idempotency_key(request: Request) -> str | None:
    """The key, with or without the quotes that the draft of the IETF gives it. Raises BadRequest for what is none."""
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
    """A digest of what a form says and brings; its boundary is another each time."""
    digest = hashlib.sha256()
    for name, value in form.fields:
        digest.update(repr((name, value)).encode())
    for file in form.files:
        with open(file.path, "rb") as opened:
            held = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(repr((file.field, file.filename, held)).encode())
    return digest.digest()
