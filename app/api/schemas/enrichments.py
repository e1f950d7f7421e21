"""Second passes: text that was read, captions that were written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.fields import example, one_of
from app.api.schemas.images import SelectionIn
from app.core.types import EnrichmentKind


class EnrichIn(SelectionIn):
    """Which pictures a second pass is to take again: those that match `filter`, those of `ids`, or `all`."""

    model_config = ConfigDict(
        json_schema_extra={**example(kind="ocr", ids=["IMG_0815"]), **one_of("filter", "ids", all={"const": True})}
    )

    kind: Annotated[EnrichmentKind, Field(description="Reading text (`ocr`), or making captions (`caption`).")]
    failed_only: bool = Field(False, description="Only those of them that were given up.")


class EnrichmentOut(BaseModel):
    """How far a second pass is with a picture."""

    state: Literal["waiting", "running", "done", "failed"]
    detail: str | None = Field(description="Why it was given up.")
    result: dict[str, Any] | None = Field(description="What the pass found last, beside the fields of the picture.")


class EnrichmentsOut(BaseModel):
    """How far each second pass is with a picture; a kind that the picture never waited for is absent."""

    id: str
    enrichments: dict[EnrichmentKind, EnrichmentOut]
