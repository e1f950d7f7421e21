"""Sessions: a browser gives its key once and gets a cookie that scripts cannot read, so that pictures load too."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.auth import AccessControl
from app.api.dependencies import ThreadPoolsDep
from app.service.auth import SESSION_DAYS, Principal

router = APIRouter(prefix="/v1/session", tags=["system"])


class SessionIn(BaseModel):
    """The key of whoever begins a session."""

    key: Annotated[str, Field(max_length=200, repr=False)]


class SessionOut(BaseModel):
    """Whether keys are needed here, and what the one that came with the request allows."""

    needed: bool
    name: str | None = None
    scope: str | None = None
    collections: list[str] | None = None
    expires_at: str | None = None


@router.get("")
async def get_session(request: Request) -> SessionOut:
    """Whether a key is needed, and what the request's own allows; `scope` is null without one."""
    return session_response(get_access_control(request), request.scope["grant"])


@router.post("", response_model=SessionOut, responses={401: {"description": "The key is no good."}})
async def open_session(
    request: Request, response: Response, lanes: ThreadPoolsDep, body: SessionIn
) -> SessionOut | Response:
    """Begin a session with a key: the cookie of the answer stands for it until the key or 30 days have ended."""
    gate = get_access_control(request)
    if not gate.keyed:
        return session_response(gate, None)
    grant = gate.access.grant(body.key.strip())
    if grant is None:
        return gate.wrong(request.scope)
    token = await lanes.writes.run(gate.access.open_session, grant)
    response.set_cookie(
        gate.cookie(request.scope),
        token,
        max_age=SESSION_DAYS * 24 * 3600,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return session_response(gate, grant)


@router.delete("", status_code=204)
async def close_session(request: Request, response: Response, lanes: ThreadPoolsDep) -> None:
    """End the session of the request's cookie."""
    gate = get_access_control(request)
    if token := gate.session(request.scope):
        await lanes.writes.run(gate.access.close_session, token)
    response.delete_cookie(gate.cookie(request.scope), path="/", httponly=True, samesite="strict")


def get_access_control(request: Request) -> AccessControl:
    """The gate that the request came in by."""
    gate = request.app.state.gate
    assert isinstance(gate, AccessControl)
    return gate


def session_response(gate: AccessControl, grant: Principal | None) -> SessionOut:
    """What a caller is told of itself."""
    if grant is None:
        return SessionOut(needed=gate.keyed)
    return SessionOut(
        needed=gate.keyed,
        name=grant.name,
        scope=grant.right.name.lower(),
        collections=None if grant.collections is None else sorted(grant.collections),
        expires_at=grant.expires_at,
    )
