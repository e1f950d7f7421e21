"""Evaluations: a job that measures how good the search is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Request
from pydantic import Field

from app.api.admission import BodyLimit, content_type, is_json_type
from app.api.dependencies import (
    DecodePoolDep,
    JobsDep,
    LibraryDep,
    OptionalCollectionDep,
    SourcePolicyDep,
    ThreadsDep,
    merge_query,
    open_incoming_folder,
    receive_json,
    validate_collection,
)
from app.api.idempotency import IdempotencyDep, hash_form
from app.api.multipart import File, FormModel, describe_form, receive_form
from app.api.openapi import describe_field
from app.api.routes.jobs import job_response
from app.api.schemas import CollectionName, JobOut, RequestModel, ShortText, example
from app.api.strict_route import new_router
from app.core.types import Job
from app.service.evaluation import EVALUATE, parse_parameters
from app.sources.pairs import CAPTIONS, PAIRS_PREFIX, read_pairs

MAX_SET_BYTES = 256 << 20
SET = BodyLimit(lambda settings: settings.max_json_bytes, lambda settings: MAX_SET_BYTES)
router = new_router("/v1/evaluations", "search", SET)

K = Annotated[
    list[Annotated[int, Field(ge=1, le=100)]],
    Field(max_length=10, description="Recall at which k (1, 5, 10).", examples=[[1, 5, 10]]),
]
Pictures = Annotated[
    ShortText | None,
    Field(description="A folder of the server with the pictures of the set; without it they are those stored."),
]
Split = Annotated[ShortText, Field(description="Which part of a set of Karpathy's form.", examples=["test"])]


class EvaluationIn(RequestModel):
    """What to measure the search by."""

    model_config = example_config = {"json_schema_extra": example(source="captions")}

    source: Annotated[
        ShortText,
        Field(description=f"`{CAPTIONS}`: the captions of the collection; `{PAIRS_PREFIX}PATH`: a set on the server."),
        describe_field(pattern=f"^({CAPTIONS}$|{PAIRS_PREFIX})"),
    ]
    k: K = Field(default_factory=list)
    split: Split = "test"
    pictures: Pictures = None
    collection: CollectionName = None


class EvaluationForm(FormModel):
    """A set of pairs, and how to measure by it."""

    file: File
    k: K = Field(default_factory=list)
    split: Split = "test"
    pictures: Pictures = None
    collection: CollectionName = None
