"""What operators ask: counts, models, health, metrics."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response

from app.api.auth import AccessDep
from app.api.concurrency import ThreadPools
from app.api.dependencies import (
    ALLOWED_COLLECTIONS,
    CollectionDep,
    EmbeddingsDep,
    SearchDep,
    ServiceDep,
    ThreadsDep,
)
from app.api.openapi import text_answer
from app.api.schemas.system import LivenessOut, ModelsOut, ReadinessOut, StatsOut
from app.api.strict_route import ProbeRoute, new_router
from app.api.wires.model_list import list_served
from app.encoder.catalogue import CATALOGUE
from app.service.health import HealthCheck
from app.service.service import Service

router = new_router("", "system")
probes = new_router("", "system", route_class=ProbeRoute)

KEPT_SECONDS = 1.0  # of the checks that a caller without a key gets: they read the disk and the database


class HealthChecks:
    """The health checks of a service, which callers who ask at the same time share."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._found: Sequence[HealthCheck] = ()
        self._read_at = -math.inf
        self._reading = asyncio.Lock()

    async def read(self, threads: ThreadPools, age: float) -> Sequence[HealthCheck]:
        """The checks, at most so many seconds old."""
        asked_at = time.monotonic()
        async with self._reading:
            if self._read_at < asked_at - age:
                began = time.monotonic()
                self._found = await threads.checks.run(self._service.checks)
                self._read_at = began
            return self._found


@router.get("/v1/stats", responses={200: {"model": StatsOut}})
async def get_stats(service: ServiceDep, threads: ThreadsDep, collection: CollectionDep) -> dict[str, Any]:
    """Get counts, the index and how far it is behind the log, the model and its space.

    `open_indexes`, `spaces` and `cluster` concern all collections, so that a key that is bound to some does not get
    them.
    """
    stats = await threads.reads.run(service.stats, collection)
    if ALLOWED_COLLECTIONS.get() is not None:
        del stats["open_indexes"], stats["spaces"], stats["cluster"]
    return stats


@router.get("/v1/models", responses={200: {"model": ModelsOut}})
async def list_models(search: SearchDep, embeddings: EmbeddingsDep) -> dict[str, Any]:
    """List the models that are known, and say which one is loaded; `data` lists that one as OpenAI does."""
    served = list_served(embeddings, search, "sightline")
    known = {"models": [model.to_json() for model in CATALOGUE], "loaded": search.describe_model()}
    return {"object": "list", "data": served, **known}


@probes.get("/livez", responses={200: {"model": LivenessOut}})
async def check_liveness() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@probes.get("/readyz", responses={200: {"model": ReadinessOut}, 503: {"model": ReadinessOut}})
async def check_readiness(
    request: Request, service: ServiceDep, access: AccessDep, threads: ThreadsDep, response: Response
) -> dict[str, Any]:
    """Say whether searches can be answered. If not, 503 with the reasons.

    `faults` are failures in the background, which the server tries again by itself. Where keys are needed, a caller
    without one gets neither reasons nor faults nor checks, nor does one whose key is bound to collections: they tell of
    all.
    """
    reasons, faults = service.search.reasons_not_ready(), service.faults()
    is_stranger = request.scope["principal"] is None and access.needs_key()
    is_hidden = is_stranger or ALLOWED_COLLECTIONS.get() is not None
    checks = await request.app.state.checks.read(threads, KEPT_SECONDS if is_stranger else 0.0)
    status = "not ready" if reasons else "ok" if all(check.ok for check in checks) else "degraded"
    if is_hidden:
        hidden = ["a caller with a key for all collections gets the reasons"]
        reasons, faults, checks = reasons and hidden, faults and hidden, []
    if reasons:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    shown = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]
    return {"status": status, "reasons": reasons, "faults": faults, "checks": shown}


@probes.get("/metrics", response_class=Response, responses={200: text_answer("text/plain")})
async def get_metrics(request: Request, threads: ThreadsDep) -> Response:
    """Get the metrics in Prometheus' text format."""
    text = await threads.checks.run(request.app.state.metrics.render)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
