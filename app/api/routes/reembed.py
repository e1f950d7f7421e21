"""Changing the model of the data directory while it serves."""

from __future__ import annotations

from typing import Any

from app.api.dependencies import ServiceDep, ThreadsDep
from app.api.schemas.collections import ReembedIn
from app.api.schemas.jobs import JobOut
from app.api.strict_route import new_router
from app.core.types import DEFAULT_COLLECTION, Job
from app.service.reembed import KIND
from app.service.service import Service

router = new_router("/v1/reembed", "system")


@router.post("", status_code=202)
async def change_model(service: ServiceDep, threads: ThreadsDep, body: ReembedIn) -> JobOut:
    """Move all collections to another model. Searches go on in the old space until a job has filled the new one.

    Then both change places in one step. Cancelling the job before leaves everything as it was. With `dry_run` the job
    only loads the model and tells what the change would cost: disk, memory and time.
    """
    return JobOut.of(await threads.writes.run(begin_job, service, body))


def begin_job(service: Service, body: ReembedIn) -> Job:
    """Raises Validation for no model and while a job changes it, StorageFull and Overloaded where it does not fit."""
    plan = service.changer.plan(body.model, body.precision)
    if not body.dry_run:
        plan.check(service.settings)
    asked: dict[str, Any] = {"model": plan.model, "precision": body.precision, "dry_run": body.dry_run}
    return service.jobs.add_task(DEFAULT_COLLECTION, KIND, asked)
