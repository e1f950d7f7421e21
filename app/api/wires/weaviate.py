"""The calls of the container that Weaviate's module `multi2vec-clip` asks for vectors.

Weaviate appends their paths to the address that it was given, which may have a path of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from fastapi import Depends, Response
from pydantic import AfterValidator, Field

from app.api.admission import FOREIGN
from app.api.dependencies import SearchDep
from app.api.errors import ERROR_SHAPES
from app.api.schemas.fields import validate_unicode
from app.api.strict_route import ProbeRoute, new_router
from app.api.wires.dialect import MAX_INPUTS, SentPart, WirePicture, WireRequest
from app.api.wires.embeddings import Body, Wire, validate_body
from app.api.wires.loose import LooseJsonRoute, shape_as
from app.core.errors import ModelUnavailable
from app.service.embeddings import EmbeddingResult

PREFIX = "/compat/weaviate"
router = new_router(PREFIX, "wires", replace(FOREIGN, texts=b"texts"), LooseJsonRoute)
probes = new_router(PREFIX, "wires", route_class=ProbeRoute)

MAX_PROPERTY_CHARS = 1 << 20  # of a text: the model reads its beginning


def cut_property(text: str) -> str:
    return text[:MAX_PROPERTY_CHARS]


PropertyText = Annotated[str, AfterValidator(cut_property), AfterValidator(validate_unicode)]


class WeaviateRequest(WireRequest):
    """Null is an empty list: Go writes one so."""

    CALLED: ClassVar[str] = "Weaviate"

    texts: Annotated[list[PropertyText], Field(max_length=MAX_INPUTS)] | None = None
    images: Annotated[list[WirePicture], Field(max_length=MAX_INPUTS)] | None = None

    @staticmethod
    def shape_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
        return shape_as("error", status, code, detail)

    @classmethod
    def claims(cls, body: Mapping[str, Any]) -> bool:
        return True

    def list_inputs(self) -> list[list[SentPart]]:
        texts = [[SentPart(f"texts.{n}", text=text)] for n, text in enumerate(self.texts or ())]
        return texts + [[SentPart(f"images.{n}", picture=image)] for n, image in enumerate(self.images or ())]

    def write_answer(self, made: EmbeddingResult) -> dict[str, Any]:
        vectors, count = made.vectors.tolist(), len(self.texts or ())
        return {"textVectors": vectors[:count], "imageVectors": vectors[count:]}


@router.post("/vectorize", include_in_schema=False)
async def vectorize(body: Body, wire: Annotated[Wire, Depends()]) -> Response:
    """Embed the texts and the pictures of an object."""
    if not validate_body(WeaviateRequest, body.root).list_inputs():
        return Response(b'{"textVectors":[],"imageVectors":[]}', media_type="application/json")
    return await wire.answer((WeaviateRequest,), body.root)


@router.get("/meta", include_in_schema=False)
async def describe_wire_model(search: SearchDep) -> dict[str, Any]:
    """Describe the model."""
    if (described := search.describe_model()) is None:
        raise ModelUnavailable("the model is still loading")
    return described


@probes.get("/.well-known/live", status_code=204, include_in_schema=False)
async def check_wire_liveness() -> Response:
    """Say that the process answers."""
    return Response(status_code=204)


@probes.get("/.well-known/ready", status_code=204, include_in_schema=False)
async def check_wire_readiness(search: SearchDep) -> Response:
    """Say whether vectors can be made."""
    if search.loaded is None:
        raise ModelUnavailable("the model is still loading")
    return Response(status_code=204)


for _path in ("/vectorize", "/meta", "/.well-known/live", "/.well-known/ready"):
    ERROR_SHAPES[PREFIX + _path] = WeaviateRequest.shape_error
