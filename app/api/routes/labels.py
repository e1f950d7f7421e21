"""The labels of a collection: its pictures are tagged by them, as they come and on request."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from app.api.dependencies import (
    JobsDep,
    LabelsDep,
    SettingsDep,
    ThreadsDep,
    validate_collection,
    validate_query,
)
from app.api.idempotency import IdempotencyDep
from app.api.openapi import CollectionText, describe_field
from app.api.routes.jobs import job_response
from app.api.schemas.fields import MAX_TEMPLATES, QueryTemplates, QueryText, RequestModel, UnicodeText, example
from app.api.schemas.images import WarningOut
from app.api.schemas.jobs import JobOut
from app.api.strict_route import new_router
from app.core.errors import Validation
from app.core.settings import Settings
from app.core.types import AnswerWarning, Job, Label
from app.search.templates import PLAIN, fill
from app.service.labels import KIND, LabelState
from app.storage.attributes import MAX_TAG_CHARS, check_text

router = new_router("/v1/collections", "collections")

MAX_LABELS = 1_000  # of a collection
MAX_TEXTS = 16  # of a label
MAX_SENTENCES = 4_000  # texts of all labels, templates filled
THRESHOLD = 0.3  # at 0.5 as many are right and half as many are found (docs/benchmarks.md)
NOT_PAIRS = AnswerWarning(
    "not_calibrated",
    "this collection does not tell yet how near a text must be to fit, so a probability is the share of a label among"
    " all labels: a picture that none of them fits gets some; add labels for what else there is, or raise thresholds",
    "labels",
)
ONE_LABEL = AnswerWarning(
    "not_calibrated",
    "this collection does not tell yet how near a text must be to fit, and one label alone has no share: no picture is"
    " tagged until it is measured, or there are two labels",
    "labels",
)

Threshold = Annotated[FiniteFloat, Field(gt=0, le=1)]
LabelText = Annotated[UnicodeText, Field(min_length=1), describe_field(maxLength=MAX_TAG_CHARS)]


class LabelIn(RequestModel):
    """A label: a picture that it fits gets it as a tag."""

    label: LabelText
    texts: Annotated[list[QueryText], Field(max_length=MAX_TEXTS, fail_fast=True)] = Field(
        default_factory=list, description="What describes it, if not its own words; the mean of their vectors counts."
    )
    templates: QueryTemplates | None = Field(None, description="Sentences with {} for this label, as of a search.")
    threshold: Threshold | None = Field(None, description="The probability from which a picture gets it.")


class LabelsIn(RequestModel):
    """The labels of a collection, which replace those that it has."""

    model_config = ConfigDict(
        json_schema_extra=example(
            labels=[{"label": "car"}, {"label": "people", "texts": ["a person", "a crowd"], "threshold": 0.7}],
            threshold=0.5,
        )
    )

    labels: Annotated[list[LabelIn], Field(max_length=MAX_LABELS, fail_fast=True)]
    templates: QueryTemplates = Field("auto", description="Sentences with {} for labels that have none of their own.")
    threshold: Threshold = Field(THRESHOLD, description="Of labels that have none of their own.")


class CollectionLabelOut(BaseModel):
    """A label, and how many pictures have it."""

    label: str
    texts: list[str]
    templates: list[str] | Literal["auto"]
    threshold: float
    tagged: int


class AppliedLabelsOut(BaseModel):
    """How all pictures were last tagged."""

    at: str
    is_current: bool = Field(description="Whether it was by these labels.")
    basis: Literal["pairs", "shares", "none"] | None


class LabelsOut(BaseModel):
    """The labels of a collection. `basis` says what probabilities are, null while that is not known yet."""

    collection: str
    labels: list[CollectionLabelOut]
    basis: Literal["pairs", "shares", "none"] | None = Field(
        description="pairs: each label by itself, as of POST /v1/match; shares: among the labels, as of POST"
        " /v1/classify; none: nothing tells, and nothing is tagged."
    )
    applied: AppliedLabelsOut | None
    job: str | None = Field(description="The job that this call has begun, which tags what is there.")
    warnings: list[WarningOut]

    @classmethod
    def of(cls, collection: str, state: LabelState) -> Self:
        held, basis = state.set, state.way and state.way[2]
        labels = held.labels if held else ()
        said = held.applied if held else None
        applied: Any = said and {
            "at": said["at"],
            "is_current": held is not None and said["revision"] == held.revision,
            "basis": said["basis"],
        }
        warnings = {"shares": [WarningOut.of(NOT_PAIRS)], "none": [WarningOut.of(ONE_LABEL)]}
        return cls(
            collection=collection,
            labels=[
                CollectionLabelOut(
                    label=one.label,
                    texts=list(one.texts),
                    templates="auto" if one.templates is None else list(one.templates),
                    threshold=one.threshold,
                    tagged=state.tagged.get(one.label, 0),
                )
                for one in labels
            ],
            basis=basis,
            applied=applied,
            job=state.job_id,
            warnings=warnings.get(basis or "", []) if labels else [],
        )


@router.get("/{name}/labels")
async def get_labels(labels: LabelsDep, threads: ThreadsDep, name: CollectionText) -> LabelsOut:
    """Get the labels of a collection, with how many pictures each has tagged."""
    name = validate_collection(name)
    return LabelsOut.of(name, await threads.reads.run(labels.get, name))


@router.put("/{name}/labels")
async def set_labels(
    labels: LabelsDep, settings: SettingsDep, threads: ThreadsDep, name: CollectionText, body: LabelsIn
) -> LabelsOut:
    """Replace the labels of a collection. New pictures are tagged as they come; a job tags those that are there.

    It takes off the tags of labels that are gone.
    """
    name = validate_collection(name)
    wanted = check_labels(body, settings)
    return LabelsOut.of(name, await threads.writes.run(labels.set, name, wanted))


@router.delete("/{name}/labels", status_code=204, response_model=None)
async def delete_labels(labels: LabelsDep, threads: ThreadsDep, name: CollectionText) -> Response | None:
    """Take all labels away. A job takes their tags off the pictures."""
    await threads.writes.run(labels.set, validate_collection(name), [])
    return None


@router.post("/{name}/labels/apply", status_code=202, response_model=JobOut)
async def apply_labels(jobs: JobsDep, threads: ThreadsDep, name: CollectionText, idempotency: IdempotencyDep) -> Any:
    """Compare every picture with the labels again: after the collection has grown much, say."""
    name = validate_collection(name)
    async with idempotency.begin(name.encode, Job, job_response) as call:
        if (replay := call.replay) is not None:
            return replay
        begun = await threads.writes.run(jobs.add_task, name, KIND, {}, call.slot)
    return JobOut.of(begun)


def check_labels(body: LabelsIn, settings: Settings) -> list[Label]:
    """The labels with what they leave to the collection. Raises Validation."""
    found: dict[str, Label] = {}
    sentences = 0
    for n, one in enumerate(body.labels):
        check_text("label", one.label, MAX_TAG_CHARS)
        if one.label in found:
            raise Validation(f"labels: {one.label[:60]!r} is there twice, expected once")
        if one.label != one.label.strip():
            raise Validation(f"labels.{n}.label: it begins or ends with a space")
        texts = tuple(dict.fromkeys(one.texts)) or (one.label,)
        templates = read_templates(body.templates if one.templates is None else one.templates, n)
        for text in texts:
            for template in templates or PLAIN:
                validate_query(fill(template, text), settings)
        sentences += len(texts) * len(templates or PLAIN)
        threshold = body.threshold if one.threshold is None else one.threshold
        found[one.label] = Label(one.label, texts, threshold, templates)
    if sentences > MAX_SENTENCES:
        raise Validation(f"labels: with their templates they make {sentences} texts; {MAX_SENTENCES} at most")
    return list(found.values())


def read_templates(sent: QueryTemplates, n: int) -> tuple[str, ...] | None:
    """None where the choice is left to the server. Raises Validation."""
    if sent in ("auto", ["auto"]):
        return None
    if sent in ("none", ["none"]):
        return PLAIN
    if wrong := next((one for one in sent if "{}" not in one), None):
        raise Validation(f"labels.{n}.templates: {wrong[:60]!r} has no {{}} where the text goes")
    return tuple(dict.fromkeys(sent))[:MAX_TEMPLATES]
