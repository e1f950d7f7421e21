"""Evaluations: a job that measures how good the search is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Request
from pydantic import ConfigDict, Field

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
from app.core.errors import Validation
from app.core.types import Job
from app.service.evaluation import EVALUATE, pack_parameters, validate_ks
from app.sources.base import SourcePolicy
from app.sources.pairs import CAPTIONS, PAIRS_PREFIX, read_pairs, resolve_source

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

    model_config = ConfigDict(json_schema_extra=example(source=CAPTIONS))

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


BODY = describe_form(EvaluationForm)
BODY["requestBody"]["content"]["application/json"] = {"schema": EvaluationIn.model_json_schema()}


@router.post("", status_code=202, openapi_extra=BODY, response_model=JobOut)
async def evaluate_search(
    request: Request,
    library: LibraryDep,
    jobs: JobsDep,
    pool: DecodePoolDep,
    policy: SourcePolicyDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    idempotency: IdempotencyDep,
) -> Any:
    """Measure how good the search is. A job does it; its `result` has the figures and the worst misses.

    The texts are the captions of the collection, or those of a set of pairs: a table of pictures and texts, or a file
    of Karpathy's splits of COCO or Flickr30k. The pictures of a set are those stored, or in a folder of the server.
    """
    async with open_incoming_folder(library, threads) as folder:
        asked: EvaluationIn | EvaluationForm
        if is_json_type(content_type(request)):
            asked = await receive_json(request, EvaluationIn)
            content = partial(str.encode, asked.model_dump_json())
            said = await threads.reads.run(resolve_pairs, asked, policy)
        else:
            asked, form = await receive_form(request, folder, EvaluationForm, 1)
            content = partial(hash_form, form)
            suffix = Path(asked.file.filename).suffix
            pairs = await threads.writes.run(read_pairs, pool, asked.file.path, suffix, asked.split)
            said = await threads.reads.run(pack_parameters, pairs)
        asked = merge_query(asked, collection=collection)
        collection = validate_collection(asked.collection)
        if asked.pictures is not None:
            said["pictures"] = str(await threads.reads.run(policy.folders.resolve_folder, asked.pictures))
        said |= {"k": validate_ks(asked.k), "split": asked.split}
        async with idempotency.begin(content, Job, job_response) as call:
            if (replay := call.replay) is not None:
                return replay
            job = await threads.writes.run(jobs.add_task, collection, EVALUATE, said, call.slot)
    return JobOut.of(job)


def resolve_pairs(asked: EvaluationIn, policy: SourcePolicy) -> dict[str, Any]:
    """The source of a set. Raises Validation unless it is the captions, or a set that the server may read."""
    if asked.source == CAPTIONS and asked.pictures is not None:
        raise Validation(f"pictures belongs to a set, not to the source {CAPTIONS}")
    return {"source": resolve_source(asked.source, policy.folders)}
