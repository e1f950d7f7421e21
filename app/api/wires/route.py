"""Routes for clients of other services, which differ from our own calls in how strictly a request is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from app.api.admission import JSON, BodyLimit
from app.api.strict_route import StrictRoute, new_router

JSON_TYPE = (b"content-type", b"application/json")


class WireModel(BaseModel):
    """A JSON body of another service's client: fields that we do not know are left out, as that service does."""

    model_config = ConfigDict(extra="ignore")


class LooseJsonRoute(StrictRoute):
    """Every body is JSON, whatever its Content-Type says: some clients send none, or text/plain."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_as_json(request: Request) -> Response:
            others = [one for one in request.scope["headers"] if one[0] != b"content-type"]
            request.scope["headers"] = [*others, JSON_TYPE]
            return await handle(Request(request.scope, request.receive))

        return handle_as_json


def new_wire_router(prefix: str, limit: BodyLimit = JSON) -> APIRouter:
    return new_router(prefix, "wires", limit, LooseJsonRoute)
