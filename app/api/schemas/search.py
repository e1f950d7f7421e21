"""Searches: queries, hits, and how they were found."""

from __future__ import annotations

import operator
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, SkipValidation, model_validator

from app.api.arrangement import FACETS_FIELD, ArrangementIn, FacetsOut, is_none
from app.api.multipart import File, FormModel
from app.api.schemas.fields import (
    CALIBRATE,
    EFFORT,
    EXACT,
    HIT_LIMIT,
    MAX_NUMBERS,
    MAX_PICTURE_CHARS,
    MODE,
    SCORE_THRESHOLD,
    TEMPLATES,
    TIME_WORDS,
    TODAY,
    WHOLE,
    CollectionName,
    Day,
    Effort,
    FormFilter,
    HitCount,
    Id,
    Mode,
    QueryTemplates,
    QueryText,
    RequestModel,
    ScoreThreshold,
    SearchEffort,
    Target,
    both,
    example,
    one_of,
)
from app.api.schemas.images import ErrorOut, ImageOut, WarningOut, describe_image
from app.api.schemas.texts import TextOut
from app.core.errors import Validation
from app.core.types import Hit
from app.storage.filters.parser import FilterNode

OLD_NAMES = (("nprobe", "probes"), ("refine_k", "rerank"))


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


def describe_hit(hit: Hit) -> dict[str, Any]:
    """The fields of `HitOut`."""
    ranks = hit.ranks
    described: dict[str, Any] = {
        "id": hit.id,
        "score": round(hit.score, 6),
        "image": describe_image(hit.image) if hit.image else None,
        "text": TextOut.of(hit.text) if hit.text else None,
        "ranks": {"vector": ranks.get("vector"), "keyword": ranks.get("keyword")},
        "matched": list(hit.highlights),
        "highlights": hit.highlights,
    }
    if hit.duplicates:
        described["duplicates"] = [
            {"id": one.id, "score": round(one.score, 6), "similarity": round(one.similarity, 6)}
            for one in hit.duplicates
        ]
    return described


class VerdictOut(BaseModel):
    """Whether anything fits the query."""

    match: Literal["good", "weak", "none"]
    confidence: float = Field(description="0: it could be either; 1: certain.")
    threshold: float | None = Field(
        description="What pictures with a lower score show does not fit; null where that is not known."
    )


class TimeOut(BaseModel):
    """Words of time in a query, and from which day to which it looked for pictures; null: open."""

    model_config = ConfigDict(serialize_by_alias=True)

    text: str
    from_: date | None = Field(alias="from")
    to: date | None


class AppliedOut(BaseModel):
    """How a search was answered."""

    mode: Mode
    effort: SearchEffort = Field(
        description="How far an approximate index was searched; an exact one is compared whole."
    )
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

    model_config = ConfigDict(json_schema_extra={"not": {"anyOf": [both(*names) for names in OLD_NAMES]}})

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
    effort: SearchEffort | None = Field(None, description=EFFORT)
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
    effort: Annotated[SearchEffort | None, Field(description=EFFORT, examples=["normal"])] = None
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
