"""What Immich asks its machine learning server for, at the root of a listener of its own.

Immich can send neither a path before `/predict` nor a key. So this is a second application beside the main one: it
makes vectors of what it is sent, and tells nothing of what is stored. It refuses every other task and every other
model, after which Immich asks the next server of its list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic_core import to_json
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import errors
from app.api.admission import PICTURE, PICTURES, take_seat
from app.api.auth import AccessControl, verify_route
from app.api.dependencies import (
    EmbeddingsDep,
    LibraryDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    open_incoming_folder,
)
from app.api.middleware import HeadMiddleware, RequestMiddleware
from app.api.multipart import File, FormModel, describe_form, receive_form
from app.api.permissions import PermissionTable
from app.api.sent_pictures import check_pixels
from app.api.strict_route import ProbeRoute, new_router
from app.core.errors import BadRequest, NotFound, Validation
from app.core.settings import Settings
from app.core.strict_json import load_json
from app.core.types import KeyScope
from app.decode.headers import read_header
from app.service.data_dir import picture_limits
from app.service.embeddings import EmbeddingPart
from app.service.service import Service

SCOPES = {"GET /": KeyScope.OPEN, "GET /ping": KeyScope.OPEN, "POST /predict": KeyScope.OPEN}
TASK = "clip"
MAX_SHOWN = 60  # characters of a name that was sent
INVALID = 'entries must be JSON like {"clip": {"visual": {"modelName": "ViT-B-32__openai"}}}'

router = new_router("", "immich", PICTURE, ProbeRoute)

Kind = Literal["visual", "textual"]


class PredictForm(FormModel):
    """What Immich sends: the task as JSON, with a picture or words."""

    entries: str
    image: File | None = None
    text: str | None = None


class ImmichApplication(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        return HeadMiddleware(
            RequestMiddleware(super().build_middleware_stack(), self.state.metrics, self.state.access)
        )


class KeylessAccess(AccessControl):
    """Lets everybody in who names the server rightly, whatever keys there are."""

    def needs_key(self) -> bool:
        return False


class PortDispatch:
    """Gives the requests of one port to an application of its own, those of all others to the main one."""

    def __init__(self, main: ASGIApp, other: ASGIApp, port: int) -> None:
        self._main = main
        self._other = other
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._other if scope["server"][1] == self._port else self._main
        await app(scope, receive, send)


def create_immich_app(main: FastAPI, *, loopback_only: bool) -> FastAPI:
    """The application for Immich, with the service, the limits and the metrics of the main one."""
    service: Service = main.state.service
    settings = service.settings.model_copy(update={"host": service.settings.immich_host})
    app = ImmichApplication(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        dependencies=[Depends(verify_route)],
    )
    for name in ("service", "threads", "admission", "metrics"):
        setattr(app.state, name, getattr(main.state, name))
    app.state.access = KeylessAccess(
        service.api_keys, settings, loopback_only=loopback_only, permissions=PermissionTable(SCOPES)
    )
    app.include_router(router)
    errors.add_error_handlers(app)
    return app


@router.get("/")
async def describe_server() -> dict[str, str]:
    """Say what answers, as Immich's own server does."""
    return {"message": "Immich ML"}


@router.get("/ping")
async def ping() -> PlainTextResponse:
    """Say that the process answers."""
    return PlainTextResponse("pong")


@router.post("/predict", openapi_extra=describe_form(PredictForm))
async def predict(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    embeddings: EmbeddingsDep,
    settings: SettingsDep,
    threads: ThreadsDep,
) -> Response:
    """Make the vector of a picture or of words."""
    async with open_incoming_folder(library, threads) as folder:
        asked, _ = await receive_form(request, folder, PredictForm, max_files=1)
        kind, name = parse_entries(asked.entries)
        check_model(name, search.model.encoder.space.model)
        part = choose_part(asked, kind)
        answer: dict[str, Any] = {}
        if part.picture is not None:
            answer = await threads.writes.run(measure_picture, part.picture, settings)
        async with take_seat(request, None if part.picture is None else PICTURES):
            made = await threads.queries.run(embeddings.embed, [[part]])
    answer[TASK] = to_json(made.vectors[0].tolist()).decode()
    return Response(to_json(answer), media_type="application/json")


def choose_part(asked: PredictForm, kind: Kind) -> EmbeddingPart:
    """What is to be embedded. Raises BadRequest, Validation."""
    if asked.image is None and asked.text is None:
        raise BadRequest("either image or text must be there")
    if (asked.image is not None) != (kind == "visual"):
        raise Validation(f"{kind} does not go with what was sent: visual takes image, textual takes text")
    return (
        EmbeddingPart("text", text=asked.text)
        if asked.image is None
        else EmbeddingPart("image", picture=asked.image.path)
    )


def parse_entries(text: str) -> tuple[Kind, str]:
    """What is asked for, and of which model. Raises Validation, and 501 for a task that is none of ours."""
    entries = load_json(text, "entries")
    if not isinstance(entries, dict) or not entries:
        raise Validation(INVALID)
    if others := [name for name in entries if name != TASK]:
        raise HTTPException(501, f"this server makes vectors (clip) alone, and does no {show(others[0])}")
    kinds = entries[TASK]
    if not isinstance(kinds, dict) or len(kinds) != 1:
        raise Validation(INVALID)
    ((kind, options),) = kinds.items()
    if kind not in ("visual", "textual") or not isinstance(options, dict):
        raise Validation(INVALID)
    if not isinstance(name := options.get("modelName"), str):
        raise Validation(INVALID)
    return kind, name


def check_model(name: str, loaded: str) -> None:
    """Raise NotFound unless Immich's name is that of the loaded model: it could not use other vectors."""
    if parse_immich_name(name) != parse_model_name(loaded):
        raise NotFound(f"this server has the model {loaded}, not {show(name)}")


def parse_immich_name(name: str) -> tuple[str, str]:
    """Architecture and tag of `ViT-B-32__openai`, as `parse_model_name` has them; the tag is empty without one."""
    architecture, _, tag = name.rpartition("/")[2].partition("__")
    return normalise_name(architecture, tag)


def parse_model_name(name: str) -> tuple[str, str]:
    """Architecture and tag of `ViT-B-32/openai`, our name of a model; the tag is empty without one."""
    architecture, _, tag = name.partition("/")
    return normalise_name(architecture, tag)


def normalise_name(architecture: str, tag: str) -> tuple[str, str]:
    """Immich writes some names in another case, and open_clip's tags with `-` for `_`. The weights of OpenAI are for
    QuickGELU, whether the name says so or not."""
    architecture, tag = architecture.lower(), tag.lower().replace("-", "_")
    return architecture.removesuffix("-quickgelu") if tag == "openai" else architecture, tag


def measure_picture(path: Path, settings: Settings) -> dict[str, int]:
    """The size as the file says it: Immich's server does not turn pictures either. Raises Rejected, PayloadTooLarge."""
    check_pixels([path], settings)
    with open(path, "rb") as file:
        header = read_header(file, picture_limits(settings))
    return {"imageHeight": header.height, "imageWidth": header.width}


def show(name: str) -> str:
    """A name that a caller made up."""
    return repr(name[:MAX_SHOWN])
