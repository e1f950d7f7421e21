"""The JSON of filters, in Qdrant's words, as pydantic models; docs/reference/filters.md explains each part.

`parse_filter` validates a filter with these models, which make a condition in SQL of themselves. The OpenAPI
document describes filters by the same models. Every union has a callable discriminator: it tries one branch only, so
that an error is one sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic import Field as ModelField
from typing_extensions import TypeAliasType

from app.core.clock import format_rfc3339
from app.core.errors import Validation
from app.core.picture_formats import Format
from app.core.text import split_words
from app.core.types import Target
from app.storage.filters import sql
from app.storage.filters.model import FIELDS, Field, Filter
from app.storage.sql import Clause

MAX_CONDITIONS = 100
MAX_VALUES = 1_000  # in all lists of a filter together
MAX_GROUPS = 1_000  # must, should and must_not have conditions and groups of them, which may be empty
MAX_DEPTH = 8
MAX_CHARS = 16_384  # of one text: metadata holds none that is longer
MAX_PATH = 8
MAX_RADIUS = 20_100_000  # metres: from pole to pole
# What the OpenAPI document says of keys; `_check_key` checks them, and says what is wrong.
ENTRY_PATTERN = r'("[^"\\\x00-\x1f]*"|[^".\[\]\\\x00-\x1f]+)'
METADATA_PATTERN = rf"metadata(\.{ENTRY_PATTERN}){{1,{MAX_PATH}}}"
KEY_PATTERN = f"^({'|'.join(sorted({*FIELDS['images'], *FIELDS['texts']} - {'metadata'}))}|{METADATA_PATTERN})$"
COMPARISONS = ("gt", "gte", "lt", "lte")

T = TypeVar("T")


@dataclass(slots=True)
class Usage:
    """The target of the filter, and how much of each limit the validation has used so far."""

    target: Target
    depth: int = 0
    conditions: int = 0
    groups: int = 0
    values: int = 0


def parse_filter_json(text: str, target: Target) -> Filter:
    """Parse a filter from JSON. Raises Validation."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Validation("filter is not JSON") from None
    return parse_filter(value, target)


def parse_filter(value: Any, target: Target) -> Filter:
    """Parse a filter from the value of its JSON. Raises Validation, which names the place and the fault."""
    try:
        parsed = FILTER_ADAPTER.validate_python(value, context=(usage := Usage(target)))
    except ValidationError as error:
        raise Validation(_describe(error, value)) from None
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    compared = tuple(dict.fromkeys(_find_compared(parsed)))
    return Filter(text, target, parsed.condition(), matches_everything=not usage.conditions, compared=compared)


def parse_days(first: date | None, last: date | None) -> Filter:
    """Pictures taken from one day to another, both included; None: any day before or after, but a known one."""
    bounds = {"gte": first, "lt": last + timedelta(days=1) if last else None}
    limits = {name: day.isoformat() for name, day in bounds.items() if day}
    return parse_filter({"key": "taken_at", **({"range": limits} if limits else {"exists": True})}, "images")


def join_filters(one: Filter | None, two: Filter) -> Filter:
    """What both match."""
    if one is None:
        return two
    text = json.dumps({"must": [json.loads(one.text), json.loads(two.text)]}, sort_keys=True, separators=(",", ":"))
    condition = sql.combine([one.condition, two.condition], [], [])
    nothing = one.matches_everything and two.matches_everything
    return Filter(text, two.target, condition, matches_everything=nothing, compared=(*one.compared, *two.compared))


# ---- values


def _refuse_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text of a filter has no NUL character")
    return text


def _require_word(text: str) -> str:
    if not split_words(text):
        raise ValueError(f"there is no word in {shorten(text)}")
    return text


def _count_values(values: Any, info: ValidationInfo[Usage]) -> Any:
    info.context.values += len(values) if isinstance(values, list) else 0
    if info.context.values > MAX_VALUES:
        raise ValueError(f"a filter may list {MAX_VALUES} values")
    return values


def _choose_by_type(what: str) -> Discriminator:
    """Choose the branch whose tag is the name of the value's type; `what` names the types in the error."""
    return Discriminator(
        lambda value: type(value).__name__, custom_error_type="type", custom_error_message=f"expected {what}"
    )


Text = Annotated[StrictStr, StringConstraints(max_length=MAX_CHARS), AfterValidator(_refuse_nul)]
Words = Annotated[Text, AfterValidator(_require_word)]
Integer = Annotated[StrictInt, ModelField(ge=-(2**63), le=2**63 - 1), Tag("int")]  # what SQLite can hold
Float = Annotated[StrictFloat, AllowInfNan(False), Tag("float")]
Number = Annotated[Integer | Float, _choose_by_type("a number"), WithJsonSchema({"type": "number"})]
Scalar = Annotated[
    Annotated[Text, Tag("str")] | Integer | Float | Annotated[StrictBool, Tag("bool")],
    _choose_by_type("a text, a number, true or false"),
    WithJsonSchema({"type": ["string", "number", "boolean"], "maxLength": MAX_CHARS}),
]
TimeBound = Annotated[
    str,
    StringConstraints(max_length=64),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": 64, "format": one} for one in ("date", "date-time")]}),
]
Values = Annotated[
    list[T], FailFast(), BeforeValidator(_count_values), ModelField(json_schema_extra={"maxItems": MAX_VALUES})
]


# ---- objects


OMITTED: Any = None  # the default of a name that may be missing, but not null


def _describe_names(schema: dict[str, Any], cls: type[Any]) -> None:
    schema.update(minProperties=cls.SIZE[0], maxProperties=cls.SIZE[1])
    for described in schema["properties"].values():
        described.pop("default", None)


class Grammar(BaseModel):
    """A JSON object that has at least `SIZE[0]` and at most `SIZE[1]` of the names of the model's fields."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_describe_names)
    SIZE: ClassVar[tuple[int, int]] = (1, 1)
    NAMES: ClassVar[tuple[str, ...]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.NAMES = tuple(field.alias or name for name, field in cls.model_fields.items())

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected an object with {_join(cls.NAMES)}, got {shorten(value)}")
        for name in value:
            if name not in cls.NAMES:
                raise ValueError(f"there is no {shorten(name)}; {suggest_name(name, cls.NAMES)}")
        if not cls.SIZE[0] <= len(value) <= cls.SIZE[1]:
            wanted = f"one of {_join(cls.NAMES)}"
            if cls.SIZE == (2, 2):
                wanted = _join(cls.NAMES, "and") if len(cls.NAMES) == 2 else f"key and one of {_join(cls.NAMES[1:])}"
            raise ValueError(f"expected {wanted}, got {_join(list(value), 'and') or 'nothing'}")
        return value


class Match(Grammar, Generic[T]):
    value: T = OMITTED
    any: Values[T] = OMITTED
    except_: Values[T] = ModelField(OMITTED, alias="except")

    def condition(self, field: Field) -> Clause:
        (name,) = self.model_fields_set
        operand = getattr(self, name)
        if name == "text":
            return sql.match_words(field, operand)
        return sql.match_values(field, [operand] if name == "value" else operand, negated=name == "except_")


class TextMatch(Match[Text]):
    text: Words = OMITTED


class NumberMatch(Match[Number]):
    pass


class FlagMatch(Match[StrictBool]):
    pass


class FormatMatch(Match[Format]):
    pass


class MetadataMatch(Match[Scalar]):
    text: Words = OMITTED


class Range(Grammar, Generic[T]):
    SIZE = (1, 4)

    gt: T | None = None
    gte: T | None = None
    lt: T | None = None
    lte: T | None = None

    @model_validator(mode="after")
    def _require_bound(self) -> Self:
        if not self._bounds():  # Qdrant's clients send null for the bounds that they do not use
            raise ValueError("a range needs a bound that is not null")
        return self

    def _bounds(self) -> tuple[tuple[str, Any], ...]:
        return tuple((name, bound) for name in COMPARISONS if (bound := getattr(self, name)) is not None)

    def condition(self, field: Field) -> Clause:
        return sql.match_range(field, self._bounds())


class NumberRange(Range[Number]):
    pass


class TakenRange(Range[TimeBound]):
    """Each bound is a date or a time (RFC 3339): one without a zone is compared with the camera's clock."""

    @field_validator(*COMPARISONS, mode="before")
    @classmethod
    def _parse_bound(cls, value: Any, info: ValidationInfo[Usage]) -> str | None:
        return None if value is None else parse_taken_bound(str(info.field_name), value)

    def condition(self, field: Field) -> Clause:
        return sql.match_taken(self._bounds())


class TimeRange(Range[TimeBound]):
    """Each bound is a date or a time (RFC 3339), in UTC where it names no zone."""

    @field_validator(*COMPARISONS, mode="before")
    @classmethod
    def _parse_bound(cls, value: Any, info: ValidationInfo[Usage]) -> str | None:
        return None if value is None else parse_time_bound(str(info.field_name), value)


def _range_tag(value: Any) -> str:
    is_timed = isinstance(value, Mapping) and any(isinstance(bound, str) for bound in value.values())
    return "TimeRange" if is_timed else "NumberRange"


MetadataRange = Annotated[
    Annotated[NumberRange, Tag("NumberRange")] | Annotated[TimeRange, Tag("TimeRange")], Discriminator(_range_tag)
]


def _bounds(least: float, most: float) -> WithJsonSchema:
    """What the document says of a number; the message is that of `_within`."""
    return WithJsonSchema({"type": "number", "minimum": least, "maximum": most})


class Point(Grammar):
    """A place on the earth, in degrees."""

    SIZE = (2, 2)

    lat: Annotated[Number, AfterValidator(lambda value: _within("a latitude", value, 90)), _bounds(-90, 90)]
    lon: Annotated[Number, AfterValidator(lambda value: _within("a longitude", value, 180)), _bounds(-180, 180)]


class Box(Grammar):
    """From `top_left` to the south and to the east, over the 180th meridian if it must."""

    SIZE = (2, 2)

    top_left: Point
    bottom_right: Point

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.top_left.lat < self.bottom_right.lat:
            raise ValueError("top_left lies south of bottom_right")
        return self

    def condition(self, field: Field) -> Clause:
        north_west, south_east = self.top_left, self.bottom_right
        return sql.match_box(north_west.lat, north_west.lon, south_east.lat, south_east.lon)


class Circle(Grammar):
    """What is at most `radius` metres from `center`."""

    SIZE = (2, 2)

    center: Point
    radius: Annotated[
        Number, AfterValidator(lambda value: _within("a radius", value, MAX_RADIUS, 0)), _bounds(0, MAX_RADIUS)
    ]

    def condition(self, field: Field) -> Clause:
        return sql.match_circle(self.center.lat, self.center.lon, self.radius)


def _within(what: str, value: float, most: float, least: float | None = None) -> float:
    lowest = -most if least is None else least
    if not lowest <= value <= most:
        raise ValueError(f"{what} is a number from {lowest:,} to {most:,}, got {value}")
    return value


# ---- conditions


class KeyOnly(Grammar):
    key: Annotated[str, StringConstraints(max_length=MAX_CHARS), ModelField(json_schema_extra={"pattern": KEY_PATTERN})]

    @field_validator("key", mode="before")
    @classmethod
    def _check_key(cls, value: Any, info: ValidationInfo[Usage]) -> Any:
        if not isinstance(value, str) or not value:
            raise ValueError(f"expected the name of a field, got {shorten(value)}")
        name, dot, path = value.partition(".")
        if name not in (names := FIELDS[info.context.target]):
            raise ValueError(f"there is no field {shorten(name)}; {suggest_name(name, names)}")
        if name == "metadata":
            if not dot:
                raise ValueError("name an entry of metadata, like metadata.camera")
            split_path(path)
        elif dot:
            raise ValueError(f"{name} has no parts, so there is no {shorten(value)}")
        return value

    def field(self) -> Field:
        name, dot, path = self.key.partition(".")
        return Field(name, split_path(path) if dot else ())


class Condition(KeyOnly):
    SIZE = (2, 2)

    exists: StrictBool = OMITTED
    is_empty: StrictBool = OMITTED
    is_null: StrictBool = OMITTED

    def condition(self) -> Clause:
        (name,) = self.model_fields_set - {"key"}
        operand = getattr(self, name)
        if isinstance(operand, Match | Range | Box | Circle):
            return operand.condition(self.field())
        return _existence(name, self.field(), holds=operand)


class TextCondition(Condition):
    key: Literal[
        "id",
        "caption",
        "source",
        "job_id",
        "text",
        "tags",
        "auto_tags",
        "camera",
        "lens",
        "ocr_text",
        "generated_caption",
        "video_id",
    ]
    match: TextMatch = OMITTED


class NumberCondition(Condition):
    key: Literal["width", "height", "bytes", "t_ms"]
    match: NumberMatch = OMITTED
    range: NumberRange = OMITTED


class FlagCondition(Condition):
    key: Literal["animated"]
    match: FlagMatch = OMITTED


class FormatCondition(Condition):
    key: Literal["format"]
    match: FormatMatch = OMITTED


class TimeCondition(Condition):
    key: Literal["created_at"]
    range: TimeRange = OMITTED


class TakenCondition(Condition):
    key: Literal["taken_at"]
    range: TakenRange = OMITTED


class LocationCondition(Condition):
    key: Literal["location"]
    geo_bounding_box: Box = OMITTED
    geo_radius: Circle = OMITTED


class MetadataCondition(Condition):
    key: str = ModelField(
        description="metadata.NAME, or metadata.NAME.NAME inside an object.",
        json_schema_extra={"pattern": f"^{METADATA_PATTERN}$"},
    )
    match: MetadataMatch = OMITTED
    range: MetadataRange = OMITTED


class KeylessCondition(Grammar):
    exists: KeyOnly = OMITTED
    is_empty: KeyOnly = OMITTED
    is_null: KeyOnly = OMITTED
    has_id: Values[Text] = OMITTED

    def condition(self) -> Clause:
        (name,) = self.model_fields_set
        operand = getattr(self, name)
        if name == "has_id":
            return sql.match_values(Field("id"), operand)
        return _existence(name, operand.field(), holds=True)


def _existence(name: str, field: Field, *, holds: bool) -> Clause:
    clause = sql.match_null(field) if name == "is_null" else sql.match_present(field)
    return clause if holds is (name != "is_empty") else sql.NOT + clause


class Clauses(Grammar):
    """All of `must`, at least one of `should` if there are any, none of `must_not`."""

    SIZE = (0, 3)

    must: Nodes = []
    should: Nodes = []
    must_not: Nodes = []

    def condition(self) -> Clause:
        parts = ([node.condition() for node in nodes] for nodes in (self.must, self.should, self.must_not))
        return sql.combine(*parts)


def _find_compared(node: FilterNode) -> Iterator[tuple[Field, str | None]]:
    """The entries of metadata that a row needs to match (see `Filter.compared`)."""
    if isinstance(node, Clauses):
        for part in (*node.must, *node.should):
            yield from _find_compared(part)
    elif isinstance(node, MetadataCondition) and node.range is not OMITTED:
        yield node.field(), "time" if isinstance(node.range, TimeRange) else "number"
    elif isinstance(node, MetadataCondition) and node.match is not OMITTED:
        yield node.field(), None


WITH_KEY = (
    TextCondition,
    NumberCondition,
    FlagCondition,
    FormatCondition,
    TimeCondition,
    TakenCondition,
    LocationCondition,
)
TAGS = {name: cls.__name__ for cls in WITH_KEY for name in get_args(cls.model_fields["key"].annotation)}


def _node_tag(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return None
    if not value.keys().isdisjoint(("key", "match", "range", "geo_bounding_box", "geo_radius")):
        key = value.get("key")
        return TAGS.get(key, "MetadataCondition") if isinstance(key, str) else "MetadataCondition"
    return "Clauses" if value.keys().isdisjoint(KeylessCondition.NAMES) else "KeylessCondition"


def _check_limits(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo[Usage]) -> Any:
    usage = info.context
    usage.depth += 1
    if usage.depth > MAX_DEPTH:
        raise ValueError(f"a filter may be nested {MAX_DEPTH} deep")
    usage.groups += 1
    if usage.groups > MAX_GROUPS:
        raise ValueError(f"a filter may have {MAX_GROUPS} groups and conditions")
    node = handler(value)
    usage.depth -= 1  # an error ends the validation: nothing counts after it
    if not isinstance(node, Clauses):
        usage.conditions += 1
        if usage.conditions > MAX_CONDITIONS:
            raise ValueError(f"a filter may have {MAX_CONDITIONS} conditions")
    return node


FilterNode = TypeAliasType(
    "FilterNode",
    Annotated[
        Annotated[Clauses, Tag("Clauses")]
        | Annotated[TextCondition, Tag("TextCondition")]
        | Annotated[NumberCondition, Tag("NumberCondition")]
        | Annotated[FlagCondition, Tag("FlagCondition")]
        | Annotated[FormatCondition, Tag("FormatCondition")]
        | Annotated[TimeCondition, Tag("TimeCondition")]
        | Annotated[TakenCondition, Tag("TakenCondition")]
        | Annotated[LocationCondition, Tag("LocationCondition")]
        | Annotated[MetadataCondition, Tag("MetadataCondition")]
        | Annotated[KeylessCondition, Tag("KeylessCondition")],
        Discriminator(
            _node_tag, custom_error_type="type", custom_error_message="expected an object, like {'must': [...]}"
        ),
        WrapValidator(_check_limits),
    ],
)
Nodes = Annotated[
    list[FilterNode],
    FailFast(),
    BeforeValidator(
        lambda value: [value] if isinstance(value, Mapping) else value,
        json_schema_input_type=FilterNode | Annotated[list[FilterNode], ModelField(max_length=MAX_GROUPS)],
    ),
]
Clauses.model_rebuild()
FILTER_ADAPTER: TypeAdapter[FilterNode] = TypeAdapter(FilterNode)


# ---- errors


def _describe(error: ValidationError, value: Any) -> str:
    """The first fault of `value` as one sentence that begins with its place, like `filter.must[1].key`."""
    fault = error.errors(include_url=False)[0]
    steps = [step for step in fault["loc"] if not _is_branch(step)]
    place = "filter" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    if steps[-1:] != ["key"] and (field := _find_field(value, steps)):
        place += f" ({field[:60]})"
    if fault["type"] == "value_error":
        return f"{place}: {fault['ctx']['error']}"
    message = fault["msg"]
    return f"{place}: {message[0].lower()}{message[1:]}, got {shorten(fault['input'])}"


def _find_field(value: Any, steps: Sequence[str | int]) -> str | None:
    """The key of the condition that holds the fault."""
    field = None
    for step in (*steps, ""):
        if isinstance(value, Mapping):
            field = value.get("key", field)
            value = value if isinstance(step, int) else value.get(step)  # one condition may stand for a list
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step]
    return field if isinstance(field, str) and field.isprintable() else None


def _is_branch(step: str | int) -> bool:
    """Whether pydantic names the branch of a union here, and not a name of the filter."""
    return isinstance(step, str) and (step[0].isupper() or step in ("str", "int", "float", "bool"))


def suggest_name(name: Any, names: Sequence[str]) -> str:
    is_misspelt = not any(name in fields for fields in FIELDS.values())
    if is_misspelt and (near := get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)):
        return f"did you mean {near[0]}?"
    hint = "; the entries of metadata are metadata.NAME" if "metadata" in names else ""
    return f"there are {_join(names, 'and')}{hint}"


def _join(names: Sequence[str], word: str = "or") -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else "".join(names)


def shorten(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return f"an object with {len(value)} entries" if isinstance(value, Mapping) else f"a list of {len(value)}"
    text = json.dumps(value) if value is None or isinstance(value, bool) else ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


# ---- paths and times

SEGMENT = re.compile(r'(?:"([^"]*)"|([^".\[\]]+))(\.|$)')  # quotes are for names with a dot or a bracket
TIME = re.compile(
    r"(\d{4}[-:/]\d\d[-:/]\d\d)(?:[Tt ](\d\d:\d\d)(?:(:\d\d)(?:\.(\d{1,9}))?)?([Zz]|[+-]\d\d:?\d\d)?)?", re.ASCII
)
MILLISECOND = timedelta(milliseconds=1)


def split_path(text: str) -> tuple[str, ...]:
    """Split a dotted path into the names of entries of metadata. Raises ValueError."""
    path: list[str] = []
    position, dot = 0, "."
    while dot:
        segment = SEGMENT.match(text, position)
        if segment is None or len(path) == MAX_PATH:
            raise ValueError(
                f"{shorten(text)} is no path: write up to {MAX_PATH} names with dots between them, and a name that has"
                " a dot or a bracket in double quotes"
            )
        quoted, plain, dot = segment.groups()
        name = plain if quoted is None else quoted
        if json.dumps(name, ensure_ascii=False) != f'"{name}"':
            raise ValueError("a name with a backslash or a control character cannot be searched")
        path.append(name)
        position = segment.end()
    return tuple(path)


def parse_time_bound(comparison: str, value: Any) -> str:
    """Parse a time (RFC 3339, or a date alone; UTC where it names no zone) into the form of stored times.

    Stored times are whole milliseconds. A finer bound is rounded so that `gt`, `gte`, `lt` and `lte` keep their
    meaning. Raises ValueError.
    """
    return format_rfc3339(_read_bound(comparison, value, UTC).astimezone(UTC))


def parse_taken_bound(comparison: str, value: Any) -> str:
    """Parse a time as `parse_time_bound`, into `YYYY-MM-DDTHH:MM:SS.mmm`, and the zone behind it if it names one."""
    return _read_bound(comparison, value, None).isoformat(timespec="milliseconds")


def _read_bound(comparison: str, value: Any, zone_without: tzinfo | None) -> datetime:
    parts = TIME.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        raise ValueError("a time is written 2026-01-31 or 2026-01-31T12:00:00Z")
    day, minute, second, fraction, zone = parts.groups()
    day, digits = re.sub("[:/]", "-", day), (fraction or "").ljust(3, "0")
    try:
        time = datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}{(zone or '').upper()}")
        time = time.replace(tzinfo=time.tzinfo or zone_without) + int(digits[:3]) * MILLISECOND
        if digits[3:].strip("0") and comparison in ("gte", "lt"):
            time += MILLISECOND
        if time.tzinfo is not None:
            time.astimezone(UTC)  # raises if that is no time
    except (ValueError, OverflowError):
        raise ValueError(f"there is no time {value[:40]!r}") from None
    return time
