"""What operators ask: counts, models, health, metrics."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from app.api.auth import AccessDep
from app.api.dependencies import CollectionDep, SearchDep, ServiceDep, ThreadsDep
from app.api.strict_route import ProbeRoute, new_router
from app.encoder.catalogue import CATALOGUE

router = new_router("", "system")
probes = new_router("", "system", ProbeRoute)


@router.get("/v1/stats")
async def get_stats(service: ServiceDep, threads: ThreadsDep, collection: CollectionDep) -> dict[str, Any]:
    """Get counts, the index and how far it is behind the log, the model and its space."""
    return await threads.reads.run(service.stats, collection)


@router.get("/v1/models")
async def list_models(search: SearchDep) -> dict[str, Any]:
    """List the models that are known, and say which one is loaded."""
    return {"models": [model.to_json() for model in CATALOGUE], "loaded": search.describe_model()}


@probes.get("/livez")
async def check_liveness() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@probes.get("/readyz")
async def check_readiness(
    request: Request, service: ServiceDep, access: AccessDep, threads: ThreadsDep, response: Response
) -> dict[str, Any]:
    """Say whether searches can be answered. If not, 503 with the reasons.

    `faults` are failures in the background, which the server tries again by itself. Where keys are needed, a caller
    without one gets neither reasons nor faults nor checks.
    """
    reasons, faults = service.search.reasons_not_ready(), service.faults()
    checks = await threads.checks.run(service.checks)
    status = "not ready" if reasons else "ok" if all(check.ok for check in checks) else "degraded"
    if request.scope["principal"] is None and access.needs_key():
        hidden = ["a caller with a key gets the reasons"]
        reasons, faults, checks = reasons and hidden, faults and hidden, []
    if reasons:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    shown = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]
    return {"status": status, "reasons": reasons, "faults": faults, "checks": shown}


@probes.get("/metrics", response_class=Response)
async def get_metrics(request: Request, threads: ThreadsDep) -> Response:
    """Get the metrics in Prometheus' text format."""
    text = await threads.checks.run(request.app.state.metrics.render)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
