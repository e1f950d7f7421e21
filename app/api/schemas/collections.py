"""Collections and their models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.openapi import COLLECTION_PATTERN
from app.api.schemas.fields import RequestModel, UnicodeText, example


class SpaceOut(BaseModel):
    """The embedding space of the vectors of a collection."""

    fingerprint: str
    model: str
    d: int


class CollectionOut(BaseModel):
    """A collection with its counts; `space` is null until its first vector, `head` is the head that it uses."""

    name: str
    description: str
    images: int
    texts: int
    space: SpaceOut | None
    head: str | None
    created_at: str


class CollectionsOut(BaseModel):
    """All collections by name."""

    collections: list[CollectionOut]


class ReembedIn(RequestModel):
    """The model that all collections are to move to."""

    model_config = ConfigDict(json_schema_extra=example(model="photos"))

    model: Annotated[
        UnicodeText, Field(min_length=1, max_length=500, description="A name of GET /v1/models, or any other form.")
    ]
    precision: Annotated[
        Literal["fp32", "bf16", "fp16", "int8"] | None, Field(description="Of the encoder; without it, as set.")
    ] = None
    dry_run: Annotated[bool, Field(description="Only tell what the change would cost, as the result of the job.")] = (
        False
    )


class CollectionIn(RequestModel):
    """A collection to create."""

    model_config = ConfigDict(json_schema_extra=example(name="birds", description="The birds of 2026"))

    name: Annotated[str, Field(pattern=COLLECTION_PATTERN)]
    description: UnicodeText = ""
