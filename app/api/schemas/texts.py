"""Stored texts."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas.fields import CollectionName, Id, Metadata, QueryText, RequestModel, example
from app.api.schemas.images import WarningOut
from app.core.types import Text


class TextOut(BaseModel):
    """A text that searches find, like pictures."""

    id: str
    text: str
    metadata: dict[str, Any]
    created_at: str
    truncated: bool | None = Field(
        description="Whether the model read only its beginning; null of a text that an older version stored."
    )

    @classmethod
    def of(cls, text: Text) -> TextOut:
        return cls(
            id=text.id,
            text=text.text,
            metadata=dict(text.metadata),
            created_at=text.created_at,
            truncated=text.truncated,
        )


class TextIn(RequestModel):
    """A text to store; without an id, the same words always get the same id."""

    id: Id | None = None
    text: Annotated[QueryText, Field(min_length=1)]
    metadata: Metadata = Field(default_factory=dict)


class TextsIn(RequestModel):
    """Up to 1,000 texts."""

    model_config = ConfigDict(json_schema_extra=example(texts=[{"text": "a red car"}, {"text": "a green frog"}]))

    texts: Annotated[list[TextIn], Field(min_length=1, max_length=1000, fail_fast=True)]
    collection: CollectionName = None

    @model_validator(mode="after")
    def _refuse_repeated_ids(self) -> Self:
        counts = Counter(one.id for one in self.texts if one.id is not None)
        if twice := [id for id, count in counts.items() if count > 1]:
            raise ValueError(f"texts: the id {twice[0]!r} is there twice, expected once")
        return self


class TextsOut(BaseModel):
    """The stored texts, in the order they were sent."""

    texts: list[TextOut]
    warnings: list[WarningOut] = Field(description="What is odd about the texts that were sent; empty for most.")
