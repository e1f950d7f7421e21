"""Jobs and their items."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.api.schemas.images import ErrorOut, WarningOut
from app.core.types import Job, JobItem


class JobOut(BaseModel):
    """An import of many pictures, or another task. At the end of an import `done + failed + duplicates == total`."""

    id: str
    collection: str
    kind: str
    state: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
    priority: Literal["high", "normal", "low"]
    total: int
    done: int
    failed: int
    duplicates: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    rate: float | None = Field(description="Items a second since the start.")
    eta_s: float | None = Field(description="Seconds to the end at this rate.")
    left_out: dict[str, int] = Field(
        default_factory=dict, description="How many files of other kinds were left out, by their suffix."
    )
    warnings: list[WarningOut] = Field(default_factory=list, description="Places that were left out, by name.")
    warned: int = Field(0, description="How many items have warnings.")
    name: str | None = Field(None, description="The archive, folder or bucket; null for loose files.")
    is_task: bool = Field(False, description="Whether it is no import, but a task of the server.")
    result: dict[str, Any] | None = Field(
        None,
        description="What came of a task that is no import. Its fields are those of the job's `kind`, which may gain"
        " more; the reference has them.",
    )
    error: ErrorOut | None = Field(None, description="Why a task failed.")

    @classmethod
    def of(cls, job: Job) -> JobOut:
        return cls(
            id=job.id,
            collection=job.collection,
            kind=job.kind,
            state=job.state.value,
            priority=job.priority.value,
            total=job.total,
            done=job.done,
            failed=job.failed,
            duplicates=job.duplicates,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            rate=job.rate,
            eta_s=job.eta_s,
            left_out=dict(job.left_out),
            warnings=[WarningOut.of(one) for one in job.warnings],
            warned=job.warned,
            name=job.name,
            is_task=job.is_task,
            result=None if job.result is None else dict(job.result),
            error=ErrorOut.of(job.error),
        )


class JobsOut(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobOut]


class ItemOut(BaseModel):
    """The result of one item of a job."""

    name: str
    status: Literal["queued", "done", "failed", "duplicate"]
    image_id: str | None
    error: ErrorOut | None
    warnings: list[WarningOut] = Field(default_factory=list, description="What was cut, left out or filled.")

    @classmethod
    def of(cls, item: JobItem) -> ItemOut:
        return cls(
            name=item.name,
            status=item.status.value,
            image_id=item.image_id,
            error=ErrorOut.of(item.error),
            warnings=[WarningOut.of(one) for one in item.warnings],
        )


class ItemPage(BaseModel):
    """Items of a job, in their order."""

    items: list[ItemOut]
    next_cursor: str | None
