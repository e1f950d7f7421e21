"""What clients of other systems ask before they embed: which models there are, and whether the server is alive."""

from __future__ import annotations

import time
from typing import Any

from app.api.dependencies import EmbeddingsDep, SearchDep
from app.api.strict_route import ProbeRoute, new_router
from app.service.embeddings import TEXTS_PER_PASS, EmbeddingService
from app.service.search_service import SearchService

router = new_router("", "wires")
probes = new_router("", "wires", route_class=ProbeRoute)


def list_served(embeddings: EmbeddingService, search: SearchService, owner: str) -> list[dict[str, Any]]:
    """The loaded model under each of its names, as OpenAI lists models; empty while it is loading."""
    if search.loaded is None:
        return []
    served = embeddings.list_names()
    return [{"id": name, "object": "model", "created": embeddings.since, "owned_by": owner} for name in served]


@router.get("/models", include_in_schema=False)
async def list_for_infinity(embeddings: EmbeddingsDep, search: SearchDep) -> dict[str, Any]:
    """List the loaded model as infinity does."""
    queued = search.loaded.batcher.queue_length if search.loaded else 0
    more = {
        "backend": search.loaded.encoder.runtime if search.loaded else "",
        "capabilities": ["embed", "image_embed"],
        "stats": {
            "queue_fraction": 0.0,
            "queue_absolute": queued,
            "results_pending": queued,
            "batch_size": TEXTS_PER_PASS,
        },
    }
    served = list_served(embeddings, search, "infinity")  # its client refuses another owner
    return {"object": "list", "data": [{**one, **more} for one in served]}


@probes.get("/health", include_in_schema=False)
async def check_health() -> dict[str, float]:
    """Say that the process answers, as infinity does."""
    return {"unix": float(int(time.time()))}
