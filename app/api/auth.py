"""Access control: what every request must pass before the application sees it.

The table of `app.api.permissions` says what a call needs. A key (`Authorization: Bearer` or `X-API-Key`) or the cookie
of a session says who calls. Where no keys are needed, the header `Host` must name this server.
"""

from __future__ import annotations

import logging
import re
from base64 import b64decode
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from limits import RateLimitItem
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.api.dependencies import ALLOWED_COLLECTIONS
from app.api.errors import problem_response
from app.api.not_found import page_not_found, wants_page
from app.api.permissions import PERMISSIONS, PermissionTable, RoutePermission
from app.api.rate_limit import WRONG_COOKIES, WRONG_KEYS, RateLimiter, rate_limit_key
from app.api.request_origin import is_trusted_host, parse_origins, parse_proxies, read_host, read_port
from app.core.settings import Settings
from app.core.types import KeyScope
from app.service.auth import PREFIX, ApiKeyService, Principal
from app.storage.membership import SINGLE_SERVER, Membership

log = logging.getLogger(__name__)

KEY_REQUIRED = "this call needs an API key: send it as `Authorization: Bearer sl_...` or `X-API-Key: sl_...`"
PROBES = ("/livez", "/readyz", "/metrics")  # monitors ask for them under any name, or under none
PAUSE_SECONDS = 1.0  # before the answer to who has sent too many wrong keys: who goes on at once costs little
UNLIMITED_PATHS = ("/livez", "/readyz", "/web/{path:path}")  # health checks, and the files of the page
COSTS = {"/v1/images/{id}/explain": 10}  # of a call that works like many, in requests of the rate limit


class AccessControl:
    """Refuses requests. `loopback_only` says that no other machine reaches the server."""

    def __init__(
        self,
        keys: ApiKeyService,
        settings: Settings,
        *,
        loopback_only: bool,
        membership: Membership = SINGLE_SERVER,
        permissions: PermissionTable = PERMISSIONS,
    ) -> None:
        self.keys = keys
        self._permissions = permissions
        self._limiter = RateLimiter(settings.rate_limit, lambda: membership.servers)
        self.is_behind_proxy = bool(parse_proxies(settings.trusted_proxies))
        self._has_warned = self.is_behind_proxy
        self._may_go_without_keys = loopback_only or settings.insecure
        names = {name.strip().lower() for name in settings.allowed_hosts.split(",")} - {""}
        self._checks_host = loopback_only or bool(names)
        self._hosts = frozenset(names | {settings.host.lower()})
        self.origins = parse_origins(settings.cors_origins)

    def needs_key(self) -> bool:
        """Whether a key is needed: where keys were made, and wherever other machines reach the server."""
        return not self._may_go_without_keys or self.keys.has_keys()

    def allows_origin(self, origin: str) -> bool:
        """Whether scripts of this origin may call the server. Without keys, `*` would let every page that a person
        visits read and delete everything."""
        return origin in self.origins or ("*" in self.origins and self.needs_key())

    def find_refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is refused; None for one that may pass.

        Sets `scope["principal"]` (who calls, None without a key), `scope["caller"]` (what is counted: its key, or an
        address) and `scope["permission"]` (the line of the table).
        """
        ALLOWED_COLLECTIONS.set(None)
        scope["principal"] = None
        if not self._has_warned:
            self._warn_of_proxy(scope)
        needs_key = self.needs_key()
        checks_host = self._checks_host and not needs_key and scope["path"] not in PROBES
        if checks_host and not is_trusted_host(read_host(scope), self._hosts):
            detail = "this server does not go by the name that the request gives it; see SIGHTLINE_ALLOWED_HOSTS"
            return problem_response(Request(scope), 403, "forbidden", "Forbidden", detail)
        permission = scope["permission"] = self._permissions.find(scope["method"], scope["path"])
        if permission is None and wants_page(scope):
            return page_not_found(scope)
        # An address that is not there needs a key, too: who has none learns nothing of what is there.
        needed = permission.scope if permission else KeyScope.SEARCH
        if needs_key and (refusal := self._authenticate(scope, needed)):
            return refusal
        principal: Principal | None = scope["principal"]
        scope["caller"] = principal.key_id if principal else rate_limit_key(scope["client"])
        if permission is None or permission.path not in UNLIMITED_PATHS:
            cost = COSTS.get(permission.path, 1) if permission else 1
            wait = self._limiter.count_request(scope["client"], principal.key_id if principal else None, cost)
            if wait is not None:
                return self._too_often(scope, wait, "too many requests; try again later")
        if permission is None:
            return not_found_response(scope, self._permissions)
        return check_permission(scope, permission) if needs_key else None

    def still_admits(self, scope: Scope, collection: str) -> bool:
        """Whether who sent a request, which goes on, may still read of this collection."""
        if not self.needs_key():
            return True
        if presented := read_presented_keys(scope):
            principal = self.keys.authenticate(presented.pop())
        else:
            principal = self.keys.authenticate_session(self.session_token(scope) or "")
        return principal is not None and (principal.collections is None or collection in principal.collections)

    def reject_wrong_key(self, scope: Scope) -> Response:
        """The answer to a wrong key, which is counted."""
        return self.count_failure(scope) or unauthorized_response(
            scope, "the API key is unknown, revoked or expired", "invalid_token"
        )

    def count_failure(self, scope: Scope, rule: RateLimitItem = WRONG_KEYS) -> Response | None:
        """Count what is wrong about a call that needs no key; the answer when the address has sent too much."""
        wait = self._limiter.count_wrong_key(scope["client"], rule)
        if wait is None:
            return None
        scope["pause"] = PAUSE_SECONDS
        return self._too_often(scope, wait, "too many wrong keys came from this address; try again later")

    def cookie_name(self, scope: Scope) -> str:
        """It holds the port: servers on other ports of the same host would get and overwrite this one's cookie."""
        return f"sightline_{read_port(scope)}"

    def session_token(self, scope: Scope) -> str | None:
        """The token in our cookie, which is looked for alone: a stranger may send thousands of others."""
        pattern = rb"(?:^|;)\s*%b=([^;]*)" % self.cookie_name(scope).encode()
        for name, value in scope["headers"]:
            if name == b"cookie" and (found := re.search(pattern, value)):
                return str(found[1].strip().decode("latin-1"))
        return None

    def _authenticate(self, scope: Scope, needed: KeyScope) -> Response | None:
        """Find out who calls. A call without a key is refused unless it is open; a wrong key always is."""
        presented = read_presented_keys(scope)
        if len(presented) > 1:
            return unauthorized_response(scope, "the request brings two different keys", "invalid_request")
        principal: Principal | None = None
        if presented:
            principal = self.keys.authenticate(presented.pop())
            if principal is None:
                return self.reject_wrong_key(scope)
        elif token := self.session_token(scope):
            principal = self.keys.authenticate_session(token)
            if principal is None and needed is not KeyScope.OPEN:
                return self._reject_ended_session(scope)
        if principal is None and needed is not KeyScope.OPEN:
            return unauthorized_response(scope, KEY_REQUIRED)
        scope["principal"] = principal
        ALLOWED_COLLECTIONS.set(principal.collections if principal else None)
        return None

    def _reject_ended_session(self, scope: Scope) -> Response:
        if refusal := self.count_failure(scope, WRONG_COOKIES):
            return refusal
        answer = unauthorized_response(scope, "the session has ended; give the key again", "invalid_token")
        answer.delete_cookie(self.cookie_name(scope), path="/")
        return answer

    def _warn_of_proxy(self, scope: Scope) -> None:
        """Say once that a proxy sends addresses which nobody believes."""
        if any(name == b"x-forwarded-for" for name, _ in scope["headers"]):
            self._has_warned = True
            peer = scope["client"][0] if scope["client"] else "a proxy"
            log.warning(
                "a request brought X-Forwarded-For: if %s is your proxy, SIGHTLINE_TRUSTED_PROXIES must name it", peer
            )

    def _too_often(self, scope: Scope, wait: int, detail: str) -> Response:
        return problem_response(
            Request(scope), 429, "rate_limited", "Too many requests", detail, retryable=True, retry_after=wait
        )


async def get_access(request: Request) -> AccessControl:
    access = request.app.state.access
    assert isinstance(access, AccessControl)
    return access


AccessDep = Annotated[AccessControl, Depends(get_access)]


async def verify_route(request: Request) -> None:
    """Every route depends on this: the router has chosen the same line of the table as access control did."""
    permission: RoutePermission | None = request.scope.get("permission")
    if permission is None or permission.path != getattr(request.scope.get("route"), "path", None):
        raise HTTPException(403, "this call is in no table of rights")


def read_presented_keys(scope: Scope) -> set[str]:
    """The different keys in the headers of a request.

    Names and passwords (`Basic`) are for a proxy, but for a password that is a key: some clients can send one in their
    URL alone (`http://key:sl_...@host`).
    """
    found = set()
    for name, value in scope["headers"]:
        text = value.decode("latin-1").strip()
        if name == b"x-api-key":
            found.add(text)
        elif name == b"authorization" and text[:7].lower() == "bearer ":
            found.add(text[7:].strip())
        elif name == b"authorization" and text[:6].lower() == "basic " and (key := read_password_key(text[6:])):
            found.add(key)
    return found


def read_password_key(credentials: str) -> str | None:
    """The password of `Basic` credentials if it looks like a key of ours."""
    try:
        _, _, password = b64decode(credentials.strip(), validate=True).decode("utf-8").partition(":")
    except ValueError:
        return None
    return password if password.startswith(f"{PREFIX}_") else None


def unauthorized_response(scope: Scope, detail: str, error: str = "") -> JSONResponse:
    """401 with the challenge that HTTP demands."""
    answer = problem_response(Request(scope), 401, "unauthorized", "Key needed", detail)
    answer.headers["WWW-Authenticate"] = 'Bearer realm="sightline"' + (f', error="{error}"' if error else "")
    return answer


def check_permission(scope: Scope, permission: RoutePermission) -> JSONResponse | None:
    """403 when the key is good, but not for this call; None when it is good for it."""
    principal: Principal | None = scope["principal"]
    if permission.scope is KeyScope.OPEN:
        return None
    if principal is None or principal.scope < permission.scope:
        needed = permission.scope.name.lower()
        detail = f"this call needs a key of scope {needed}"
        answer = problem_response(Request(scope), 403, "forbidden", "Forbidden", detail)
        answer.headers["WWW-Authenticate"] = f'Bearer realm="sightline", error="insufficient_scope", scope="{needed}"'
        return answer
    if permission.all_collections and principal.collections is not None:
        detail = "this call concerns all collections; the key is bound to some"
        return problem_response(Request(scope), 403, "forbidden", "Forbidden", detail)
    return None


def not_found_response(scope: Scope, permissions: PermissionTable) -> JSONResponse:
    """404, or 405 with the methods of the address."""
    if methods := permissions.list_methods(scope["path"]):
        allowed = ", ".join(methods)
        detail = f"this address takes {allowed}, and not this method"
        answer = problem_response(Request(scope), 405, "bad_request", "Method Not Allowed", detail)
        answer.headers["Allow"] = allowed
        return answer
    return problem_response(Request(scope), 404, "not_found", "Not Found", "Not Found")
