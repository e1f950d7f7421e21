"""What happens to every request: an id, access control, safe headers, a line in the log, a measurement."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from app.api.auth import AccessControl
from app.api.errors import error_response, is_cut_off, problem_response
from app.api.metrics import ServerMetrics
from app.api.read_after_write import WRITE_HEADER
from app.api.request_origin import is_cross_site
from app.core import tracing
from app.core.errors import SightlineError
from app.core.unquote import unquote_bytes

log = logging.getLogger("sightline.access")

REQUEST_ID_PATTERN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
WARNED_STATUSES = (500, 504)  # logged as warnings; all others only at the level debug

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " media-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MEDIA_SOURCES = ("img-src 'self'", "media-src 'self'", "connect-src 'self'")
# Swagger UI sets styles from script; everything that it loads is still from this server.
DOCS_POLICY = PAGE_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

EXPOSED_HEADERS = (
    *("Content-Disposition", "Content-Range", "ETag", "Idempotent-Replayed", "Retry-After", WRITE_HEADER),
    "X-Request-Id",
)


class HeadMiddleware:
    """Answers HEAD as the application answers GET, without the body. It wraps everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return
        is_ended = False

        async def send_head(message: Message) -> None:
            nonlocal is_ended
            if not is_ended:
                is_ended = True  # what would send more, an endless stream too, finds that the client has gone
                await send(message)
                await send({"type": "http.response.body"})

        # In a scope of its own: uvicorn sees in the first one that the answer has no body.
        await self._app({**scope, "method": "GET", "sent_method": "HEAD"}, receive, send_head)


class RequestMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, access: AccessControl) -> None:
        self._app = app
        self._metrics = metrics
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # nothing else is offered
        scope["request_id"] = choose_request_id(scope)
        bind_contextvars(request_id=scope["request_id"])  # of this request's own task
        began = time.perf_counter()
        status = 500
        is_started = False
        self._metrics.request_started()

        async def send_checked(message: Message) -> None:
            nonlocal status, is_started
            if not is_started and "pause" in scope:
                await asyncio.sleep(scope["pause"])
            is_started = True
            if message["type"] == "http.response.start":
                status = message["status"]
                set_headers(scope, MutableHeaders(scope=message), status)
            await send(message)

        try:
            with tracing.span(
                "request", {"http.request.method": sent_method(scope), "request_id": scope["request_id"]}
            ):
                await (self._find_refusal(scope) or self._app)(scope, receive, send_checked)
                tracing.set_span_attributes({"http.route": route_of(scope), "http.response.status_code": status})
        except RuntimeError as error:
            if not is_cut_off(error):  # the connection is closed, so that the client does not take the answer for whole
                raise
        except asyncio.CancelledError:  # a stopping server waits no longer for this request
            if is_started:
                raise
            detail = "the service is stopping"
            refusal = problem_response(
                Request(scope), 503, "overloaded", "Overloaded", detail, retryable=True, retry_after=5
            )
            await refusal(scope, receive, send_checked)
        finally:
            self._record(scope, status, time.perf_counter() - began)

    def _find_refusal(self, scope: Scope) -> ASGIApp | None:
        """The answer to a request that the application must not see; None when it may."""
        if is_cross_site(scope, behind_proxy=self._access.is_behind_proxy) and not self._access.allows_origin(
            Headers(scope=scope).get("origin", "")
        ):
            detail = "this was sent by a page of another site, which may not change anything here"
            return problem_response(Request(scope), 403, "forbidden", "Forbidden", detail)
        if not is_valid_utf8(scope):
            return problem_response(Request(scope), 400, "bad_request", "Bad request", "the address is not valid UTF-8")
        try:
            return self._access.find_refusal(scope)
        except SightlineError as error:  # the keys cannot be read, so every request is refused
            return error_response(Request(scope), error)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        """Count the request, and log it."""
        route = route_of(scope)
        self._metrics.request_finished(route, sent_method(scope), status, seconds)
        if code := scope.get("refused"):
            self._metrics.count_refusal(code)
        level = logging.WARNING if status in WARNED_STATUSES else logging.DEBUG
        if log.isEnabledFor(level):
            fields = {"method": sent_method(scope), "path": scope["path"], "route": route, "status": status}
            fields |= {"ms": round(seconds * 1000, 1), "client": client_address(scope)}
            log.log(level, "answered", extra=fields)


class CrossOriginMiddleware(CORSMiddleware):
    """Answers what browsers ask before a script of an allowed origin may call (CORS): that question brings no key.

    Such scripts send the key in a header. The cookie of the page's own session is not for them.
    """

    def __init__(self, app: ASGIApp, access: AccessControl) -> None:
        methods = ("GET", "HEAD", "POST", "PATCH", "DELETE")
        super().__init__(app, allow_methods=methods, allow_headers=["*"], expose_headers=EXPOSED_HEADERS)
        self._access = access

    def is_allowed_origin(self, origin: str) -> bool:
        return self._access.allows_origin(origin)


def set_headers(scope: Scope, headers: MutableHeaders, status: int) -> None:
    """The headers of every answer; what a route has set stays."""
    path = scope["path"]
    headers["X-Request-Id"] = scope["request_id"]
    if path.startswith("/web/"):
        headers.setdefault("Cache-Control", "no-cache")  # old and new modules never mix after an upgrade
    elif path.startswith("/v1/"):
        headers.setdefault("Cache-Control", "private, no-store")  # no cache on the way may keep it
    if status == 304:  # the client has the other headers, with the bytes
        return
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", DOCS_POLICY if path == "/docs" else PAGE_POLICY)


def allow_media_from(origin: str) -> str:
    """The policy of the page where pictures and videos come from another origin, too."""
    policy = PAGE_POLICY
    for source in MEDIA_SOURCES:
        policy = policy.replace(source, f"{source} {origin}")
    return policy


def sent_method(scope: Scope) -> str:
    """The method of the request as it came, for logs and metrics."""
    return str(scope.get("sent_method", scope["method"]))


def route_of(scope: Scope) -> str:
    """The path pattern of the route that answered, as a label of metrics."""
    return getattr(scope.get("route"), "path", "(none)")


def choose_request_id(scope: Scope) -> str:
    """The id that a proxy or a caller gave the request if it is fit for a log, else a new one."""
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(given) == 1 and REQUEST_ID_PATTERN.fullmatch(given[0]):
        return str(given[0].decode("ascii"))
    return f"{random.getrandbits(128):032x}"  # no call of the system, for which the interpreter would be given away


def client_address(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


def is_valid_utf8(scope: Scope) -> bool:
    """Whether path and query are UTF-8 once unescaped."""
    try:
        unquote_bytes(scope.get("raw_path") or b"").decode("utf-8")
        unquote_bytes(scope.get("query_string") or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
