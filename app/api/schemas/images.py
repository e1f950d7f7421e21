"""Pictures: what is sent and answered, and how they are chosen and deleted."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from app.api.arrangement import FACETS_FIELD, FacetsOut, is_none
from app.api.multipart import File, FormModel
from app.api.openapi import describe_field
from app.api.schemas.fields import (
    FILTER_WARNINGS_FIELD,
    MAX_ENTRIES,
    MAX_FILES,
    MOST_TAGS,
    REPLACE,
    WAIT,
    Caption,
    CollectionName,
    FormCounts,
    FormMetadata,
    FormTag,
    Id,
    Metadata,
    RequestModel,
    Tags,
    example,
    one_of,
)
from app.core.clock import format_wall_time
from app.core.errors import Validation
from app.core.types import AnswerWarning, Image, ItemError
from app.storage.filters.parser import FilterNode

T = TypeVar("T")


class ErrorOut(BaseModel):
    """Why an item failed."""

    code: str
    detail: str

    @classmethod
    def of(cls, error: ItemError | None) -> ErrorOut | None:
        return cls(code=error.code, detail=error.detail) if error else None


class WarningOut(BaseModel):
    """What a call did, or left out, that its client might not expect."""

    code: str = Field(description="A stable code.")
    detail: str = Field(description="A sentence for a person.")
    field: str | None = Field(None, description="The parameter or field that the warning is about.")

    @classmethod
    def of(cls, warning: AnswerWarning) -> WarningOut:
        return cls(code=warning.code, detail=warning.detail, field=warning.field)


class AutoTagOut(BaseModel):
    """A tag that a label of the collection gave to a picture."""

    tag: str
    probability: float


class LocationOut(BaseModel):
    """Where a picture was taken, in degrees (WGS 84)."""

    latitude: float
    longitude: float


class ImageOut(BaseModel):
    """A picture. `ready` means: a search sent after this answer finds it."""

    id: str
    collection: str
    sha256: str
    status: Literal["queued", "processing", "ready", "failed"]
    error: ErrorOut | None
    width: int | None
    height: int | None
    format: str
    bytes: int
    animated: bool
    caption: str | None
    tags: list[str]
    metadata: dict[str, Any]
    source: str | None
    created_at: str
    job_id: str | None
    taken_at: str | None = Field(
        None, description="When it was taken, by the camera's clock; with its offset from UTC if the camera tells it."
    )
    camera: str | None = None
    lens: str | None = None
    location: LocationOut | None = None
    ocr_text: str | None = Field(None, description="The text that was read in the picture.")
    generated_caption: str | None = Field(None, description="What a model wrote about the picture.")
    video_id: str | None = Field(None, description="The video that it is a frame of.")
    t_ms: int | None = Field(None, description="Where the frame is in its video, in milliseconds.")
    auto_tags: list[AutoTagOut] = Field(description="What the labels of its collection say of it, the likeliest first.")
    rejected_tags: list[str] = Field(description="Auto-tags that a person took off, for good.")
    duplicate: bool = False
    vector: list[float] | None = Field(
        None, exclude_if=is_none, description="Its vector, where a list was asked for vectors and it has one."
    )

    @classmethod
    def of(cls, image: Image, *, duplicate: bool = False, vector: list[float] | None = None) -> ImageOut:
        return cls.model_validate({**describe_image(image), "duplicate": duplicate, "vector": vector})


def describe_image(image: Image) -> dict[str, Any]:
    """The fields of `ImageOut`. Hits are made of them without a model: what the database holds needs no validation."""
    is_somewhere = image.latitude is not None and image.longitude is not None
    return {
        "id": image.id,
        "collection": image.collection,
        "sha256": image.sha256,
        "status": image.status.value,
        "error": None if image.error is None else {"code": image.error.code, "detail": image.error.detail},
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "bytes": image.bytes,
        "animated": image.animated,
        "caption": image.caption,
        "tags": image.tags,
        "metadata": image.metadata,
        "source": image.source,
        "created_at": image.created_at,
        "job_id": image.job_id,
        "taken_at": format_wall_time(image.taken_at, image.taken_offset) if image.taken_at else None,
        "camera": image.camera,
        "lens": image.lens,
        "location": {"latitude": image.latitude, "longitude": image.longitude} if is_somewhere else None,
        "ocr_text": image.ocr_text,
        "generated_caption": image.generated_caption,
        "video_id": image.video_id,
        "t_ms": image.t_ms,
        "auto_tags": [{"tag": tag, "probability": share} for tag, share in image.auto_tags.items()],
        "rejected_tags": image.rejected_tags,
        "duplicate": False,
    }


class UploadOut(ImageOut):
    """A picture that was sent. `filled` and `kept` are there when its bytes were stored before."""

    filled: list[str] = Field([], exclude_if=operator.not_, description="What the stored picture lacked, and has now.")
    kept: list[str] = Field([], exclude_if=operator.not_, description="What was sent, and did not replace what it has.")
    warnings: list[WarningOut] = Field([], exclude_if=operator.not_)


class UploadForm(FormModel):
    """A picture with its attributes."""

    file: File
    id: str | None = Field(None, pattern="^[A-Za-z0-9_-]{1,64}$", description="Its id; without one it gets one.")
    caption: Annotated[Caption | None, Field(examples=["a red car"])] = None
    tags: Annotated[
        list[FormTag],
        MOST_TAGS,
        Field(max_length=MAX_ENTRIES, description="A field for each tag.", examples=[["car", "red"]]),
    ] = Field(default_factory=list)
    metadata: FormMetadata = Field(default_factory=dict)
    collection: CollectionName = None
    wait: Annotated[float | None, Field(ge=0, le=60, description=WAIT, examples=[10])] = None
    replace: Annotated[bool | None, Field(description=REPLACE, examples=[False])] = None


class BulkForm(FormModel):
    """Pictures and archives."""

    files: Annotated[
        list[File],
        describe_field(minItems=1),
        Field(max_length=MAX_FILES, description="Pictures, and archives of pictures."),
    ] = Field(default_factory=list)
    file: list[File] = Field(default_factory=list, max_length=MAX_FILES, deprecated=True)  # a common slip, and taken
    collection: CollectionName = None
    priority: Annotated[Literal["high", "normal", "low"] | None, Field(examples=["normal"])] = None
    left_out: FormCounts = Field(default_factory=dict)


class ImagePage(BaseModel):
    """Pictures, newest first or in the order asked for."""

    images: list[ImageOut]
    next_cursor: str | None
    total: int | None = Field(description="How many pictures the whole listing has; null unless asked for.")
    facets: FacetsOut | None = FACETS_FIELD
    warnings: list[WarningOut] = FILTER_WARNINGS_FIELD


class VectorOut(BaseModel):
    """The stored vector of a picture, float32, of length 1, and the embedding space that it belongs to."""

    id: str
    vector: list[float]
    space: str = Field(description="The fingerprint of the space: vectors of two spaces are never compared.")
    model: str
    d: int  # the last: openapi-python-client reads fields in their order, from a variable of this name


class SelectionIn(RequestModel):
    """Pictures: those that match `filter`, those of `ids`, or `all` of the collection."""

    filter: SkipValidation[FilterNode | None] = Field(
        None, description="Pictures that match; a filter without any condition is refused."
    )
    ids: Annotated[list[Id], Field(min_length=1, max_length=1000, fail_fast=True)] | None = None
    all: bool = Field(False, description="Every picture of the collection; send neither filter nor ids.")
    collection: CollectionName = None

    def selected_filter(self) -> Any:
        """The filter of the pictures. Raises Validation unless exactly one of the three was sent."""
        sent = [name for name in ("filter", "ids", "all") if getattr(self, name) not in (None, False)]
        if len(sent) != 1:
            raise Validation(f"send one of filter, ids and all, got {', '.join(sent) or 'none'}")
        if self.all:
            return {}
        return self.filter if self.ids is None else {"has_id": self.ids}


class DeleteIn(SelectionIn):
    """Which pictures to delete: those that match `filter`, those of `ids`, or `all` of the collection."""

    model_config = ConfigDict(
        json_schema_extra={
            **example(filter={"must": [{"key": "tags", "match": {"value": "blurred"}}]}, dry_run=True),
            **one_of("filter", "ids", all={"const": True}),
        }
    )

    dry_run: bool = Field(False, description="Delete nothing, and count what would be deleted.")


class DeleteOut(BaseModel, Generic[T]):
    """How many records matched at the start, and how many of them were deleted; `examples` in a dry run only."""

    matched: int
    deleted: int
    examples: list[T]
    warnings: list[WarningOut] = FILTER_WARNINGS_FIELD

    @classmethod
    def dry_run(cls, record: T) -> DeleteOut[T]:
        """What the deletion of one record would do."""
        return cls(matched=1, deleted=0, examples=[record])


class ImagePatch(RequestModel):
    """The fields to change; what is not sent stays."""

    model_config = ConfigDict(json_schema_extra=example(caption="a red car", tags=["car", "red"]))

    caption: Caption | None = None
    tags: Tags | None = None
    metadata: Metadata | None = None
    generated_caption: None = Field(None, description="null deletes what a model wrote; nothing else is taken.")
    rejected_tags: Tags | None = Field(None, description="Auto-tags that the picture must not have.")
