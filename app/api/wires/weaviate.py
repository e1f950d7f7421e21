"""The calls of the container that Weaviate's module `multi2vec-clip` asks for vectors.

Weaviate appends their paths to the address that it was given, which may have a path of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.api.admission import BATCHES, PICTURES, BodyLimit, take_seat
from app.api.dependencies import LibraryDep, SearchDep, SettingsDep, ThreadsDep, open_incoming_folder
from app.api.routes.search import FEW_PARTS, check_pixels, write_picture
from app.api.schemas.fields import MAX_PICTURE_CHARS, UnicodeText, example
from app.api.strict_route import ProbeRoute, new_router
from app.api.wires.route import WireModel, new_wire_router
from app.core.errors import ModelUnavailable, SightlineError
from app.encoder.protocol import Embeddings
from app.search.query import SearchQuery
from app.search.query_encoder import QueryPart
from app.service.search_service import SearchService

PREFIX = "/compat/weaviate"
router = new_wire_router(PREFIX, BodyLimit(lambda settings: settings.max_query_json_bytes, pictures=(b"images",)))
probes = new_router(PREFIX, "wires", route_class=ProbeRoute)

MAX_INPUTS = 2_048  # texts, and pictures, of one call

Picture = Annotated[str, Field(max_length=MAX_PICTURE_CHARS)]


class VectorizeIn(WireModel):
    """Texts and pictures. Null is an empty list: Go writes one so."""

    model_config = ConfigDict(json_schema_extra=example(texts=["a red car"], images=None))

    texts: Annotated[list[UnicodeText] | None, Field(max_length=MAX_INPUTS)] = None
    images: Annotated[list[Picture] | None, Field(max_length=MAX_INPUTS, description="Pictures in base64.")] = None


class VectorizeOut(BaseModel):
    """The vectors of the texts and of the pictures, of length 1, in the order in which these were sent."""

    textVectors: list[list[float]]
    imageVectors: list[list[float]]


@router.post("/vectorize", response_model=VectorizeOut)
async def vectorize(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    body: VectorizeIn,
) -> Response:
    """Get the vectors of texts and pictures, as Weaviate's module multi2vec-clip asks for them."""
    texts, images = body.texts or [], body.images or []
    # The model reads the beginning of a text alone, and a property of Weaviate may be long.
    parts = [QueryPart(text=text[: settings.max_text_chars]) for text in texts]
    async with open_incoming_folder(library, threads) if images else nullcontext() as folder:
        if folder is not None:
            paths = await threads.writes.run(write_pictures, images, folder)
            parts += [QueryPart(picture=path) for path in paths]
            await threads.writes.run(check_pixels, [SearchQuery(parts)], settings)
        async with take_seat(request, choose_seat(parts)):
            content = await threads.queries.run(write_vectors, search, parts)
    return Response(content, media_type="application/json")


@router.get("/meta")
async def describe_wire_model(search: SearchDep) -> dict[str, JsonValue]:
    """Describe the model, as Weaviate's module multi2vec-clip asks for it."""
    if (described := search.describe_model()) is None:
        raise ModelUnavailable("the model is still loading")
    return described


@probes.get("/.well-known/live", status_code=204)
async def check_wire_liveness() -> Response:
    """Say that the process answers."""
    return Response(status_code=204)


@probes.get("/.well-known/ready", status_code=204)
async def check_wire_readiness(search: SearchDep) -> Response:
    """Say whether vectors can be made."""
    if search.reasons_not_ready():
        raise ModelUnavailable("the model or the index is not ready yet")
    return Response(status_code=204)


def choose_seat(parts: Sequence[QueryPart]) -> str | None:
    """The seat that a call takes; None if it costs little."""
    if any(part.picture is not None for part in parts):
        return PICTURES
    return BATCHES if len(parts) > FEW_PARTS else None


def write_pictures(images: Sequence[str], folder: Path) -> list[Path]:
    """Write pictures in base64 to files. Raises Validation."""
    paths = [folder / str(n) for n in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        write_picture(image, path)
    return paths


def write_vectors(search: SearchService, parts: Sequence[QueryPart]) -> bytes:
    """The body of an answer. Raises Rejected for the first picture without a vector, Busy."""
    encoded = search.searcher.encode(parts)
    texts, images = [], []
    for part in parts:
        if part.picture is None:
            texts.append(encoded.texts[part.text or ""].tolist())
        else:
            images.append(require_vector(encoded.pictures[part.picture]).tolist())
    return json.dumps({"textVectors": texts, "imageVectors": images}).encode()


def require_vector(found: Embeddings | SightlineError) -> Embeddings:
    if isinstance(found, SightlineError):
        raise found
    return found
