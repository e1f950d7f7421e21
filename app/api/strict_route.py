"""Every route of the API is a StrictRoute: it refuses what a request brings and the route does not declare."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.api.unknown_names import describe_unknown
from app.core.errors import UnsupportedMediaType, Validation
from app.core.strict_json import load_json

IDEMPOTENCY_KEY = "idempotency-key"
CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")


class StrictRoute(APIRoute):
    """Unknown and repeated parameters, a body where none is taken, and JSON with another content type are refused.

    `query`, `body` and `headers` are the names that the route declares; bodies are checked by their models.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """The docstring of the endpoint begins with the summary; its name is the operation id."""
        options["summary"] = (endpoint.__doc__ or "").strip().split("\n")[0].split(". ")[0].removesuffix(".")
        options["operation_id"] = endpoint.__name__
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        parts = list(_flatten(self.dependant))
        self.query = {field.alias for part in parts for field in part.query_params}
        self.headers = {field.alias.lower() for part in parts for field in part.header_params}
        self.body = _body_names(self)

        async def handle_strictly(request: Request) -> Response:
            self.check_query(request)
            self.check_headers(request)
            if has_body(request):
                require_plain(request)
            if self.body_field is not None:
                request = await read_json(request)
                self.check_misplaced(getattr(request, "parsed", None))
            elif not self.body and has_body(request):
                await self.refuse_body(request)
            return await handle(request)

        return handle_strictly

    def check_query(self, request: Request) -> None:
        """Raise Validation for an unknown parameter, and for one that comes twice."""
        for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
            if name not in self.query and name in self.body:
                raise Validation(f"{name!r} belongs in the body of this call, not in its address")
            if name not in self.query:
                raise Validation(describe_unknown("parameter", name, self.query))
            if count > 1:
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


def new_router(prefix: str, tag: str, route_class: type[StrictRoute] = StrictRoute) -> APIRouter:
    """A router whose routes are strict."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=route_class)


def _flatten(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for one in dependant.dependencies:
        yield from _flatten(one)


def _body_names(route: APIRoute) -> set[str]:
    """The names of the fields of the bodies that a route takes; empty when it takes none."""
    if route.body_field is not None:
        return set(getattr(route.body_field.field_info.annotation, "model_fields", {}))
    contents = (route.openapi_extra or {}).get("requestBody", {}).get("content", {})
    return {name for one in contents.values() for name in one["schema"].get("properties", {})}


class _ParsedRequest(Request):
    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


def has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def require_plain(request: Request) -> None:
    """Raise UnsupportedMediaType for a body that is compressed."""
    if (coding := request.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
        raise UnsupportedMediaType(f"send the body as it is, without 'Content-Encoding: {coding[:60]}'")


async def read_json(request: Request) -> Request:
    """The request with its JSON parsed. Raises UnsupportedMediaType, Validation."""
    if not has_body(request):
        return request  # FastAPI says which fields are missing
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        sent = f"not {kind[:60]!r}" if kind else "which is missing"
        raise UnsupportedMediaType(f"send JSON with the header 'Content-Type: application/json', {sent}")
    parsed = _ParsedRequest(request.scope, request.receive)
    parsed.parsed = load_json(await parsed.body())
    return parsed
