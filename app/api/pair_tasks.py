"""Requests for tasks that need pairs of pictures and texts: a source in JSON, or a set that a form sends along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Request, Response
from pydantic import Field

from app.api.admission import content_type, is_json_type
from app.api.dependencies import DecodePoolDep, JobsDep, SourcePolicyDep, ThreadsDep, receive_json
from app.api.idempotency import IdempotencyDep, hash_form
from app.api.multipart import File, FormModel, receive_form
from app.api.openapi import describe_field
from app.api.routes.jobs import job_response
from app.api.schemas.fields import RequestModel, ShortText
from app.api.schemas.jobs import JobOut
from app.core.types import Job
from app.service.pair_sets import pack_parameters
from app.sources.pairs import CAPTIONS, PAIRS_PREFIX, read_pairs, resolve_source

PairSource = Annotated[
    ShortText,
    Field(description=f"`{CAPTIONS}`: those of the collection; `{PAIRS_PREFIX}PATH`: a set of pairs on the server."),
    describe_field(pattern=f"^({CAPTIONS}$|{PAIRS_PREFIX})"),
]
Split = Annotated[ShortText, Field(description="Which part of a set of Karpathy's form.")]


class PairsIn(RequestModel):
    source: PairSource
    split: Split


class PairsForm(FormModel):
    file: File
    split: Split


B = TypeVar("B", bound=PairsIn)
F = TypeVar("F", bound=PairsForm)
A = TypeVar("A", covariant=True)


@dataclass(frozen=True, slots=True)
class PairsRequest(Generic[A]):
    """What was asked for; the parameters of its task that say which pairs; and what makes two requests the same."""

    asked: A
    parameters: Mapping[str, Any]
    content: Callable[[], bytes]


class PairTasks:
    """A dependency of routes that begin such a task."""

    def __init__(
        self,
        request: Request,
        jobs: JobsDep,
        pool: DecodePoolDep,
        policy: SourcePolicyDep,
        threads: ThreadsDep,
        idempotency: IdempotencyDep,
    ) -> None:
        self._request = request
        self._jobs = jobs
        self._pool = pool
        self._policy = policy
        self._threads = threads
        self._idempotency = idempotency

    async def receive(self, folder: Path, body: type[B], form: type[F]) -> PairsRequest[B | F]:
        """Read the request; a set is written to `folder`. Raises Validation for a source that may not be read."""
        if is_json_type(content_type(self._request)):
            asked = await receive_json(self._request, body)
            source = await self._threads.reads.run(resolve_source, asked.source, self._policy.folders)
            return PairsRequest(asked, {"source": source}, partial(str.encode, asked.model_dump_json()))
        sent, content = await receive_form(self._request, folder, form, 1)
        suffix = Path(sent.file.filename).suffix
        pairs = await self._threads.writes.run(read_pairs, self._pool, sent.file.path, suffix, sent.split)
        return PairsRequest(sent, await self._threads.reads.run(pack_parameters, pairs), partial(hash_form, content))

    async def begin(
        self, received: PairsRequest[Any], collection: str, kind: str, more: Mapping[str, Any]
    ) -> Response | JobOut:
        """Make the job, or give the answer that this request got before. `more` are other parameters of its task."""
        parameters = {**received.parameters, "split": received.asked.split, **more}
        async with self._idempotency.begin(received.content, Job, job_response) as call:
            if (replay := call.replay) is not None:
                return replay
            job = await self._threads.writes.run(self._jobs.add_task, collection, kind, parameters, call.slot)
        return JobOut.of(job)


PairTasksDep = Annotated[PairTasks, Depends()]
