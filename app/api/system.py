"""What operators ask: counts, models, health, metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.depends import CollectionDep, LanesDep, ServiceDep
from app.encoder.catalogue import LISTED

router = APIRouter(tags=["system"])


@router.get("/v1/stats")
async def stats(service: ServiceDep, lanes: LanesDep, collection: CollectionDep) -> dict[str, Any]:
    """Counts, the index and how far it is behind the log, the model and its space."""
    return await lanes.reads.run(service.stats, collection)


@router.get("/v1/models")
async def models(service: ServiceDep) -> dict[str, Any]:
    """The models known, and which one is loaded."""
    return {"models": [model.described() for model in LISTED], "loaded": service.model()}


@router.get("/livez")
async def livez() -> dict[str, str]:
    """200 as long as the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request, service: ServiceDep, response: Response) -> dict[str, Any]:
    """200 when searches can be answered, else 503 with the reasons, which a key is needed for where keys are.

    `faults` tell what fails in the background meanwhile, and is tried again by itself.
    """
    reasons, faults = service.ready(), service.faults()
    if (reasons or faults) and request.scope["grant"] is None and request.app.state.gate.keyed:
        hidden = ["the reasons are told to those with a key"]
        reasons, faults = reasons and hidden, faults and hidden
    if reasons:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return {"status": "not ready" if reasons else "ok", "reasons": reasons, "faults": faults}


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, lanes: LanesDep) -> Response:
    """Prometheus' text format."""
    text = await lanes.reads.run(request.app.state.metrics.text)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
