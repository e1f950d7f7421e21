"""Texts that fit a picture: classification, matching, questions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.multipart import MAX_FIELDS, File, FormModel
from app.api.openapi import describe_field
from app.api.schemas.fields import MAX_ANSWERS, CollectionName, Id, QueryText, RequestModel, Template, example
from app.api.schemas.images import WarningOut
from app.api.schemas.search import WARNINGS_FIELD


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
