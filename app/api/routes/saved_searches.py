"""Saved searches: each new picture is compared with them, and what matches is counted, streamed and sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal, Self

from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth import AccessDep
from app.api.dependencies import (
    DryRunQuery,
    OptionalCollectionDep,
    SavedSearchesDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    decode_cursor,
    encode_cursor,
    is_collection_allowed,
    merge_query,
    validate_collection,
)
from app.api.openapi import CollectionText, describe_field
from app.api.routes.jobs import LOOK_SECONDS, JobEventsDep, count_stream
from app.api.routes.search import parse_search
from app.api.schemas.fields import CollectionName, RequestModel, UnicodeText, example
from app.api.schemas.images import DeleteOut, ImageOut, WarningOut
from app.api.schemas.search import SearchIn
from app.api.strict_route import new_router
from app.core.errors import NotFound, Validation
from app.core.settings import Settings
from app.core.types import AnswerWarning, Image, KeyScope, Match, SavedSearch
from app.search.saved_query import GOOD
from app.service.saved_searches import Changes, Counted, SavedSearchService
from app.service.search_service import SearchService

router = new_router("/v1/saved-searches", "search")

EVENTS_AT_ONCE = 100  # of a stream that are read at once
MAX_QUERY_CHARS = 100_000
NOT_CALIBRATED = AnswerWarning(
    "not_calibrated",
    "this collection does not tell yet how near a picture must be to be good, so nothing is: give a score_threshold,"
    " or wait until it has more pictures",
    "match",
)

SavedSearchId = Annotated[str, describe_field(pattern=r"^[0-9a-f]{16}$")]
Name = Annotated[UnicodeText, Field(min_length=1, max_length=200)]
MatchRule = Annotated[
    Literal["good"] | None, Field(description="good: where the verdict would be, beside or in place of a threshold.")
]
Url = Annotated[UnicodeText, Field(min_length=1, max_length=2048)]


class WebhookIn(RequestModel):
    """Where new matches are sent."""

    url: Url | None = Field(None, description="http or https; the addresses of its host must be public.")
    new_secret: bool = Field(False, description="Make a new secret, which the answer shows once.")
    enabled: Literal[True] | None = Field(None, description="true: try again what was given up.")


class SavedSearchIn(RequestModel):
    """A search to save."""

    model_config = ConfigDict(
        json_schema_extra=example(
            name="Red cars", query={"query": [{"text": "a red car"}], "score_threshold": 0.3}, match="good"
        )
    )

    name: Name
    query: SearchIn = Field(description="As the body of POST /v1/search, for pictures.")
    match: MatchRule = None
    webhook: WebhookIn | None = None
    collection: CollectionName = None


class SavedSearchPatch(RequestModel):
    """The fields to change; what is not sent stays."""

    model_config = ConfigDict(json_schema_extra=example(seen=True))

    name: Name | None = None
    query: SearchIn | None = Field(None, description="What was found before is forgotten.")
    match: MatchRule = None
    webhook: WebhookIn | None = Field(None, description="null takes it away.")
    seen: bool | Annotated[int, Field(ge=0, lt=1 << 62)] | None = Field(
        None, description="The number `n` of the last match that was seen; true for all."
    )


class WebhookOut(BaseModel):
    """A webhook, and how it fares. `secret` is there once, in the answer that made it."""

    url: str = Field(description="Without its path for a key that may only search.")
    state: Literal["on", "waiting", "off", "disabled"] = Field(
        description="waiting: the last try failed, and is repeated; disabled: too many tries failed; off: the operator"
        " allows no webhooks."
    )
    failures: int
    error: str | None
    disabled_at: str | None
    secret: str | None = Field(None, exclude_if=lambda secret: secret is None)

    @classmethod
    def of(cls, counted: Counted, *, shows_all: bool, is_on: bool) -> Self | None:
        if (webhook := counted.search.webhook) is None:
            return None
        state = "on" if not webhook.failures else "waiting"
        state = "disabled" if webhook.disabled_at else state if is_on else "off"
        return cls(
            url=webhook.url if shows_all else "/".join(webhook.url.split("/")[:3]),
            state=state,
            failures=webhook.failures,
            error=webhook.last_error,
            disabled_at=webhook.disabled_at,
            secret=counted.secret,
        )


class SavedSearchOut(BaseModel):
    """A saved search. `total` counts the pictures that it has found, `new` those that nobody has seen."""

    id: str
    collection: str
    name: str
    query: dict[str, Any] = Field(description="The body of `POST /v1/search` that was saved, as it was sent.")
    match: Literal["good"] | None
    total: int
    new: int
    last: int = Field(description="The number of its last match; 0 before the first.")
    is_complete: bool = Field(description="Whether it was compared with every picture that is ready.")
    error: str | None = Field(description="Why it cannot be compared, such as a deleted picture in its query.")
    created_at: str
    webhook: WebhookOut | None
    warnings: list[WarningOut] = Field(default_factory=list)


class SavedSearchesOut(BaseModel):
    """Saved searches, newest first."""

    saved_searches: list[SavedSearchOut]


class MatchedOut(BaseModel):
    """A picture that a saved search has found; `score` is its cosine, null of words alone."""

    n: int
    is_new: bool = Field(description="Whether nobody has seen it.")
    score: float | None
    matched: list[Literal["vector", "keyword"]]
    matched_at: str
    image: ImageOut

    @classmethod
    def of(cls, match: Match, image: Image, seen: int) -> Self:
        matched: Any = list(match.matched)
        return cls(
            n=match.n,
            is_new=match.is_new and match.n > seen,
            score=match.score,
            matched=matched,
            matched_at=match.matched_at,
            image=ImageOut.of(image),
        )


class MatchPage(BaseModel):
    """Matches, newest first."""

    matches: list[MatchedOut]
    next_cursor: str | None


async def find_saved_search(saved: SavedSearchesDep, threads: ThreadsDep, id: SavedSearchId) -> Counted:
    counted = await threads.reads.run(saved.get, id)
    if not is_collection_allowed(counted.search.collection):
        raise NotFound(f"there is no saved search {id!r}")
    return counted


SavedSearchDep = Annotated[Counted, Depends(find_saved_search)]


@router.get("")
async def list_saved_searches(
    request: Request,
    saved: SavedSearchesDep,
    search: SearchDep,
    threads: ThreadsDep,
    collection: Annotated[CollectionText | None, Query(description="Only those of this collection.")] = None,
) -> SavedSearchesOut:
    """List saved searches with their counts, newest first."""
    named = None if collection is None else validate_collection(collection)
    found = await threads.reads.run(saved.list_all, named)
    allowed = [one for one in found if is_collection_allowed(one.search.collection)]
    return SavedSearchesOut(saved_searches=[saved_search_response(request, saved, search, one) for one in allowed])


@router.post("", status_code=201)
async def save_search(
    request: Request,
    saved: SavedSearchesDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    body: SavedSearchIn,
) -> SavedSearchOut:
    """Save a search. What matches it now is counted; each picture that comes later and matches is news."""
    named = validate_collection(merge_query(body, collection=collection).collection)
    query = check_query(settings, named, body.query, body.match)
    url = body.webhook.url if body.webhook else None
    if body.webhook is not None and url is None:
        raise Validation("webhook.url: required, and not there")
    made = await threads.writes.run(saved.add, named, body.name, query, body.match, url)
    return saved_search_response(request, saved, search, made)


@router.get("/{id}")
async def get_saved_search(
    request: Request, saved: SavedSearchesDep, search: SearchDep, counted: SavedSearchDep
) -> SavedSearchOut:
    """Get a saved search, with how many pictures it has found and how many of them are new."""
    return saved_search_response(request, saved, search, counted)


@router.patch("/{id}")
async def update_saved_search(
    request: Request,
    saved: SavedSearchesDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    counted: SavedSearchDep,
    body: SavedSearchPatch,
) -> SavedSearchOut:
    """Change a saved search, its webhook, or what was seen of it. What is not sent stays."""
    before, sent = counted.search, body.model_fields_set
    match = body.match if "match" in sent else before.match
    query = None
    if body.query is not None or "match" in sent:
        asked = SearchIn.model_validate(before.query) if body.query is None else body.query
        query = check_query(settings, before.collection, asked, match)
    webhook = body.webhook or WebhookIn()
    changes = Changes(
        name=body.name,
        query=query,
        match=match,
        seen=body.seen,
        url="" if "webhook" in sent and body.webhook is None else webhook.url,
        new_secret=webhook.new_secret,
        enable=bool(webhook.enabled),
    )
    changed = await threads.writes.run(saved.change, before.id, changes)
    return saved_search_response(request, saved, search, changed)


@router.delete("/{id}", status_code=204, response_model=None, responses={200: {"model": DeleteOut[SavedSearchOut]}})
async def delete_saved_search(
    request: Request,
    saved: SavedSearchesDep,
    search: SearchDep,
    threads: ThreadsDep,
    counted: SavedSearchDep,
    dry_run: DryRunQuery = None,
) -> Response | None:
    """Delete a saved search, with what it has found and its webhook. No picture is deleted."""
    if dry_run:
        record = saved_search_response(request, saved, search, counted)
        return JSONResponse(DeleteOut.dry_run(record).model_dump())
    await threads.writes.run(saved.delete, counted.search.id)
    return None


@router.get("/{id}/matches")
async def list_matches(
    saved: SavedSearchesDep,
    threads: ThreadsDep,
    counted: SavedSearchDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> MatchPage:
    """List the pictures that a saved search has found, the newest match first; the last 10,000 are kept."""
    search = counted.search
    found = await threads.reads.run(saved.list_matches, search.id, limit + 1, decode_cursor(cursor))
    return MatchPage(
        matches=[MatchedOut.of(match, image, search.seen) for match, image in found[:limit]],
        next_cursor=encode_cursor(found[limit - 1][0].n) if len(found) > limit else None,
    )


@router.get("/{id}/events", response_class=EventSourceResponse, dependencies=[Depends(count_stream)])
async def follow_saved_search(
    request: Request,
    saved: SavedSearchesDep,
    threads: ThreadsDep,
    events: JobEventsDep,
    access: AccessDep,
    counted: SavedSearchDep,
    last_event_id: Annotated[
        str | None, Header(pattern=r"^[0-9]{1,18}$", description="Begin after this match.")
    ] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Follow a saved search as server-sent events: a `match` for each new picture that it finds.

    The id of an event is the number of the match: a client that comes back with `Last-Event-ID` misses none.
    """
    id, collection = counted.search.id, counted.search.collection
    sent = counted.count.last if last_event_id is None else int(last_event_id)
    async with aclosing(
        events.follow_value(f"saved-search {id}", partial(saved.get_last_match, id), LOOK_SECONDS)
    ) as found:
        async for last in found:
            if await request.is_disconnected() or not access.still_admits(request.scope, collection):
                return
            while last is not None and last > sent:
                news = await threads.reads.run(saved.list_news, id, EVENTS_AT_ONCE, sent)
                for match, image in news:
                    yield ServerSentEvent(data=MatchedOut.of(match, image, 0), event="match", id=str(match.n))
                sent = news[-1][0].n if news else last


def check_query(settings: Settings, collection: str, body: SearchIn, match: str | None) -> Mapping[str, Any]:
    """The body as it is kept. Raises Validation unless pictures can be compared with it one by one."""
    if body.target != "images":
        raise Validation("query.target: a saved search looks for pictures")
    if any(part.image is not None for part in body.query):
        raise Validation("query.query: a saved search keeps no picture; store it, and send its image_id")
    if body.time_words:
        raise Validation("query.time_words: a saved search compares all words; put days into query.filter (taken_at)")
    if body.collection is not None and body.collection != collection:
        raise Validation("query.collection: it is one thing here and another in the saved search; send it once")
    parse_search(settings, body.model_copy(update={"collection": None}), collection, None)
    if body.score_threshold is None and match is None and body.mode != "keyword":
        raise Validation(
            "a saved search needs query.score_threshold, match 'good' or mode 'keyword': every picture has some score"
        )
    if match == GOOD and (body.mode == "keyword" or any(part.text is None for part in body.query)):
        raise Validation("match 'good' judges searches by words, which compare vectors; give a score_threshold")
    kept = body.model_dump(mode="json", exclude_unset=True, exclude={"collection"})
    if len(str(kept)) > MAX_QUERY_CHARS:
        raise Validation(f"query: it may have {MAX_QUERY_CHARS} characters")
    return kept


def saved_search_response(
    request: Request, saved: SavedSearchService, service: SearchService, counted: Counted
) -> SavedSearchOut:
    search, count = counted.search, counted.count
    principal = request.scope["principal"]
    shows_all = principal is None or principal.scope >= KeyScope.WRITE
    return SavedSearchOut(
        id=search.id,
        collection=search.collection,
        name=search.name,
        query=dict(search.query),
        match=GOOD if search.match else None,
        total=count.total,
        new=count.new,
        last=count.last,
        is_complete=count.is_complete,
        error=search.error,
        created_at=search.created_at,
        webhook=WebhookOut.of(counted, shows_all=shows_all, is_on=saved.sends_webhooks),
        warnings=[WarningOut.of(one) for one in find_warnings(service, search)],
    )


def find_warnings(service: SearchService, search: SavedSearch) -> list[AnswerWarning]:
    if search.match != GOOD or service.loaded is None:
        return []
    profiles = service.loaded.searcher.profiles
    is_known = profiles.is_measured(search.collection)
    return [NOT_CALIBRATED] if is_known and not profiles.is_calibrated(search.collection) else []
