"""Evaluations: a job that measures how good the search is."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from app.api.admission import BodyLimit
from app.api.dependencies import (
    LibraryDep,
    OptionalCollectionDep,
    SourcePolicyDep,
    ThreadsDep,
    merge_query,
    open_incoming_folder,
    validate_collection,
)
from app.api.multipart import describe_form
from app.api.pair_tasks import PairsForm, PairsIn, PairTasksDep, Split
from app.api.schemas.fields import WHOLE, CollectionName, ShortText, example
from app.api.schemas.jobs import JobOut
from app.api.strict_route import new_router
from app.core.errors import Validation
from app.service.evaluation import EVALUATE, validate_ks
from app.sources.pairs import CAPTIONS

MAX_SET_BYTES = 256 << 20
SET = BodyLimit(lambda settings: settings.max_json_bytes, lambda settings: MAX_SET_BYTES)
router = new_router("/v1/evaluations", "search", SET)

K = Annotated[
    list[Annotated[int, Field(ge=1, le=100), WHOLE]],
    Field(max_length=10, description="Recall at which k (1, 5, 10).", examples=[[1, 5, 10]]),
]
Pictures = Annotated[
    ShortText | None,
    Field(description="A folder of the server with the pictures of the set; without it they are those stored."),
]


class EvaluationIn(PairsIn):
    """What to measure the search by."""

    model_config = ConfigDict(json_schema_extra=example(source=CAPTIONS))

    k: K = Field(default_factory=list)
    split: Split = "test"
    pictures: Pictures = None
    collection: CollectionName = None


class EvaluationForm(PairsForm):
    """A set of pairs, and how to measure by it."""

    k: K = Field(default_factory=list)
    split: Split = "test"
    pictures: Pictures = None
    collection: CollectionName = None


BODY = describe_form(EvaluationForm, EvaluationIn)


@router.post("", status_code=202, openapi_extra=BODY, response_model=JobOut)
async def evaluate_search(
    tasks: PairTasksDep,
    library: LibraryDep,
    policy: SourcePolicyDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
) -> Any:
    """Measure how good the search is. A job does it; its `result` has the figures and the worst misses.

    The texts are the captions of the collection, or those of a set of pairs: a table of pictures and texts, or a file
    of Karpathy's splits of COCO or Flickr30k. The pictures of a set are those stored, or in a folder of the server.
    """
    async with open_incoming_folder(library, threads) as folder:
        received = await tasks.receive(folder, EvaluationIn, EvaluationForm)
        asked = merge_query(received.asked, collection=collection)
        how: dict[str, Any] = {"k": validate_ks(asked.k)}
        if asked.pictures is not None:
            if received.parameters.get("source") == CAPTIONS:
                raise Validation(f"pictures belongs to a set, not to the source {CAPTIONS}")
            how["pictures"] = str(await threads.reads.run(policy.folders.resolve_folder, asked.pictures))
        return await tasks.begin(received, validate_collection(asked.collection), EVALUATE, how)
