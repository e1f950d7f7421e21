"""The routes of the embeddings wires. None is in the OpenAPI document: their shapes are those of other systems."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import RootModel, ValidationError
from pydantic_core import to_json

from app.api.admission import EMBEDDINGS, FOREIGN, take_seat
from app.api.dependencies import EmbeddingsDep, LibraryDep, SettingsDep, ThreadsDep, open_incoming_folder
from app.api.errors import ERROR_SHAPES, format_validation_errors
from app.api.sent_pictures import check_pixels
from app.api.strict_route import new_router
from app.api.wires.cohere import CohereRequest, CohereV1Request
from app.api.wires.dialect import SentPart, WireRequest, read_parts, shape_openai_error
from app.api.wires.infinity import ImageRequest, InfinityRequest
from app.api.wires.jina import JinaRequest
from app.api.wires.nvidia import NvidiaRequest
from app.api.wires.openai import OpenAIRequest
from app.api.wires.vllm import VllmRequest
from app.api.wires.voyage import VoyageRequest, VoyageTextRequest
from app.core.errors import Validation
from app.service.embeddings import EmbeddingPart

router = new_router("", "wires", FOREIGN)

FEW_TEXTS = 8  # of a request that does not wait for others of its caller
# The dialects that an address speaks, in the order in which they are asked whether a body is theirs.
COMMON: tuple[type[WireRequest], ...] = (
    VllmRequest,
    NvidiaRequest,
    JinaRequest,
    VoyageTextRequest,
    InfinityRequest,
    OpenAIRequest,
)
ROUTES: dict[str, tuple[type[WireRequest], ...]] = {
    "/v1/embeddings": COMMON,
    "/embeddings": COMMON,
    "/embeddings_image": (ImageRequest,),
    "/v1/multimodalembeddings": (VoyageRequest,),
    "/v2/embed": (CohereRequest,),
    "/v1/embed": (CohereV1Request,),
}


class Body(RootModel[dict[str, Any]]):
    """An object, which the model of its dialect validates."""


class Wire:
    """Answers one request."""

    def __init__(
        self,
        request: Request,
        embeddings: EmbeddingsDep,
        library: LibraryDep,
        settings: SettingsDep,
        threads: ThreadsDep,
    ) -> None:
        self._request = request
        self._embeddings = embeddings
        self._library = library
        self._settings = settings
        self._threads = threads

    async def answer(self, dialects: Sequence[type[WireRequest]], body: dict[str, Any]) -> Response:
        """The vectors of the inputs, or an error, in the shape of the body's dialect."""
        dialect = next(one for one in dialects if one.claims(body))
        self._request.scope["error_shape"] = dialect.shape_error
        asked = validate_body(dialect, body)
        self._embeddings.require_model(asked.model)
        sent = asked.list_inputs()
        has_pictures = any(part.picture is not None for parts in sent for part in parts)
        folders = open_incoming_folder(self._library, self._threads) if has_pictures else nullcontext(Path())
        async with folders as folder:
            inputs = await self._read(sent, folder) if has_pictures else read_parts(sent, folder)
            async with take_seat(self._request, EMBEDDINGS if has_pictures or len(sent) > FEW_TEXTS else None):
                content = await self._threads.queries.run(self._embed, asked, inputs)
        return Response(content, media_type="application/json")

    async def _read(self, sent: Sequence[Sequence[SentPart]], folder: Path) -> list[list[EmbeddingPart]]:
        """The inputs, with pictures and what their URLs lead to in files of `folder`."""
        inputs = await self._threads.writes.run(self._write_parts, sent, folder)
        if any(part.url is not None for parts in inputs for part in parts):
            inputs = await self._threads.outside.run(self._embeddings.fetch, inputs, folder)
            await self._threads.writes.run(self._check_pixels, inputs)
        return inputs

    def _write_parts(self, sent: Sequence[Sequence[SentPart]], folder: Path) -> list[list[EmbeddingPart]]:
        inputs = read_parts(sent, folder)
        self._check_pixels(inputs)
        return inputs

    def _check_pixels(self, inputs: Sequence[Sequence[EmbeddingPart]]) -> None:
        paths = [part.picture for parts in inputs for part in parts if part.picture is not None]
        check_pixels(paths, self._settings)

    def _embed(self, asked: WireRequest, inputs: Sequence[Sequence[EmbeddingPart]]) -> bytes:
        """The body of the answer. Made here, in a thread: a million numbers would block the event loop."""
        made = self._embeddings.embed(inputs, asked.width(), truncate=asked.truncates())
        return to_json(asked.write_answer(made))


def validate_body(dialect: type[WireRequest], body: dict[str, Any]) -> WireRequest:
    """Raises Validation."""
    try:
        return dialect.model_validate(body)
    except ValidationError as error:
        raise Validation(format_validation_errors(error.errors())) from None


def shape_any_error(status: int, code: str, detail: str) -> tuple[int, dict[str, Any]]:
    """An error whose dialect is not known yet: every client finds its field."""
    status, body = shape_openai_error(status, code, detail)
    return status, {**body, "detail": detail, "message": detail}


def add_route(path: str, dialects: Sequence[type[WireRequest]]) -> None:
    async def embed(body: Body, wire: Annotated[Wire, Depends()]) -> Response:
        return await wire.answer(dialects, body.root)

    embed.__doc__ = f"Embed what clients of {', '.join(one.CALLED for one in dialects)} send."
    router.post(path, include_in_schema=False)(embed)
    ERROR_SHAPES[path] = dialects[0].shape_error if len(dialects) == 1 else shape_any_error


for _path, _dialects in ROUTES.items():
    add_route(_path, _dialects)
