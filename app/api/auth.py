"""The way in: what every request is asked before anything else of it is looked at.

Which call it is, the table of `app.api.permissions` says by the router's own patterns; who asks, a key (`Authorization:
Bearer` or `X-API-Key`) or the cookie of a session. Without keys, the name in `Host` must be ours.
"""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.api.dependencies import ALLOWED_COLLECTIONS
from app.api.errors import problem_response
from app.api.permissions import RoutePermission, find_permission, list_methods
from app.api.rate_limit import WRONG_COOKIES, WRONG_KEYS, RateLimiter, rate_limit_key
from app.api.request_origin import is_trusted_host, read_host, read_port
from app.core.settings import Settings
from app.core.types import KeyScope
from app.service.auth import ApiKeyService, Principal

KEY_REQUIRED = "this call needs an API key: send it as `Authorization: Bearer sl_...` or `X-API-Key: sl_...`"
UNLIMITED_PATHS = ("/livez", "/readyz", "/web/{path:path}")  # what watches the service, and the files of the page


class AccessControl:
    """Lets requests in, or says why not. `alone` says that nobody but this machine reaches the server."""

    def __init__(self, access: ApiKeyService, settings: Settings, *, alone: bool) -> None:
        self.access = access
        self._rates = RateLimiter(settings.rate_limit)
        self._free = alone or settings.insecure
        names = {name.strip().lower() for name in settings.allowed_hosts.split(",")} - {""}
        self._named = alone or bool(names)
        self._hosts = frozenset(names | {settings.host.lower()})

    @property
    def keyed(self) -> bool:
        """Whether a key is needed: where there are any, and wherever others than this machine reach us."""
        return not self._free or self.access.needed()

    def refusal(self, scope: Scope) -> Response | None:
        """Why this request is not let in; None when it is. What it may do stands in `scope["grant"]` then."""
        ALLOWED_COLLECTIONS.set(None)
        scope["grant"] = None
        keyed = self.keyed
        if not keyed and self._named and not is_trusted_host(read_host(scope), self._hosts):
            detail = "this server does not go by the name that the request gives it; see SIGHTLINE_ALLOWED_HOSTS"
            return problem_response(Request(scope), 403, "forbidden", "Forbidden", detail)
        call = scope["call"] = find_permission(scope["method"], scope["path"])
        needs = KeyScope.OPEN if call is None and not keyed else KeyScope.SEARCH if call is None else call.right
        if keyed and (refused := self._identify(scope, needs)):
            return refused
        if call is None or call.path not in UNLIMITED_PATHS:
            wait = self._rates.asked(self._caller(scope))
            if wait is not None:
                return self._too_often(scope, wait, "too many requests; try again later")
        if call is None:
            return not_found_response(scope)
        return check_permission(scope, call) if keyed else None

    def wrong(self, scope: Scope) -> Response:
        """The answer to a wrong key, which is counted."""
        wait = self._rates.wrong(rate_limit_key(scope["client"]), WRONG_KEYS)
        if wait is not None:
            return self._too_often(scope, wait, "too many wrong keys came from this address; try again later")
        return unauthorized(scope, "the API key is unknown, revoked or expired", "invalid_token")

    def cookie(self, scope: Scope) -> str:
        """The name of the cookie: servers on other ports of the same name would get and overwrite ours."""
        return f"sightline_{read_port(scope)}"

    def session(self, scope: Scope) -> str | None:
        """The token of the session that the request's cookie holds."""
        return Request(scope).cookies.get(self.cookie(scope))

    def _identify(self, scope: Scope, needs: KeyScope) -> Response | None:
        """Find out who asks. Nobody at all is refused unless the call is open, a wrong key always is."""
        presented = read_presented_keys(scope)
        if len(presented) > 1:
            return unauthorized(scope, "the request brings two different keys", "invalid_request")
        grant: Principal | None = None
        if presented:
            grant = self.access.grant(presented.pop())
            if grant is None:
                return self.wrong(scope)
        elif token := self.session(scope):
            grant = self.access.grant_session(token)
            if grant is None and needs is not KeyScope.OPEN:
                wait = self._rates.wrong(rate_limit_key(scope["client"]), WRONG_COOKIES)
                if wait is not None:
                    return self._too_often(scope, wait, "too many ended sessions came from this address")
                answer = unauthorized(scope, "the session has ended; give the key again", "invalid_token")
                answer.delete_cookie(self.cookie(scope), path="/")
                return answer
        if grant is None and needs is not KeyScope.OPEN:
            return unauthorized(scope, KEY_REQUIRED)
        scope["grant"] = grant
        ALLOWED_COLLECTIONS.set(grant.collections if grant else None)
        return None

    def _caller(self, scope: Scope) -> str:
        grant: Principal | None = scope["grant"]
        return grant.key_id if grant else rate_limit_key(scope["client"])

    def _too_often(self, scope: Scope, wait: int, detail: str) -> Response:
        return problem_response(
            Request(scope), 429, "rate_limited", "Too many requests", detail, retryable=True, retry_after=wait
        )


async def verify_route(request: Request) -> None:
    """Every route depends on this: the router has chosen the very line of the table by which the request was let in."""
    call: RoutePermission | None = request.scope.get("call")
    if call is None or call.path != getattr(request.scope.get("route"), "path", None):
        raise HTTPException(403, "this call is in no table of rights")


def read_presented_keys(scope: Scope) -> set[str]:
    """The different keys that the headers of a request bring. Names and passwords for a proxy are none of ours."""
    found = set()
    for name, value in scope["headers"]:
        text = value.decode("latin-1").strip()
        if name == b"x-api-key":
            found.add(text)
        elif name == b"authorization" and text[:7].lower() == "bearer ":
            found.add(text[7:].strip())
    return found


def unauthorized(scope: Scope, detail: str, error: str = "") -> JSONResponse:
    """401 with the challenge that belongs to it."""
    answer = problem_response(Request(scope), 401, "unauthorized", "Key needed", detail)
    answer.headers["WWW-Authenticate"] = 'Bearer realm="sightline"' + (f', error="{error}"' if error else "")
    return answer


def check_permission(scope: Scope, call: RoutePermission) -> JSONResponse | None:
    """403 when the key is good, but not for this call."""
    grant: Principal | None = scope["grant"]
    if call.right is KeyScope.OPEN:
        return None
    if grant is None or grant.right < call.right:
        needed = call.right.name.lower()
        answer = problem_response(
            Request(scope), 403, "forbidden", "Forbidden", f"this call needs a key of scope {needed}"
        )
        answer.headers["WWW-Authenticate"] = f'Bearer realm="sightline", error="insufficient_scope", scope="{needed}"'
        return answer
    if call.whole and grant.collections is not None:
        detail = "this call concerns all collections; the key is bound to some"
        return problem_response(Request(scope), 403, "forbidden", "Forbidden", detail)
    return None


def not_found_response(scope: Scope) -> JSONResponse:
    """404, or 405 with what is offered at the address."""
    if methods := list_methods(scope["path"]):
        answer = problem_response(Request(scope), 405, "bad_request", "Method Not Allowed", "Method Not Allowed")
        answer.headers["Allow"] = ", ".join(methods)
        return answer
    return problem_response(Request(scope), 404, "not_found", "Not Found", "Not Found")
