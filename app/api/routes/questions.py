"""Questions about a picture, with the answers that there may be."""

from __future__ import annotations

from fastapi import Request

from app.api.admission import BATCHES, take_seat
from app.api.dependencies import (
    OptionalCollectionDep,
    QuestionsDep,
    SettingsDep,
    ThreadsDep,
    merge_query,
    validate_collection,
    validate_query,
)
from app.api.schemas.images import WarningOut
from app.api.schemas.zero_shot import AnswerOut, AskIn, AskOut
from app.api.strict_route import new_router
from app.core.errors import Validation

router = new_router("/v1/images", "search")


@router.post("/{id}/ask")
async def ask_about_image(
    request: Request,
    questions: QuestionsDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    id: str,
    body: AskIn,
) -> AskOut:
    """Say which of the answers to a question about a picture is right.

    `by` says what has answered: the captioner, if it is a server, or the encoder.
    """
    for text in (body.question, *body.answers):
        validate_query(text, settings)
    if twice := [answer for n, answer in enumerate(body.answers) if answer in body.answers[:n]]:
        raise Validation(f"answers: {twice[0][:60]!r} is there twice, expected once")
    collection = validate_collection(merge_query(body, collection=collection).collection)
    by = questions.choose(body.by)
    pool = threads.outside if by == "captioner" else threads.queries
    async with take_seat(request, BATCHES):
        found = await pool.run(questions.ask, collection, id, body.question, body.answers, by)
    return AskOut(
        question=body.question,
        answers=[AnswerOut(answer=answer, probability=share) for answer, share in found.answers],
        by=found.by,
        model=found.model,
        warnings=[WarningOut.of(warning) for warning in found.warnings],
    )
