"""`/mcp`: the tools of `app.api.mcp_tools` for assistants, by streamable HTTP, in both eras of the protocol.

No session is kept: each request is answered by itself, in JSON. Its tools call the API of this very application, with
the key of the request, so that scopes, collections, limits and refusals are those of the API.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message

from app.api.strict_route import new_router
from app.core.errors import NotFound, Validation

if TYPE_CHECKING:  # an extra, and what it needs alone: a start of the server must not wait for them
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context
    from sightline_client import AsyncClient

EXTRA = "this server has no MCP: install it with pip install 'sightline-search[mcp]'"
PASSED = ("authorization", "x-api-key", "cookie", "host")  # who calls, and how the caller names the server
MAX_MARKS = 20_000  # brackets, commas and colons of a message: it is parsed on the event loop

router = new_router("/mcp", "system")
BODY = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"jsonrpc": {}, "id": {}, "method": {}, "params": {}}}
            }
        }
    }
}


@router.post("", include_in_schema=False, openapi_extra=BODY)
async def answer_mcp(request: Request) -> Response:
    """Answer a message of MCP."""
    if find_spec("mcp") is None:
        raise NotFound(EXTRA)
    body = await request.body()
    if sum(map(body.count, (b"[", b"{", b",", b":"))) > MAX_MARKS:
        raise Validation("the message holds too much: a message of MCP may have 20,000 brackets, commas and colons")
    state = request.app.state
    if not hasattr(state, "mcp"):
        from app.api.mcp_tools import PictureServer

        state.mcp = PictureServer(open_client)
    answer: Response | None = None
    async with anyio.create_task_group() as group:

        async def stop_when_gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(stop_when_gone)
        answer = await answer_message(state.mcp, request, body)
        group.cancel_scope.cancel()
    if answer is None:
        raise ClientDisconnect
    answer.headers["Cache-Control"] = "private, no-store"
    return answer


async def answer_message(server: MCPServer, request: Request, body: bytes) -> Response:
    """What the SDK answers. Its manager lives as long as the request: cancelling that ends all of its work."""
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    manager = StreamableHTTPSessionManager(
        server._lowlevel_server, json_response=True, stateless=True, max_request_body_size=max(len(body), 1)
    )
    async with manager.run():
        return await collect_answer(manager.handle_request, request, body)


async def collect_answer(app: ASGIApp, request: Request, body: bytes) -> Response:
    """The answer of an application to a request whose body has been read."""
    is_sent = False
    start: Message = {}
    content = bytearray()

    async def receive() -> Message:
        nonlocal is_sent
        if is_sent:
            await anyio.sleep_forever()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        start.update(message if message["type"] == "http.response.start" else {})
        content.extend(message.get("body", b""))

    await app(request.scope, receive, send)
    answer = Response(bytes(content), start["status"])
    answer.raw_headers = list(start["headers"])
    return answer


@asynccontextmanager
async def open_client(context: Context[Any, Any]) -> AsyncIterator[AsyncClient]:
    """A client of this application, for the request that a message came with."""
    import httpx
    from sightline_client import AsyncClient

    from app.api.mcp_tools import PATIENCE_SECONDS

    request: Any = context.request_context.request
    headers = {name: request.headers[name] for name in PASSED if name in request.headers}
    headers["X-Request-Id"] = request.scope["request_id"]
    transport = httpx.ASGITransport(request.app, raise_app_exceptions=False, client=request.client or ("", 0))
    async with httpx.AsyncClient(transport=transport, headers=headers, trust_env=False) as http:
        yield AsyncClient("http://sightline", key="", patience=PATIENCE_SECONDS, http=http)
