"""Second passes: text that was read, captions that were written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.arrangement import is_none
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


class TextLineOut(BaseModel):
    """A line that was read in a picture."""

    text: str
    score: float = Field(description="0 to 1.")
    box: list[list[float]] = Field(
        description="Four corners, clockwise from where it begins, as shares of width and height."
    )


class EnrichmentResultOut(BaseModel):
    """What a second pass found, beside the fields of the picture: lines of text, or what wrote the caption."""

    lines: list[TextLineOut] | None = Field(None, exclude_if=is_none, description="Of `ocr`, in the order of reading.")
    model: str | None = Field(None, exclude_if=is_none, description="Of `caption`: what wrote it.")
    prompt: str | None = Field(
        None, exclude_if=is_none, description="Of `caption`: what it was asked, if it reads that."
    )


class EnrichmentOut(BaseModel):
    """How far a second pass is with a picture."""

    state: Literal["waiting", "running", "done", "failed"]
    detail: str | None = Field(description="Why it was given up.")
    result: EnrichmentResultOut | None = Field(description="What the pass found last.")


class EnrichmentsOut(BaseModel):
    """How far each second pass is with a picture; a kind that the picture never waited for is absent."""

    id: str
    enrichments: dict[EnrichmentKind, EnrichmentOut]
