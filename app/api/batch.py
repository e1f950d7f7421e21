"""Many searches in one call: they share the encoder's passes and the searches of each index."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from fastapi import APIRouter, Response

from app.api.depends import LanesDep, NamedDep, ServiceDep, incoming
from app.api.schemas import BatchIn, BatchOut, ErrorOut, RefusedOut, SearchOut
from app.api.search import answer, asked
from app.errors import SightlineError, Validation
from app.search import Found, Question, attempt
from app.service import Service

batches = APIRouter(prefix="/v1", tags=["search"])

LARGE = 10  # one call may ask for as much as so many of the largest searches: hits and parts
MOST_PARTS = 32 * LARGE


@batches.post("/search/batch", response_model=BatchOut)
async def search_batch(service: ServiceDep, lanes: LanesDep, collection: NamedDep, body: BatchIn) -> Response:
    """Up to 100 searches; the answers come in their order, each like that of a search, or why there is none."""
    check_size(body, service)
    sent = any(part.image is not None for search in body.searches for part in search.query)
    async with incoming(service, lanes) if sent else nullcontext() as folder:
        questions = await lanes.writes.run(questions_of, service, body, collection, folder)
        content = await lanes.queries.run(answered, service, questions)
    return Response(content, media_type="application/json")


def check_size(body: BatchIn, service: Service) -> None:
    """Raise Validation for a call that asks for more than is reasonable in one."""
    most = LARGE * service.settings.max_k
    if (hits := sum(search.k for search in body.searches)) > most:
        raise Validation(f"the searches of one call may ask for {most} hits, these ask for {hits}")
    if (parts := sum(len(search.query) for search in body.searches)) > MOST_PARTS:
        raise Validation(f"the searches of one call may have {MOST_PARTS} parts, these have {parts}")


def questions_of(
    service: Service, body: BatchIn, collection: str | None, folder: Path | None
) -> list[Question | SightlineError]:
    """The question of each search, or what is wrong with it."""
    questions = []
    for n, search in enumerate(body.searches):
        below = folder / str(n) if folder else None
        if below:
            below.mkdir()
        questions.append(attempt(lambda s=search, f=below: asked(service, s, collection, f)))  # type: ignore[misc]
    return questions


def answered(service: Service, questions: list[Question | SightlineError]) -> bytes:
    """The body of the answer. Made here, in a thread: thousands of records would hold the event loop up."""
    found = iter(service.searcher.search_all([one for one in questions if isinstance(one, Question)]))
    answers: list[SearchOut | RefusedOut] = []
    for question in questions:
        outcome = next(found) if isinstance(question, Question) else question
        if isinstance(question, Question) and isinstance(outcome, Found):
            answers.append(answer(service, outcome, question.target))
        elif isinstance(outcome, SightlineError):
            answers.append(RefusedOut(error=ErrorOut(code=outcome.code, detail=outcome.detail)))
    return BatchOut(answers=answers).model_dump_json().encode()
