"""What happens to every request: an id, safe headers, strict text, a line in the log, a measurement."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from contextlib import nullcontext
from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from app.api.auth import AccessControl
from app.api.concurrency import Doors
from app.api.errors import error_response, problem_response
from app.api.metrics import ServerMetrics
from app.api.request_origin import is_cross_site
from app.core import tracing
from app.core.errors import Overloaded, SightlineError

log = logging.getLogger("sightline.access")

REQUEST_ID_PATTERN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
WARNED_STATUSES = (500, 504)  # statuses that are told whatever the level

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI sets styles from script; everything it loads is still ours.
DOCS_POLICY = PAGE_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class RequestMiddleware:
    """Wraps the application: nothing reaches it, or leaves it, unseen."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, gate: AccessControl, doors: Doors) -> None:
        self._app = app
        self._metrics = metrics
        self._gate = gate
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # nothing else is offered
        scope["request_id"] = request_id(scope)
        bind_contextvars(request_id=scope["request_id"])  # of this request's own task
        began = time.perf_counter()
        status = 500
        begun = replaced = False
        self._metrics.began()

        async def sending(message: Message) -> None:
            nonlocal status, begun, replaced
            if replaced:
                return
            begun = True
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                if status == 413 and headers.get("content-type", "").startswith("text/plain"):  # Starlette's own
                    detail = "the body of the request is larger than this call takes"
                    refusal = problem_response(Request(scope), 413, "payload_too_large", "Request too large", detail)
                    await refusal(scope, receive, sending)
                    replaced = True
                    return
                if scope["path"].startswith("/web/"):
                    headers.setdefault("Cache-Control", "no-cache")  # old and new modules never mix after an upgrade
                headers["X-Request-Id"] = scope["request_id"]
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "private, no-store")  # no cache between us may keep it
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                policy = DOCS_POLICY if scope["path"] == "/docs" else PAGE_POLICY
                headers.setdefault("Content-Security-Policy", policy)
            await send(message)

        try:
            with tracing.span("request", {"http.request.method": scope["method"], "request_id": scope["request_id"]}):
                await self._answer(scope, receive, sending)
                route = getattr(scope.get("route"), "path", "(none)")
                tracing.set_span_attributes({"http.route": route, "http.response.status_code": status})
        except asyncio.CancelledError:  # a stopping server waits no longer for this one
            if begun:
                raise
            detail = "the service is stopping"
            refusal = problem_response(
                Request(scope), 503, "overloaded", "Overloaded", detail, retryable=True, retry_after=5
            )
            await refusal(scope, receive, sending)
        finally:
            self._account(scope, status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or let the application answer."""
        if refusal := self._refusal(scope):
            await refusal(scope, receive, send)
            return
        door = self._doors.of(scope)
        if door is not None and door.full:
            await error_response(Request(scope), Overloaded("too many requests are waiting; try again in a moment"))(
                scope, receive, send
            )
            return
        with door or nullcontext():
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """Why the application never sees this request; None when it does."""
        if is_cross_site(scope):
            detail = "this was sent by a page of another site, which may not change anything here"
            return problem_response(Request(scope), 403, "forbidden", "Forbidden", detail)
        if not is_valid_utf8(scope):
            return problem_response(Request(scope), 400, "bad_request", "Bad request", "the address is not valid UTF-8")
        try:
            return self._gate.refusal(scope)
        except SightlineError as error:  # the keys cannot be read, so nobody comes in
            return error_response(Request(scope), error)

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        self._metrics.request(route, scope["method"], status, seconds)
        if refused := scope.get("refused"):
            self._metrics.refused(refused)
        level = logging.WARNING if status in WARNED_STATUSES else logging.DEBUG
        if log.isEnabledFor(level):
            fields = {"method": scope["method"], "path": scope["path"], "route": route, "status": status}
            log.log(
                level, "answered", extra={**fields, "ms": round(seconds * 1000, 1), "client": client_address(scope)}
            )


def request_id(scope: Scope) -> str:
    """The id that a proxy or a caller gave the request, if it is fit for a log, else one of ours."""
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(given) == 1 and REQUEST_ID_PATTERN.fullmatch(given[0]):
        return str(given[0].decode("ascii"))
    return uuid.uuid4().hex


def client_address(scope: Scope) -> str:
    """The address that a request came from."""
    return str(scope["client"][0]) if scope.get("client") else ""


def is_valid_utf8(scope: Scope) -> bool:
    """Whether path and query are UTF-8 once unescaped."""
    try:
        unquote_to_bytes(scope.get("raw_path") or b"").decode("utf-8")
        unquote_to_bytes(scope.get("query_string") or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
