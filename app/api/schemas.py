"""The JSON bodies of requests and answers; docs/reference/http.md describes them."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    SkipValidation,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.api.arrangement import FACETS_FIELD, ArrangementIn, FacetsOut, is_none
from app.api.errors import MAX_NAME_CHARS, UNKNOWN_FIELD
from app.api.multipart import MAX_FIELDS, File, FormModel
from app.api.openapi import COLLECTION_PATTERN, CollectionText, describe_field
from app.api.unknown_names import describe_unknown
from app.core.clock import format_wall_time
from app.core.errors import Validation
from app.core.strict_json import load_json
from app.core.types import AnswerWarning, EnrichmentKind, Hit, Image, ItemError, Job, JobItem, Text
from app.decode.left_out import MAX_KINDS
from app.search.duplicates import DuplicateKind
from app.storage.attributes import MAX_CAPTION_CHARS, MAX_TAG_CHARS, MAX_TAGS
from app.storage.filters.parser import FilterNode


def validate_unicode(value: str) -> str:
    """Refuse lone surrogates: SQLite and JSON cannot hold them."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the text is not valid Unicode") from None
    return value


def read_whole(value: Any) -> Any:
    """10.0 as 10: JSON has one type of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_filter(text: Any) -> Any:
    """The filter of an address or a form, which may not be null. Raises Validation."""
    if (value := load_json(text, "filter")) is None:
        raise Validation("filter: expected an object, like {'must': [...]}, got null")
    return value


def read_object(name: str) -> BeforeValidator:
    """Reads the JSON object of a field of a form. Raises Validation."""

    def read(text: Any) -> Any:
        if not isinstance(value := load_json(text, name), dict):
            raise Validation(f"{name} must be a JSON object")
        return value

    return BeforeValidator(read)


def example(**fields: Any) -> dict[str, Any]:
    """An example of a model, which /docs fills in."""
    return {"examples": [fields]}


class RequestModel(BaseModel):
    """A JSON body, or an object of one: it has no other fields, and each has the JSON type that it needs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        for name in value if isinstance(value, Mapping) else ():
            if name not in cls.model_fields:
                shown = name[:MAX_NAME_CHARS].encode("utf-8", "replace").decode()
                context = {"name": shown, "sentence": describe_unknown("field", name, cls.model_fields)}
                raise PydanticCustomError(UNKNOWN_FIELD, "{sentence}", context)
        return value


# Ceilings of what a model holds; the settings have lower ones, with sentences of their own.
MAX_CHARS = 65_536  # of a text
MAX_ENTRIES = 1_000  # of a list, and of metadata
MAX_ANSWERS = 26  # to one question: a captioner names each by a letter
MAX_FILES = 1_000_000  # of a form
MAX_NUMBERS = 8_192  # of a vector
MAX_PICTURE_CHARS = 1 << 28  # the base64 of a long picture goes to a file

ShortText = Annotated[str, Field(max_length=MAX_CHARS)]
Metadata = Annotated[dict[ShortText, Any], Field(max_length=MAX_ENTRIES)]
UnicodeText = Annotated[ShortText, AfterValidator(validate_unicode)]
QueryText = Annotated[UnicodeText, describe_field(pattern=r"\S", limits={"maxLength": "max_text_chars"})]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
HeadId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Target = Literal["images", "texts"]
Mode = Literal["hybrid", "vector", "keyword"]
WHOLE = BeforeValidator(read_whole)  # comes last: pydantic describes no bounds of what a function has read
Effort = Annotated[int, Field(ge=1, le=65_536), WHOLE]
HIT_LIMIT = describe_field(minimum=1, limits={"maximum": "max_k"})
HitCount = Annotated[int, HIT_LIMIT, WHOLE]
CollectionName = Annotated[
    CollectionText | None, Field(description="Which collection (default).", examples=["default"])
]
Caption = Annotated[ShortText, describe_field(maxLength=MAX_CAPTION_CHARS)]
FormTag = Annotated[ShortText, describe_field(maxLength=MAX_TAG_CHARS)]  # an empty field of a form is as not sent
Tag = Annotated[FormTag, describe_field(minLength=1)]
Tags = Annotated[list[Tag], Field(max_length=MAX_ENTRIES, fail_fast=True), describe_field(maxItems=MAX_TAGS)]
MOST_TAGS = describe_field(maxItems=MAX_TAGS)
Template = Annotated[UnicodeText, describe_field(pattern=r"\{(label)?\}")]
MAX_TEMPLATES = 16
QueryTemplate = Annotated[UnicodeText, describe_field(pattern=r"\{\}")]
QueryTemplates = (
    Literal["auto", "none"]
    | Annotated[list[QueryTemplate], Field(min_length=1, max_length=MAX_TEMPLATES, fail_fast=True)]
)
ScoreThreshold = Annotated[FiniteFloat, Field(ge=-1, le=1)]
FormMetadata = Annotated[
    dict[str, Any],
    read_object("metadata"),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 1 << 20,
            "description": "A JSON object as text.",
            "examples": ['{"camera": "X100"}'],
        }
    ),
]
FormCounts = Annotated[
    dict[Annotated[str, Field(max_length=20)], Annotated[int, Field(strict=True, ge=1, le=1 << 31)]],
    Field(max_length=MAX_KINDS + 1),
    read_object("left_out"),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 1 << 20,
            "description": 'Files that the client left out, counted by suffix, for the job; JSON as {".heic": 3}.',
        }
    ),
]
FormFilter = Annotated[
    Any,
    BeforeValidator(read_filter),
    WithJsonSchema(
        {"type": "string", "maxLength": 1 << 20, "description": "A filter as JSON.", "examples": ['{"must": []}']}
    ),
]
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2100, 12, 31)


def read_day(value: object) -> date:
    """Raises ValueError."""
    try:
        day = date.fromisoformat(value) if isinstance(value, str) and len(value) == len("2026-01-31") else None
    except ValueError:
        day = None
    if day is None or not FIRST_DAY <= day <= LAST_DAY:
        raise ValueError(f"a day is written 2026-01-31, from {FIRST_DAY} to {LAST_DAY}")
    return day


Day = Annotated[date, BeforeValidator(read_day), describe_field(maxLength=10)]
T = TypeVar("T")
NOT_NULL = {"not": {"type": "null"}}
OLD_NAMES = (("nprobe", "probes"), ("refine_k", "rerank"))


def one_of(*names: str, **schemas: Any) -> dict[str, Any]:
    """JSON Schema's words for: exactly one of these fields, which is not null; `schemas` are of fields that have more
    values that mean nothing."""
    fields = {**dict.fromkeys(names, NOT_NULL), **schemas}
    return {"oneOf": [{"required": [name], "properties": {name: one}} for name, one in fields.items()]}


def not_both(*names: str) -> dict[str, Any]:
    """JSON Schema's words for: one of these fields is missing, or null."""
    return {"not": {"required": list(names), "properties": dict.fromkeys(names, NOT_NULL)}}


WAIT = "Seconds to wait until the picture is ready (0)."
REPLACE = "Replace the bytes that this id has (false)."
MODE = "Compare words (keyword), vectors (vector), or both (hybrid: the default for words alone)."
EXACT = "Compare with every vector, whatever the index could save (false)."
TEMPLATES = (
    "Sentences with {} in whose place the text is put; auto (default): where they were measured to help; or none."
)
SCORE_THRESHOLD = "Hits with a lower cosine are left out."
CALIBRATE = "Say in `verdict` whether anything fits (true)."
TIME_WORDS = (
    'Look for pictures taken at the time that words name ("beach July 2023"), not for these words;'
    " without it, if the collection has pictures with a time."
)
TODAY = "The day for which words like yesterday are meant (that of the server's clock)."


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

    @classmethod
    def of(cls, image: Image) -> LocationOut | None:
        if image.latitude is None or image.longitude is None:
            return None
        return cls(latitude=image.latitude, longitude=image.longitude)


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
        return cls(
            id=image.id,
            collection=image.collection,
            sha256=image.sha256,
            status=image.status.value,
            error=ErrorOut.of(image.error),
            width=image.width,
            height=image.height,
            format=image.format,
            bytes=image.bytes,
            animated=image.animated,
            caption=image.caption,
            tags=list(image.tags),
            metadata=dict(image.metadata),
            source=image.source,
            created_at=image.created_at,
            job_id=image.job_id,
            taken_at=format_wall_time(image.taken_at, image.taken_offset) if image.taken_at else None,
            camera=image.camera,
            lens=image.lens,
            location=LocationOut.of(image),
            ocr_text=image.ocr_text,
            generated_caption=image.generated_caption,
            video_id=image.video_id,
            t_ms=image.t_ms,
            auto_tags=[AutoTagOut(tag=tag, probability=share) for tag, share in image.auto_tags.items()],
            rejected_tags=list(image.rejected_tags),
            duplicate=duplicate,
            vector=vector,
        )


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


FILTER_WARNINGS_FIELD: Any = Field([], exclude_if=operator.not_, description="What is odd about the filter.")


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
    d: int
    space: str = Field(description="The fingerprint of the space: vectors of two spaces are never compared.")
    model: str


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
    result: dict[str, Any] | None = Field(None, description="What came of a task that is no import.")
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


class RanksOut(BaseModel):
    """Places in the ranking of the vectors and in that of the words; null where the picture is not among its first."""

    vector: int | None = None
    keyword: int | None = None


class SimilarHitOut(BaseModel):
    """A hit that is nearly the same as a better one, with its cosine to that."""

    id: str
    score: float
    similarity: float


class HitOut(BaseModel):
    """A hit: `score` is the cosine, higher is nearer; either `image` or `text` is set."""

    id: str
    score: float
    image: ImageOut | None = None
    text: TextOut | None = None
    ranks: RanksOut = Field(description="Its places, from 1, in the rankings that were fused.")
    matched: list[Literal["caption", "tags", "name", "ocr", "generated"]] = Field(
        default_factory=list, description="Where the picture has words of the query."
    )
    highlights: dict[str, list[str]] = Field(
        default_factory=dict, description="These words by their place, as they are written there."
    )
    duplicates: list[SimilarHitOut] = Field(
        [], exclude_if=operator.not_, description="With collapse: hits that are nearly the same picture, best first."
    )

    @classmethod
    def of(cls, hit: Hit) -> HitOut:
        return cls(
            id=hit.id,
            score=round(hit.score, 6),
            image=ImageOut.of(hit.image) if hit.image else None,
            text=TextOut.of(hit.text) if hit.text else None,
            ranks=RanksOut(**hit.ranks),
            matched=list(hit.highlights),
            highlights={column: list(words) for column, words in hit.highlights.items()},
            duplicates=[
                SimilarHitOut(id=one.id, score=round(one.score, 6), similarity=round(one.similarity, 6))
                for one in hit.duplicates
            ],
        )


class VerdictOut(BaseModel):
    """Whether anything fits the query."""

    match: Literal["good", "weak", "none"]
    confidence: float = Field(description="0: it could be either; 1: certain.")


class TimeOut(BaseModel):
    """Words of time in a query, and from which day to which it looked for pictures; null: open."""

    model_config = ConfigDict(serialize_by_alias=True)

    text: str
    from_: date | None = Field(alias="from")
    to: date | None


class AppliedOut(BaseModel):
    """How a search was answered."""

    mode: Mode
    model_trust: float | None = Field(
        description="How much the vectors counted beside the words: the share of captions and names of the collection"
        " by which the model finds their pictures. Null if the vectors were ranked alone."
    )
    head: str | None = Field(description="The head that the query went through; null for none.")
    normalisation: Literal["nnn", "off"] = Field(
        description="Whether pictures that are near to every text were ranked down (nnn)."
    )
    templates: list[str] = Field(description="The templates whose mean was searched for; empty without any.")
    order_by: str | None = Field(None, exclude_if=is_none, description="The order of these hits, if not the ranking.")
    group_by: str | None = Field(None, exclude_if=is_none, description="Of which each value has group_size hits.")
    diversity: float | None = Field(None, exclude_if=is_none, description="As sent, if it is on.")
    collapse: float | None = Field(None, exclude_if=is_none, description="The cosine from which hits are the same.")
    time: TimeOut | None = Field(None, exclude_if=is_none, description="The words of time that were a condition.")
    like: float | None = Field(None, exclude_if=is_none, description="The weight of the mean of liked pictures.")
    unlike: float | None = Field(None, exclude_if=is_none, description="The weight of the mean of unliked pictures.")


WARNINGS_FIELD = Field(description="What is odd about the texts and the filter that were sent; empty for most.")


class Took(BaseModel):
    """Milliseconds by stage."""

    encode: float
    search: float
    fetch: float
    total: float


class SearchOut(BaseModel):
    """Hits, best first; `searched` is how many vectors were compared."""

    hits: list[HitOut]
    took_ms: Took
    model: str
    target: Target
    searched: int
    applied: AppliedOut
    verdict: VerdictOut | None = Field(
        None, description="Of searches for pictures by words, unless `calibrate` is false or `exact` is true."
    )
    facets: FacetsOut | None = FACETS_FIELD
    warnings: list[WarningOut] = WARNINGS_FIELD


FILTER_FIELD = Field(
    None,
    description="Only what matches, in Qdrant's form: `must`, `should`, `must_not` of conditions.",
    examples=[{"must": [{"key": "tags", "match": {"value": "beach"}}, {"key": "width", "range": {"gte": 1000}}]}],
)


class PartIn(RequestModel):
    """One part of a query: exactly one of text, image_id, text_id, image and vector."""

    model_config = ConfigDict(json_schema_extra=one_of("text", "image_id", "text_id", "image", "vector"))

    text: QueryText | None = None
    image_id: Id | None = None
    text_id: Id | None = None
    image: Annotated[str, Field(max_length=MAX_PICTURE_CHARS)] | None = Field(
        None, description="A picture, as base64 or a data URI."
    )
    vector: Annotated[list[FiniteFloat], Field(max_length=MAX_NUMBERS, fail_fast=True)] | None = None
    weight: FiniteFloat = Field(1.0, description="How much the part counts; negative: away from it.")

    def kind(self) -> str:
        """The name of the field that was sent. Raises Validation unless it is exactly one."""
        sent = [name for name in ("text", "image_id", "text_id", "image", "vector") if getattr(self, name) is not None]
        if len(sent) != 1:
            got = ", ".join(sent) or "none"
            raise Validation(f"a part of a query has one of text, image_id, text_id, image and vector, got {got}")
        return sent[0]


class ParamsIn(RequestModel):
    """How much an approximate index compares; an exact index ignores it."""

    model_config = ConfigDict(json_schema_extra={"allOf": [not_both(*names) for names in OLD_NAMES]})

    nprobe: Effort | None = Field(None, description="How many lists of the index are searched.")
    refine_k: Effort | None = Field(None, description="Candidates compared again by full vectors.")
    probes: Effort | None = Field(None, description="The old name of `nprobe`.")
    rerank: Effort | None = Field(None, description="The old name of `refine_k`.")

    @model_validator(mode="after")
    def _merge_names(self) -> Self:
        for name, old in OLD_NAMES:
            if getattr(self, name) is not None and getattr(self, old) is not None:
                raise ValueError(f"{name} and {old} are the same parameter: give one of them")
        self.nprobe = self.nprobe or self.probes
        self.refine_k = self.refine_k or self.rerank
        return self


class WeightsIn(RequestModel):
    """How much each ranking counts in a hybrid search."""

    vector: FiniteFloat = Field(1.0, ge=0, le=100)
    keyword: FiniteFloat = Field(1.0, ge=0, le=100)


Feedback = Annotated[list[Id], Field(max_length=32, fail_fast=True)]


class SearchIn(RequestModel, ArrangementIn):
    """A query of weighted parts."""

    model_config = ConfigDict(json_schema_extra=example(query=[{"text": "a red car"}], k=10))

    query: Annotated[list[PartIn], Field(min_length=1, max_length=32, fail_fast=True)]
    target: Target = "images"
    k: Annotated[int, Field(ge=1), HIT_LIMIT, WHOLE, Field(description="How many hits.")] = 10
    collection: CollectionName = None
    filter: SkipValidation[FilterNode | None] = FILTER_FIELD  # parse_filter validates it: it needs the target
    exact: bool = Field(False, description=EXACT)
    mode: Mode | None = Field(None, description=MODE)
    weights: WeightsIn | None = None
    params: ParamsIn | None = None
    templates: QueryTemplates = Field("auto", description=TEMPLATES)
    score_threshold: ScoreThreshold | None = Field(None, description=SCORE_THRESHOLD)
    calibrate: bool = Field(True, description=CALIBRATE)
    time_words: bool | None = Field(None, description=TIME_WORDS)
    today: Day | None = Field(None, description=TODAY)
    like: Feedback = Field(default_factory=list, description="Ids of pictures that the query is moved towards.")
    unlike: Feedback = Field(default_factory=list, description="Ids of pictures that it is moved away from.")


class SearchForm(FormModel, ArrangementIn):
    """A picture to search by."""

    file: File
    k: Annotated[HitCount | None, Field(description="How many hits.", examples=[10])] = None
    target: Annotated[Target | None, Field(examples=["images"])] = None
    filter: FormFilter = None
    exact: Annotated[bool | None, Field(description=EXACT, examples=[False])] = None
    mode: Annotated[Mode | None, Field(description="A picture has no words: `vector`.", examples=["vector"])] = None
    score_threshold: Annotated[ScoreThreshold | None, Field(description=SCORE_THRESHOLD, examples=[0.3])] = None
    collection: CollectionName = None


class BatchIn(RequestModel):
    """Up to 100 searches."""

    model_config = ConfigDict(
        json_schema_extra=example(searches=[{"query": [{"text": "red car"}]}, {"query": [{"text": "frog"}], "k": 3}])
    )

    searches: Annotated[list[SearchIn], Field(min_length=1, max_length=100, fail_fast=True)]


class RefusedOut(BaseModel):
    """The error of a search that has no answer."""

    error: ErrorOut


class BatchOut(BaseModel):
    """The answers, in the order of the searches."""

    answers: list[SearchOut | RefusedOut]


class ClassifyIn(RequestModel):
    """Which of the labels fits a stored picture."""

    model_config = ConfigDict(json_schema_extra=example(image_id="car-1", labels=["a car", "a cat", "a cake"]))

    image_id: Id
    labels: Annotated[list[QueryText], Field(min_length=2, max_length=1000, fail_fast=True)]
    template: Template = "{}"
    collection: CollectionName = None


class ClassifyForm(FormModel):
    """Which of the labels fits the picture that is sent."""

    file: File
    labels: Annotated[
        list[QueryText],
        describe_field(minItems=2, maxItems=1000),
        Field(max_length=MAX_FIELDS, description="A field for each label.", examples=[["a car", "a cat", "a cake"]]),
    ]
    template: Annotated[Template, Field(description="With {} where the label goes.", examples=["a photo of {}"])] = "{}"
    collection: CollectionName = None


class AskIn(RequestModel):
    """A question about a stored picture, with the answers that there may be."""

    model_config = ConfigDict(
        json_schema_extra=example(question="What colour is the car?", answers=["red", "blue", "white"])
    )

    question: QueryText
    answers: Annotated[list[QueryText], Field(min_length=2, max_length=MAX_ANSWERS, fail_fast=True)]
    by: Literal["encoder", "captioner"] | None = Field(
        None, description="What is to answer (the captioner, where one is set that answers; else the encoder)."
    )
    collection: CollectionName = None


class AnswerOut(BaseModel):
    """A possible answer, and the probability that it is the right one of those that were sent."""

    answer: str
    probability: float


class AskOut(BaseModel):
    """The answers, likeliest first. `by` and `model` say what has answered."""

    question: str
    answers: list[AnswerOut]
    by: Literal["encoder", "captioner"]
    model: str
    warnings: list[WarningOut] = WARNINGS_FIELD


class MatchIn(RequestModel):
    """Which of the texts fit a stored picture."""

    model_config = ConfigDict(json_schema_extra=example(image_id="car-1", text=["a car", "a cat"]))

    image_id: Id
    text: Annotated[list[QueryText], Field(min_length=1, max_length=1000, fail_fast=True)]
    collection: CollectionName = None


class MatchForm(FormModel):
    """Which of the texts fit the picture that is sent."""

    file: File
    text: Annotated[
        list[QueryText],
        describe_field(minItems=1, maxItems=1000),
        Field(max_length=MAX_FIELDS, description="A field for each text.", examples=[["a car", "a cat"]]),
    ]
    collection: CollectionName = None


class MatchOut(BaseModel):
    """How a text fits: its cosine, and the probability that it is right. Null where nothing tells that."""

    text: str
    score: float
    probability: float | None
    match: bool | None = Field(description="Whether the probability is at least one half.")


class MatchesOut(BaseModel):
    """The texts in the order in which they were sent."""

    matches: list[MatchOut]
    warnings: list[WarningOut] = WARNINGS_FIELD


class LabelOut(BaseModel):
    """A label and its probability among the labels that were sent."""

    label: str
    probability: float


class ClassifyOut(BaseModel):
    """Labels, likeliest first; the probabilities add up to 1, or are each its own (of a model like SigLIP)."""

    labels: list[LabelOut]
    warnings: list[WarningOut] = WARNINGS_FIELD


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
        Literal["fp32", "bf16", "fp16"] | None, Field(description="Of the encoder; without it, as set.")
    ] = None
    dry_run: Annotated[bool, Field(description="Only tell what the change would cost, as the result of the job.")] = (
        False
    )


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


class CollectionIn(RequestModel):
    """A collection to create."""

    model_config = ConfigDict(json_schema_extra=example(name="birds", description="The birds of 2026"))

    name: Annotated[str, Field(pattern=COLLECTION_PATTERN)]
    description: UnicodeText = ""
