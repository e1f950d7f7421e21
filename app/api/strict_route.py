"""Every route of the API is a StrictRoute: it refuses what a request brings and the route does not declare."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin

from fastapi import APIRouter, Request, Response
from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, _effective_route_context_var
from starlette.types import Receive, Scope, Send

from app.api.admission import (
    JSON,
    TINY_BODY,
    BodyLimit,
    content_type,
    has_small_body,
    is_json_type,
    work,
)
from app.api.direct_call import DirectCall, compile_call
from app.api.json_body import LONG, STORED_PICTURES, JsonScan
from app.api.read_after_write import WRITE_HEADER, find_token
from app.api.unknown_names import describe_unknown
from app.core.errors import SightlineError, UnsupportedMediaType, Validation

IDEMPOTENCY_KEY = "idempotency-key"
MAX_PARAMETERS = 100
PART = 128 << 10  # bytes of a body that a thread looks at in one call, well within a millisecond
FEW_MARKS = 2_000  # brackets, commas and colons of a body that is parsed within a millisecond
CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")


class StrictRoute(APIRoute):
    """Unknown and repeated parameters, a body where none is taken, and JSON with another content type are refused.

    `query`, `body` and `headers` are the names that the route declares; bodies are checked by their models. `limit` is
    how large a body may be.
    """

    limit: ClassVar[BodyLimit] = JSON
    direct: DirectCall | None = None

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """The docstring of the endpoint begins with the summary; its name is the operation id."""
        options["summary"] = (endpoint.__doc__ or "").strip().split("\n")[0].split(". ")[0].removesuffix(".")
        options["operation_id"] = endpoint.__name__
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        parts = list(_flatten(self.dependant))
        self.query = {field.alias for part in parts for field in part.query_params}
        self.lists = {field.alias for part in parts for field in part.query_params if _is_list(field)}
        self.headers = {field.alias.lower() for part in parts for field in part.header_params}
        self.body = _body_names(self)
        if self.limit is not TINY_BODY and (included := _effective_route_context_var.get()) is not None:
            self.direct = compile_call(included)

        async def handle_counted(request: Request) -> Response:  # a call that strangers may make
            try:
                return await handle_with_token(request)
            except (SightlineError, RequestValidationError):
                if request.scope["principal"] is not None:
                    raise
                refusal: Response | None = request.app.state.access.count_failure(request.scope)
                if refusal is None:
                    raise
                return refusal

        async def handle_with_token(request: Request) -> Response:
            answer = await handle_strictly(request)
            if answer.status_code < 300 and (token := find_token(request)) is not None:
                answer.headers[WRITE_HEADER] = str(token)
            return answer

        async def handle_strictly(request: Request) -> Response:
            self.check_query(request)
            self.check_headers(request)
            if not has_body(request):
                return await handle(request)  # FastAPI says which fields are missing
            require_plain(request)
            if self.body_field is not None:
                require_json(request)
            limit = self.limit if self.body else TINY_BODY
            async with request.app.state.admission.admit(request, limit) as admitted:
                if self.body_field is not None:
                    async with read_json(admitted, limit, self.body_field) as parsed:
                        self.check_misplaced(parsed.parsed)
                        answer = None if self.direct is None else await self.direct.run(parsed, parsed.parsed)
                        return await handle(parsed) if answer is None else answer
                if not self.body:
                    await self.refuse_body(admitted)
                return await handle(admitted)

        return handle_counted if self.limit is TINY_BODY else handle_with_token

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.direct is not None and scope["method"] == "GET":
            request = Request(scope, receive, send)
            if not has_body(request):
                self.check_query(request)
                if (answer := await self.direct.run(request)) is not None:
                    if answer.status_code < 300 and (token := find_token(request)) is not None:
                        answer.headers[WRITE_HEADER] = str(token)
                    await answer(scope, receive, send)
                    return
        await super().handle(scope, receive, send)

    def check_query(self, request: Request) -> None:
        """Raise Validation for an unknown parameter, and for one that comes twice and is no list."""
        if request.scope["query_string"].count(b"&") > MAX_PARAMETERS:
            raise Validation(f"a call takes {MAX_PARAMETERS} parameters at most")
        for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
            if name not in self.query and name in self.body:
                raise Validation(f"{name!r} belongs in the body of this call, not in its address")
            if name not in self.query:
                raise Validation(describe_unknown("parameter", name, self.query))
            if count > 1 and name not in self.lists:
                raise Validation(f"the parameter {name!r} was sent {count} times, expected once")

    def check_headers(self, request: Request) -> None:
        """Raise Validation for an Idempotency-Key that is misspelt, and for each header that this call would ignore
        although it may ask that nothing be done."""
        if request.method in ("GET", "HEAD"):
            return
        if conditional := next((name for name in CONDITIONS if name in request.headers), None):
            raise Validation(f"this call takes no {conditional}: it would not look at it, and nothing was done")
        if request.method == "DELETE":
            return
        for name in request.headers:
            if "idempot" in name and name != IDEMPOTENCY_KEY:
                raise Validation(describe_unknown("header", name, ["Idempotency-Key"]))
            if name == IDEMPOTENCY_KEY and name not in self.headers:
                raise Validation("this call takes no Idempotency-Key")

    async def refuse_body(self, request: Request) -> None:
        """Raise Validation for a body that says anything."""
        body = (await request.body()).strip()
        if body in (b"", b"{}", b"null"):
            return
        with suppress(ValueError, RecursionError):
            self.check_misplaced(json.loads(body))
        raise Validation("this call takes no body")

    def check_misplaced(self, body: Any) -> None:
        """Raise Validation for a parameter that is in the body, and belongs in the address."""
        for name in body if isinstance(body, dict) else ():
            if name in self.query and name not in self.body:
                raise Validation(f"{name!r} belongs in the address of this call: ?{name}=...")


class ProbeRoute(StrictRoute):
    """A route for monitors, some of which add a parameter against caches (`?t=1764450000`): it takes any."""

    def check_query(self, request: Request) -> None:
        pass


def new_router(
    prefix: str, tag: str, limit: BodyLimit = JSON, route_class: type[StrictRoute] = StrictRoute
) -> APIRouter:
    """A router whose routes are strict, and take bodies of these sizes."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=type("Route", (route_class,), {"limit": limit}))


def _flatten(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for one in dependant.dependencies:
        yield from _flatten(one)


def _is_list(field: ModelField) -> bool:
    annotation = field.field_info.annotation
    return any(get_origin(one) is list for one in (annotation, *get_args(annotation)))


def _body_names(route: APIRoute) -> set[str]:
    """The names of the fields of the bodies that a route takes; empty when it takes none."""
    if route.body_field is not None:
        return set(getattr(route.body_field.field_info.annotation, "model_fields", {}))
    contents = (route.openapi_extra or {}).get("requestBody", {}).get("content", {})
    return {name for one in contents.values() for name in one["schema"].get("properties", {})}


class _ParsedRequest(Request):
    """A request whose JSON is parsed already, as FastAPI asks for it."""

    parsed: Any = None

    async def body(self) -> bytes:
        return b"{}"

    async def json(self) -> Any:
        return self.parsed


def has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def require_plain(request: Request) -> None:
    """Raise UnsupportedMediaType for a body that is compressed."""
    if (coding := request.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
        raise UnsupportedMediaType(f"send the body as it is, without 'Content-Encoding: {coding[:60]}'")


def require_json(request: Request) -> None:
    """Raise UnsupportedMediaType for a body of another type."""
    kind = content_type(request)
    if not is_json_type(kind):
        sent = f"not {kind[:60]!r}" if kind else "which is missing"
        raise UnsupportedMediaType(f"send JSON with the header 'Content-Type: application/json', {sent}")


@asynccontextmanager
async def read_json(request: Request, limit: BodyLimit, model: Any) -> AsyncIterator[_ParsedRequest]:
    """The request with its JSON parsed. Large bodies, and those with much in them, are parsed in threads.

    The files of pictures are there until the request is answered. Raises PayloadTooLarge, Validation.
    """
    state = request.app.state
    folders: list[Path] = []

    def make_folder() -> Path:
        folders.append(state.service.library.create_upload_dir())
        return folders[0]

    scan = JsonScan(
        state.service.settings.max_json_bytes,
        make_folder if limit.pictures else None,
        anywhere=limit.anywhere,
        texts=limit.texts,
    )
    is_small = has_small_body(request)
    parsed = _ParsedRequest(request.scope, request.receive)
    STORED_PICTURES.set(scan.pictures)
    try:
        async for part in gather_parts(request.stream()):
            if is_small and not (limit.pictures and has_long_string(part)):  # a long picture is written to a file
                scan.feed(part)
            else:
                await work(request, scan.feed, part)
        parsed.parsed = await work(request, load, scan, model) if scan.marks > FEW_MARKS else scan.load()
        yield parsed
    finally:
        scan.close()
        if folders:
            await state.threads.writes.run(state.service.library.delete_upload_dir, folders[0])


def has_long_string(text: bytes) -> bool:
    """Whether a string of a body may be longer than LONG; one that has escaped quotes may be taken for several."""
    return len(text) > LONG and max(map(len, text.split(b'"')[1::2]), default=0) > LONG


async def gather_parts(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body in parts of PART bytes or a little more."""
    part = bytearray()
    async for received in stream:
        part += received
        if len(part) >= PART:
            yield bytes(part)
            part.clear()
    yield bytes(part)


def load(scan: JsonScan, model: Any) -> Any:
    """The validated body; FastAPI takes it as it is. Raises Validation, RequestValidationError."""
    value, errors = model.validate(scan.load(), {}, loc=("body",))
    if errors:
        raise RequestValidationError(errors)
    return value
