"""The application: one module of `routes` for each resource, put together by `create_app`."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response, Security
from fastapi.responses import HTMLResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.types import ASGIApp

from app import __version__
from app.api import errors
from app.api.admission import Admission
from app.api.auth import AccessControl, verify_route
from app.api.concurrency import ThreadPools
from app.api.files import PageFiles, is_not_modified, not_modified
from app.api.job_events import JobEvents
from app.api.metrics import ServerMetrics
from app.api.middleware import CrossOriginMiddleware, HeadMiddleware, RequestMiddleware, allow_media_from
from app.api.openapi import complete_document
from app.api.routes import (
    camera_data,
    collections,
    demo,
    duplicates,
    enrichments,
    evaluations,
    explain,
    heads,
    images,
    ingest,
    jobs,
    labels,
    mcp,
    questions,
    reembed,
    saved_searches,
    search,
    session,
    system,
    texts,
    videos,
    watches,
)
from app.api.wires import clip_retrieval, embeddings, model_list, weaviate
from app.core.picture_formats import list_accepted_types
from app.service.service import Service

WEB = Path(__file__).parent.parent / "web"
TAGS = {  # in the order of /docs
    "search": "By words, by pictures, and what fits a picture.",
    "upload": "Pictures one by one, in bulk, and from places on the server.",
    "images": "The pictures that are stored.",
    "videos": "The videos whose frames are pictures.",
    "duplicates": "Pictures that are the same, or nearly.",
    "camera-data": "When, where and with what stored pictures were taken.",
    "collections": "Pictures and texts that stay apart.",
    "texts": "Texts that a search finds.",
    "jobs": "What became of uploads.",
    "system": "Health, counts, models and sessions.",
}
KEY_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False)


class Application(FastAPI):
    """FastAPI inside RequestMiddleware, so that the answers of FastAPI itself (500) have our headers, too."""

    def build_middleware_stack(self) -> ASGIApp:
        access: AccessControl = self.state.access
        app = HeadMiddleware(RequestMiddleware(super().build_middleware_stack(), self.state.metrics, access))
        return CrossOriginMiddleware(app, access) if access.origins else app

    def openapi(self) -> dict[str, Any]:
        """The document, made once. FastAPI keeps what its own method returns."""
        if self.openapi_schema is None:
            complete_document(super().openapi(), self.state.service.settings, errors.Problem.model_json_schema())
        return super().openapi()


def create_app(service: Service, *, loopback_only: bool = True) -> FastAPI:
    """The application of one service, which the caller opens and closes; `loopback_only` when no other machine
    reaches it."""
    settings = service.settings
    app = Application(
        title="Sightline",
        version=__version__,
        summary="Find pictures by words or by a picture, and words for a picture.",
        responses=errors.RESPONSES,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # AccessControl knows every address that there is
        dependencies=[Depends(verify_route), Security(HTTPBearer(auto_error=False)), Security(KEY_HEADER)],
        servers=[{"url": "/", "description": "This server"}],  # /docs shows its own address instead
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    app.state.service = service
    app.state.threads = ThreadPools(settings.max_concurrent_queries)
    app.state.admission = Admission(settings)
    app.state.job_events = JobEvents(service.read_job, app.state.threads, settings.max_event_streams)
    app.state.checks = system.HealthChecks(service)
    app.state.metrics = ServerMetrics(service, app.state.threads)
    app.state.access = AccessControl(
        service.api_keys, settings, loopback_only=loopback_only, membership=service.membership
    )
    add_routes(app)
    origin = service.library.blobs.find_origin() if settings.media_reads == "presigned" else None
    add_page(app, settings.accepted_formats, origin)
    errors.add_error_handlers(app)
    return app


def add_routes(app: FastAPI) -> None:
    """FastAPI tries them in this order at every request, so the most frequent come first."""
    for router in (
        system.router,
        system.probes,
        search.router,
        jobs.bulk,
        ingest.router,
        images.uploads,
        videos.uploads,
    ):
        app.include_router(router)
    for router in (search.pictures, search.queries, ingest.sources, camera_data.router):
        app.include_router(router)
    for module in (images, jobs, videos, watches, questions, explain, saved_searches, evaluations, demo, duplicates):
        app.include_router(module.router)
    for module in (enrichments, texts, collections, labels, heads, reembed, session, mcp):
        app.include_router(module.router)
    for router in (embeddings.router, model_list.router, model_list.probes, weaviate.router, weaviate.probes):
        app.include_router(router)
    for router in (clip_retrieval.pictures, clip_retrieval.router):
        app.include_router(router)


def add_page(app: FastAPI, formats: Collection[str], bucket_origin: str | None = None) -> None:
    """The page at `/` and the interactive docs at `/docs`; both load files of this server only, but for pictures and
    videos to whose URLs in a bucket the server redirects."""
    policy = allow_media_from(bucket_origin) if bucket_origin else None
    app.get("/", include_in_schema=False)(make_html_route(render_page(formats).encode(), policy))
    docs = (WEB / "docs.html").read_text("utf-8")
    app.get("/docs", include_in_schema=False)(make_html_route(docs.encode()))

    app.mount("/web", PageFiles(directory=WEB), name="web")


def make_html_route(html: bytes, policy: str | None = None) -> Callable[[Request], Awaitable[Response]]:
    """A route that answers with this page, or with 304 where the client has it; `policy` is for its own answers."""
    compressed = gzip.compress(html)
    digest = hashlib.sha256(html).hexdigest()[:32]

    async def send_html(request: Request) -> Response:
        gzipped = "gzip" in request.headers.get("Accept-Encoding", "")
        headers = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding", "ETag": f'"{digest}{"-gzip" * gzipped}"'}
        if gzipped:
            headers["Content-Encoding"] = "gzip"
        if policy is not None:
            headers["Content-Security-Policy"] = policy
        answer = HTMLResponse(compressed if gzipped else html, headers=headers)
        return not_modified(answer) if is_not_modified(request.headers, headers["ETag"]) else answer

    return send_html


def render_page(formats: Collection[str]) -> str:
    """Return index.html with a preload line for every module, so that a browser fetches all modules at once, and with
    the formats of pictures that file buttons offer."""
    modules = [path.relative_to(WEB).as_posix() for path in sorted(WEB.glob("*/*.js")) if path.parent.name != "docs"]
    lines = "\n".join(f'<link rel="modulepreload" href="web/{module}">' for module in modules)
    html = (WEB / "index.html").read_text("utf-8").replace("<!-- modulepreload -->", lines)
    return html.replace("<!-- formats -->", list_accepted_types(formats))
