"""What the wires share whose clients name no Content-Type, and read the sentence of an error in one member."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response

from app.api.strict_route import StrictRoute

JSON_TYPE = (b"content-type", b"application/json")


class LooseJsonRoute(StrictRoute):
    """Every body is JSON, whatever its Content-Type says: some clients send none, or text/plain."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_as_json(request: Request) -> Response:
            others = [one for one in request.scope["headers"] if one[0] != b"content-type"]
            request.scope["headers"] = [*others, JSON_TYPE]
            return await handle(Request(request.scope, request.receive))

        return handle_as_json


def shape_as(member: str, status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
    """An error whose sentence is in this member, beside our code; a value that is wrong is 400."""
    return (400 if status in (415, 422) else status), {member: detail, "code": code}
