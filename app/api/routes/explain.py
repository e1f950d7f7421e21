"""Why a picture meets words: a grid of weights, or the picture with a heat map."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from app.api.admission import EXPLANATIONS, take_seat
from app.api.dependencies import CollectionDep, ExplainDep, SettingsDep, ThreadsDep, validate_query
from app.api.openapi import describe_field
from app.api.schemas.explain import ExplanationOut
from app.api.schemas.fields import TIME_WORDS, TODAY, Day, QueryText
from app.api.strict_route import new_router
from app.core.errors import Validation
from app.search.query import SearchQuery
from app.search.query_encoder import QueryPart
from app.search.query_syntax import parse_weighted_query

router = new_router("/v1/images", "search")

PNG, JSON = "image/png", "application/json"
SIDE = 640  # pixels of the longer side
NO_WORDS = "q: a minus turns away from words; say what to look for, too"


@router.get(
    "/{id}/explain",
    response_model=ExplanationOut,
    responses={200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def explain_image(
    request: Request,
    explain: ExplainDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    id: str,
    q: Annotated[
        QueryText,
        describe_field(pattern='[^\\s"－−-]'),
        Query(description='The words, as in a search ("beach -people").', examples=["red car"]),
    ],
    size: Annotated[int, Query(ge=64, le=2048, description="Longest side of the PNG, in pixels.")] = SIDE,
    time_words: Annotated[bool | None, Query(description=TIME_WORDS)] = None,
    today: Annotated[Day | None, Query(description=TODAY)] = None,
) -> Response | ExplanationOut:
    """Say which part of a picture meets words, and which of the words counted.

    With `Accept: image/png` the answer is the picture with a heat map.
    """
    words = parse_weighted_query(validate_query(q, settings))
    if not any(weight > 0 for _, weight in words):
        raise Validation(NO_WORDS)
    parts = [QueryPart(text=text, weight=weight, field="q") for text, weight in words]
    query = SearchQuery(parts, collection=collection, time_words=time_words, today=today)
    async with take_seat(request, EXPLANATIONS):
        if wants_picture(request.headers.get("accept", "")):
            png = await threads.explanations.run(explain.draw, id, query, size)
            return Response(png, media_type=PNG, headers={"Vary": "Accept", "Cache-Control": "no-store"})
        found = await threads.explanations.run(explain.explain, id, query)
    return ExplanationOut.of(id, found)


def wants_picture(accept: str) -> bool:
    """Whether a header Accept prefers a PNG to JSON; it does not if it names neither."""
    return rate_type(accept, PNG) > rate_type(accept, JSON)


def rate_type(accept: str, kind: str) -> float:
    """The quality of a media type: that of the narrowest range that has it."""
    ranges = ("*/*", kind.split("/")[0] + "/*", kind)
    best = (-1, 0.0)
    for entry in accept.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        if name not in ranges:
            continue
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            best = max(best, (ranges.index(name), float(quality)))
        except ValueError:
            continue
    return best[1]
