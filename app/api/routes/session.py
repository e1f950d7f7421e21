"""Sessions: a browser gives its key once and gets a cookie that scripts cannot read, so that pictures load too."""

from __future__ import annotations

from typing import Annotated

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.admission import TINY_BODY
from app.api.auth import AccessControl, AccessDep
from app.api.dependencies import ThreadsDep
from app.api.errors import PROBLEM_CONTENT
from app.api.schemas.fields import RequestModel, example
from app.api.strict_route import new_router
from app.service.auth import SESSION_DAYS, Principal

router = new_router("/v1/session", "system", TINY_BODY)


class SessionIn(RequestModel):
    """The key of the person who begins a session."""

    model_config = ConfigDict(json_schema_extra=example(key="sl_..."))

    key: Annotated[str, Field(max_length=200, repr=False)]


class SessionOut(BaseModel):
    """Whether keys are needed here, and what the key of the request allows."""

    needed: bool
    name: str | None = None
    scope: str | None = None
    collections: list[str] | None = None
    expires_at: str | None = None


@router.get("")
async def get_session(request: Request, access: AccessDep) -> SessionOut:
    """Say whether a key is needed, and what the request's own key allows. `scope` is null without one."""
    return session_response(access, request.scope["principal"])


@router.post(
    "", response_model=SessionOut, responses={401: {"description": "The key is wrong.", "content": PROBLEM_CONTENT}}
)
async def open_session(
    request: Request, response: Response, access: AccessDep, threads: ThreadsDep, body: SessionIn
) -> SessionOut | Response:
    """Begin a session with a key. The cookie of the answer stands for it until the key or 30 days have ended."""
    if not access.needs_key():
        return session_response(access, None)
    principal = access.keys.authenticate(body.key.strip())
    if principal is None:
        return access.reject_wrong_key(request.scope)
    token = await threads.writes.run(access.keys.open_session, principal)
    response.set_cookie(
        access.cookie_name(request.scope),
        token,
        max_age=SESSION_DAYS * 24 * 3600,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return session_response(access, principal)


@router.delete("", status_code=204)
async def close_session(request: Request, response: Response, access: AccessDep, threads: ThreadsDep) -> None:
    """End the session of the request's cookie."""
    token = access.session_token(request.scope)
    if token and access.keys.authenticate_session(token):  # a stranger's token writes nothing
        await threads.writes.run(access.keys.close_session, token)
    response.delete_cookie(access.cookie_name(request.scope), path="/", httponly=True, samesite="strict")


def session_response(access: AccessControl, principal: Principal | None) -> SessionOut:
    if principal is None:
        return SessionOut(needed=access.needs_key())
    return SessionOut(
        needed=access.needs_key(),
        name=principal.name,
        scope=principal.scope.name.lower(),
        collections=None if principal.collections is None else sorted(principal.collections),
        expires_at=principal.expires_at,
    )
