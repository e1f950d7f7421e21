"""How hits and lists are arranged: the fields and parameters that several calls share, checked, and their answers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import BaseModel, Field, FiniteFloat

from app.api.openapi import describe_field
from app.api.schemas.fields import WHOLE
from app.core.errors import BadRequest, Validation
from app.core.types import Target
from app.search.arrange import MAX_PLACES, Arrangement
from app.search.facets import Counts
from app.storage.filters.model import Field as ValueField
from app.storage.filters.parser import MAX_CHARS
from app.storage.filters.values import NO_VALUE, Order, Place, parse_field, parse_order

MAX_FACETS = 10
MAX_FACET_SIZE = 100
MAX_GROUP_SIZE = 100
COMMAS = re.compile(r'(?:"[^"]*"|[^,"])+')  # between the fields of a parameter; a quoted name may have one

ORDER = "The order: score (the ranking), taken_at, created_at, width, bytes or metadata.KEY; a leading - descends."
GROUP = "At most group_size hits of each job_id, video_id, camera, day, month or metadata.KEY."
FACETS = "Count the values of these fields: tags, auto_tags, format, camera, lens, year, metadata.KEY."

COLLAPSE = "Of near-duplicates among the hits show the best alone; the others are its duplicates."
DIVERSITY = "From 0 (off) to 1: how unlike each other the first hits are (maximal marginal relevance)."
OFFSET = "Skip so many hits of the ranking; offset + k is 10,000 at most."

FieldText = Annotated[str, Field(max_length=MAX_CHARS)]
FacetSize = Annotated[int, Field(ge=1, le=MAX_FACET_SIZE), WHOLE]
OrderQuery = Annotated[FieldText | None, Query(description=ORDER, examples=["-created_at"])]
FacetsQuery = Annotated[
    list[FieldText] | None,
    Query(
        max_length=MAX_FACETS,
        description=f"{FACETS[:-1]}; repeated, or with commas between them.",
        examples=["tags,format"],
    ),
]
FacetSizeQuery = Annotated[FacetSize, Query(description="How many values of each facet, the most frequent.")]


class ArrangementIn(BaseModel):
    """How the hits of a search are arranged."""

    offset: Annotated[int, Field(ge=0, lt=MAX_PLACES, description=OFFSET), WHOLE] = 0
    order_by: Annotated[FieldText | None, Field(description=ORDER, examples=["-created_at"])] = None
    group_by: Annotated[FieldText | None, Field(description=GROUP, examples=["day"])] = None
    group_size: Annotated[int, Field(ge=1, le=MAX_GROUP_SIZE), WHOLE] = 1
    collapse: Annotated[bool, Field(description=COLLAPSE)] = False
    diversity: Annotated[FiniteFloat, Field(ge=0, le=1, description=DIVERSITY)] = 0.0
    facets: Annotated[list[FieldText], Field(max_length=1000), describe_field(maxItems=MAX_FACETS)] = Field(
        default_factory=list, description=FACETS
    )
    facet_size: FacetSize = 10

    def parse(self, k: int, target: Target) -> Arrangement:
        """Raises Validation."""
        if self.offset + k > MAX_PLACES:
            raise Validation(f"offset + k must be {MAX_PLACES} at most, got {self.offset} + {k}")
        return Arrangement(
            offset=self.offset,
            order=None if self.order_by is None else parse_order(self.order_by, target),
            group=None if self.group_by is None else parse_field(self.group_by, target, "group_by"),
            group_size=self.group_size,
            diversity=self.diversity,
            collapse=self.collapse,
            facets=parse_facets(self.facets, target),
            facet_size=self.facet_size,
        )


async def get_arrangement(
    offset: Annotated[int, Query(ge=0, lt=MAX_PLACES, description=OFFSET)] = 0,
    order_by: OrderQuery = None,
    group_by: Annotated[FieldText | None, Query(description=GROUP, examples=["day"])] = None,
    group_size: Annotated[int, Query(ge=1, le=MAX_GROUP_SIZE, description="How many hits of each group.")] = 1,
    collapse: Annotated[bool, Query(description=COLLAPSE)] = False,
    diversity: Annotated[FiniteFloat, Query(ge=0, le=1, description=DIVERSITY)] = 0.0,
    facets: FacetsQuery = None,
    facet_size: FacetSizeQuery = 10,
) -> ArrangementIn:
    """The arrangement in an address."""
    return ArrangementIn(
        offset=offset,
        order_by=order_by,
        group_by=group_by,
        group_size=group_size,
        collapse=collapse,
        diversity=diversity,
        facets=split_fields(facets),
        facet_size=facet_size,
    )


ArrangementDep = Annotated[ArrangementIn, Depends(get_arrangement)]


class FacetOut(BaseModel):
    """A value, and how many records have it."""

    value: str | int | float | bool
    count: int


def is_none(value: Any) -> bool:
    """Whether a field of an answer is left out."""
    return value is None


FacetsOut = dict[str, list[FacetOut]]
FACETS_FIELD: Any = Field(None, exclude_if=is_none, description="The most frequent values of the facets asked for.")


def split_fields(texts: Sequence[str] | None) -> list[str]:
    """The fields of a parameter that is repeated, or has commas between them."""
    return [name.strip() for text in texts or () for name in COMMAS.findall(text)]


def parse_facets(names: Sequence[str], target: Target) -> tuple[ValueField, ...]:
    """The fields of facets, each once. Raises Validation."""
    if len(names) > MAX_FACETS:
        raise Validation(f"facets: a call counts {MAX_FACETS} fields at most, these are {len(names)}")
    return tuple(dict.fromkeys(parse_field(name, target, "facets") for name in names))


def parse_list_order(text: str | None) -> Order | None:
    """The order of a list of pictures, which have no scores. Raises Validation."""
    order = None if text is None else parse_order(text, "images")
    if order is not None and order.field.name == "score":
        raise Validation("order_by: only hits of a search have a score")
    return order


def facets_out(counted: Mapping[str, Counts]) -> FacetsOut:
    return {name: [FacetOut(value=value, count=count) for value, count in found] for name, found in counted.items()}


def encode_place(order: Order, place: Place) -> str:
    """The cursor of an ordered list."""
    text = json.dumps([order.text, place.rank, place.value, place.key], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_place(order: Order, cursor: str | None) -> Place | None:
    """Raises BadRequest for a cursor that no list in this order has given."""
    if cursor is None:
        return None
    try:
        text, rank, value, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        is_sound = text == order.text and type(rank) is int and 0 <= rank <= NO_VALUE and type(key) is int
        if is_sound and 0 <= key < 1 << 63 and (value is None or type(value) in (str, int, float)):
            return Place(rank, value, key)
    except (ValueError, TypeError):
        pass
    raise BadRequest("the cursor is not one that a listing in this order has given")
