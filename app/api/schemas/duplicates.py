"""Groups of duplicates."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.api.schemas.images import ImageOut, WarningOut
from app.search.duplicates import DuplicateKind


class DuplicateOut(BaseModel):
    """A picture of a group, and how far it is from the first one of the group."""

    id: str
    distance: float = Field(description="Bits of 64 that differ (exact), or 1 - cosine (near); 0 of the first.")
    image: ImageOut


class DuplicateGroupOut(BaseModel):
    """Pictures that are alike. The first is the best: it has the most pixels, then bytes, then is the oldest."""

    images: list[DuplicateOut]
    size: int = Field(description="How many pictures the group has; `images` holds the first 100.")


class DuplicateScanOut(BaseModel):
    """How far the collection is searched for duplicates."""

    finished_at: str | None = Field(description="When a search last ended; null if none has.")
    compared: int = Field(description="Pictures that are compared with each other.")
    waiting: int = Field(description="Ready pictures that no search has compared yet.")
    job_id: str | None = Field(description="The job that searches the collection now.")


class DuplicatesOut(BaseModel):
    """Groups of duplicates, those whose best picture is the newest first."""

    collection: str
    kind: DuplicateKind
    threshold: float
    groups: list[DuplicateGroupOut]
    total: int = Field(description="How many groups there are.")
    extra: int = Field(description="How many pictures the groups have beside the best ones.")
    next_cursor: str | None
    scan: DuplicateScanOut
    warnings: list[WarningOut] = Field(description="Says if no search has been made, or pictures came after it.")
