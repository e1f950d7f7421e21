"""What the models of requests share: types of their fields, limits, descriptions."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.api.errors import MAX_NAME_CHARS, UNKNOWN_FIELD
from app.api.openapi import CollectionText, describe_field
from app.api.unknown_names import describe_unknown
from app.core.errors import Validation
from app.core.strict_json import load_json
from app.decode.left_out import MAX_KINDS
from app.storage.attributes import MAX_CAPTION_CHARS, MAX_TAG_CHARS, MAX_TAGS


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

SearchEffort = Literal["fast", "normal", "exact"]

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

NOT_NULL = {"not": {"type": "null"}}


def one_of(*names: str, **schemas: Any) -> dict[str, Any]:
    """JSON Schema's words for: exactly one of these fields, which is not null; `schemas` are of fields that have more
    values that mean nothing. Programs that write clients would make a class of each choice, so it stands in an `if`."""
    fields = {**dict.fromkeys(names, NOT_NULL), **schemas}
    choices = [{"required": [name], "properties": {name: one}} for name, one in fields.items()]
    return {"if": {"oneOf": choices}, "else": False}


def both(*names: str) -> dict[str, Any]:
    """JSON Schema's words for: none of these fields is missing, or null."""
    return {"required": list(names), "properties": dict.fromkeys(names, NOT_NULL)}


WAIT = "Seconds to wait until the picture is ready (0)."

REPLACE = "Replace the bytes that this id has (false)."

MODE = "Compare words (keyword), vectors (vector), or both (hybrid: the default for words alone)."

EXACT = "Compare with every vector, whatever the index could save (false)."

EFFORT = (
    "How far an approximate index is searched: fast, normal (default), or exact (everywhere). `GET /v1/stats` tells the"
    " recall of each."
)

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

FILTER_WARNINGS_FIELD: Any = Field([], exclude_if=operator.not_, description="What is odd about the filter.")
