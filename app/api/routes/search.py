"""Searches by words, pictures, ids and vectors, and zero-shot classification."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request, Response
from pydantic_core import to_json

from app.api.admission import (
    BATCHES,
    PICTURES,
    QUERY,
    QUERY_PICTURE,
    content_type,
    has_small_body,
    is_json_type,
    take_seat,
)
from app.api.arrangement import MAX_FACETS, ArrangementDep, ArrangementIn, facets_out
from app.api.concurrency import ThreadPools
from app.api.dependencies import (
    CollectionDep,
    FilterQuery,
    LibraryDep,
    OptionalCollectionDep,
    SearchDep,
    SettingsDep,
    ThreadsDep,
    merge_query,
    open_incoming_folder,
    parse_filter_parameter,
    receive_json,
    validate_collection,
    validate_k,
    validate_query,
)
from app.api.multipart import describe_form, receive_form
from app.api.openapi import describe_field
from app.api.read_after_write import AfterDep
from app.api.schemas.fields import (
    CALIBRATE,
    EFFORT,
    EXACT,
    MAX_TEMPLATES,
    MODE,
    SCORE_THRESHOLD,
    TEMPLATES,
    TIME_WORDS,
    TODAY,
    Day,
    HitCount,
    Mode,
    QueryTemplates,
    QueryText,
    ScoreThreshold,
    SearchEffort,
    Target,
    UnicodeText,
    read_filter,
)
from app.api.schemas.images import WarningOut
from app.api.schemas.search import (
    BatchIn,
    BatchOut,
    ParamsIn,
    PartIn,
    SearchForm,
    SearchIn,
    SearchOut,
    describe_hit,
)
from app.api.schemas.zero_shot import (
    ClassifyForm,
    ClassifyIn,
    ClassifyOut,
    LabelOut,
    MatchesOut,
    MatchForm,
    MatchIn,
    MatchOut,
)
from app.api.sent_pictures import check_pixels, write_picture
from app.api.strict_route import new_router
from app.core import tracing
from app.core.errors import SightlineError, Validation
from app.core.settings import Settings
from app.search.fusion import Weights
from app.search.query import SearchQuery, SearchResult
from app.search.query_encoder import QueryPart, result_or_error
from app.search.query_syntax import parse_weighted_query
from app.search.searcher import Searcher
from app.search.templates import PLAIN, fill
from app.search.time_words.finder import TimeWords
from app.service.search_service import SearchService
from app.storage.filters.parser import parse_filter

router = new_router("/v1", "search")
pictures = new_router("/v1", "search", QUERY_PICTURE)
queries = new_router("/v1", "search", QUERY)

MAX_LABELS = 1_000
FEW_PARTS = 8  # texts and other parts of a search that does not wait for others of its caller
SMALL = 100  # places of a search that waits for others as little as they for it
MATCHING = 0.5  # the probability from which on a text fits
MAX_FILLED = 64  # texts of one search, templates filled


NOT_ARRANGED = ArrangementIn()
SEARCH_FORM = describe_form(SearchForm)
CLASSIFY_FORM = describe_form(ClassifyForm, ClassifyIn)
MATCH_FORM = describe_form(MatchForm, MatchIn)
StoredPicture = TypeVar("StoredPicture", ClassifyIn, MatchIn)
SentPicture = TypeVar("SentPicture", ClassifyForm, MatchForm)

KQuery = Annotated[HitCount | None, Query(description="How many hits (10).", examples=[10])]
TargetQuery = Annotated[Target | None, Query(description="What to search: images (default) or texts.")]
WordsQuery = Annotated[
    QueryText,
    describe_field(pattern='[^\\s"－−-]'),  # a minus alone is no word
    Query(
        description='What to look for; words after a minus are turned away from ("beach -people").',
        examples=["red car"],
    ),
]
ExactQuery = Annotated[bool | None, Query(description=EXACT)]
EffortQuery = Annotated[SearchEffort | None, Query(description=EFFORT)]
ThresholdQuery = Annotated[ScoreThreshold | None, Query(description=SCORE_THRESHOLD)]


@router.get("/search", response_model=SearchOut)
async def search_images(
    request: Request,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: CollectionDep,
    after: AfterDep,
    q: WordsQuery,
    k: Annotated[HitCount, Query(description="How many hits.")] = 10,
    target: Target = "images",
    filter: FilterQuery = None,
    exact: Annotated[bool, Query(description="Compare with every vector, whatever the index could save.")] = False,
    effort: EffortQuery = None,
    mode: Annotated[Mode | None, Query(description=MODE)] = None,
    templates: Annotated[list[UnicodeText] | None, Query(description=TEMPLATES, examples=[["a photo of {}"]])] = None,
    score_threshold: ThresholdQuery = None,
    calibrate: Annotated[bool, Query(description=CALIBRATE)] = True,
    time_words: Annotated[bool | None, Query(description=TIME_WORDS)] = None,
    today: Annotated[Day | None, Query(description=TODAY)] = None,
    arrangement: ArrangementDep = NOT_ARRANGED,
) -> Response:
    """Search pictures, or texts, by words."""
    parsed = parse_filter_parameter(filter, target)
    words = parse_weighted_query(validate_query(q, settings))
    parts = [QueryPart(text=text, weight=weight, field="q") for text, weight in words]
    query = SearchQuery(
        parts,
        target,
        validate_k(k, settings),
        collection,
        parsed,
        exact,
        mode=validate_mode(mode, target, exact, parts),
        templates=validate_templates(templates or "auto", exact, parts, settings),
        score_threshold=score_threshold,
        calibrate=calibrate,
        arrangement=arrangement.parse(k, target),
        time_words=validate_time_words(time_words, target, exact),
        today=today,
        effort=validate_effort(effort, exact),
    )
    await after.wait(collection, target)
    async with take_seat(request, choose_seat(query)):
        return await run_search(threads, search.searcher, query)


@queries.post("/search", response_model=SearchOut)
async def search_by_parts(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    after: AfterDep,
    body: SearchIn,
    k: KQuery = None,
    target: TargetQuery = None,
    filter: FilterQuery = None,
    exact: ExactQuery = None,
    effort: EffortQuery = None,
) -> Response:
    """Search by words, pictures, ids and vectors at once. Each part has its weight."""
    searcher = search.searcher
    named = None if filter is None else read_filter(filter)
    body = merge_query(body, k=k, target=target, filter=named, exact=exact, effort=effort)
    has_pictures = any(part.image is not None for part in body.query)
    async with open_incoming_folder(library, threads) if has_pictures else nullcontext() as folder:
        if not has_pictures and has_small_body(request):
            query = parse_search(settings, body, collection, folder)
        else:  # pictures are written, or a long filter is read: too long for the event loop
            query = await threads.writes.run(parse_search, settings, body, collection, folder)
        if has_pictures:
            await threads.writes.run(check_pixels, list_pictures([query]), settings)
        await after.wait(query.collection, query.target)
        async with take_seat(request, choose_seat(query)):
            return await run_search(threads, searcher, query)


@pictures.post("/search/image", response_model=SearchOut, openapi_extra=SEARCH_FORM)
async def search_by_image(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    after: AfterDep,
    k: KQuery = None,
    target: TargetQuery = None,
    filter: FilterQuery = None,
    exact: ExactQuery = None,
    effort: EffortQuery = None,
    score_threshold: ThresholdQuery = None,
) -> Response:
    """Search by a picture. Finds pictures like the one sent, or the texts that fit it."""
    searcher = search.searcher
    named = None if filter is None else read_filter(filter)
    async with open_incoming_folder(library, threads) as folder:
        asked, _ = await receive_form(request, folder, SearchForm, max_files=1)
        said = {"filter": named, "exact": exact, "effort": effort, "score_threshold": score_threshold}
        asked = merge_query(asked, k=k, target=target, collection=collection, **said)
        k, target = validate_k(10 if asked.k is None else asked.k, settings), asked.target or "images"
        parsed = None if asked.filter is None else parse_filter(asked.filter, target)
        parts, collection = [QueryPart(picture=asked.file.path)], validate_collection(asked.collection)
        arrangement = asked.parse(k, target)
        least, exact = asked.score_threshold, bool(asked.exact)
        validate_mode(asked.mode, target, exact, parts)
        query = SearchQuery(
            parts,
            target,
            k,
            collection,
            parsed,
            exact,
            score_threshold=least,
            arrangement=arrangement,
            effort=validate_effort(asked.effort, exact),
        )
        await after.wait(collection, target)
        async with take_seat(request, PICTURES):
            return await threads.queries.run(answer_search, searcher, query)


@pictures.post("/classify", openapi_extra=CLASSIFY_FORM)
async def classify_image(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
) -> ClassifyOut:
    """Say which of at least two labels fits a picture. It is sent along, or stored already (JSON with `image_id`)."""
    searcher = search.searcher
    async with open_incoming_folder(library, threads) as folder:
        asked, part = await receive_picture(request, folder, ClassifyIn, ClassifyForm)
        check_labels(asked.labels, asked.template, settings)
        collection = validate_collection(merge_query(asked, collection=collection).collection)
        async with take_seat(request, BATCHES):
            found = await threads.queries.run(
                searcher.zero_shot.classify, collection, part, asked.labels, asked.template
            )
        warnings = await threads.queries.run(searcher.zero_shot.warn_of_labels, asked.labels, asked.template)
    return ClassifyOut(
        labels=[LabelOut(label=label, probability=share) for label, share in found],
        warnings=[WarningOut.of(warning) for warning in warnings],
    )


@pictures.post("/match", openapi_extra=MATCH_FORM)
async def match_texts(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
) -> MatchesOut:
    """Say which texts fit a picture, each by itself. It is sent along, or stored already (JSON with `image_id`)."""
    searcher = search.searcher
    async with open_incoming_folder(library, threads) as folder:
        asked, part = await receive_picture(request, folder, MatchIn, MatchForm)
        if len(asked.text) > MAX_LABELS:
            raise Validation(f"send 1 to {MAX_LABELS} texts, got {len(asked.text)}")
        for text in asked.text:
            validate_query(text, settings)
        collection = validate_collection(merge_query(asked, collection=collection).collection)
        async with take_seat(request, BATCHES):
            found = await threads.queries.run(searcher.zero_shot.match, collection, part, asked.text)
        warnings = await threads.queries.run(searcher.zero_shot.warn_of_matches, asked.text, found)
    return MatchesOut(
        matches=[
            MatchOut(
                text=text,
                score=round(score, 6),
                probability=share,
                match=None if share is None else share >= MATCHING,
            )
            for text, (score, share) in zip(asked.text, found, strict=True)
        ],
        warnings=[WarningOut.of(warning) for warning in warnings],
    )


async def receive_picture(
    request: Request, folder: Path, body: type[StoredPicture], form: type[SentPicture]
) -> tuple[StoredPicture | SentPicture, QueryPart]:
    """What a call about one picture asks for, and the picture: a stored one (JSON), or one that it sends along."""
    if is_json_type(content_type(request)):
        stored = await receive_json(request, body)
        return stored, QueryPart(image_id=stored.image_id)
    sent, _ = await receive_form(request, folder, form, max_files=1)
    return sent, QueryPart(picture=sent.file.path)


def choose_seat(query: SearchQuery) -> str | None:
    """The seat that a search takes; None if it costs little."""
    if any(part.picture is not None for part in query.parts):
        return PICTURES
    return BATCHES if len(query.parts) * len(query.templates or PLAIN) > FEW_PARTS else None


async def run_search(threads: ThreadPools, searcher: Searcher, query: SearchQuery) -> Response:
    """Answer a search; a small one together with others that wait, unless each is traced by itself."""
    if is_small(query) and not tracing.is_on():
        return await threads.searches.run(answer_searches, (searcher, query))
    return await threads.queries.run(answer_search, searcher, query)


def answer_search(searcher: Searcher, query: SearchQuery) -> Response:
    return search_response(searcher.search(query), query)


def answer_searches(asked: Sequence[tuple[Searcher, SearchQuery]]) -> list[Response | SightlineError]:
    """The answers, in order. They are rendered here, in a thread: the event loop is everybody's."""
    answers: list[Response | SightlineError] = []
    for searcher, some in groupby(asked, itemgetter(0)):  # two while the server changes its model
        queries = [query for _, query in some]
        for found, query in zip(searcher.search_all(queries), queries, strict=True):
            answers.append(found if isinstance(found, SightlineError) else search_response(found, query))
    return answers


def is_small(query: SearchQuery) -> bool:
    """Whether a search holds up no other one that shares its call."""
    arrangement = query.arrangement
    is_plain = query.filter is None and not (
        arrangement.is_selective or arrangement.facets or query.like or query.unlike
    )
    return is_plain and not query.compares_all and query.end <= SMALL and choose_seat(query) is None


def search_response(found: SearchResult, query: SearchQuery) -> Response:
    return Response(to_json(describe_answer(found, query)), media_type="application/json")


def describe_answer(found: SearchResult, query: SearchQuery) -> dict[str, Any]:
    """The fields of `SearchOut`; those that it leaves out are not there."""
    applied: dict[str, Any] = {
        "mode": found.mode,
        "effort": "exact" if query.exact else query.effort,
        "model_trust": found.trust,
        "head": found.head,
        "normalisation": "nnn" if found.is_normalised else "off",
        "templates": found.templates,
        **found.arranged,
    }
    if found.time is not None:
        applied["time"] = describe_time(found.time)
    answer: dict[str, Any] = {
        "hits": [describe_hit(hit) for hit in found.hits],
        "took_ms": found.took_ms,
        "model": found.model,
        "target": query.target,
        "searched": found.searched,
        "applied": applied,
        "verdict": found.verdict,
    }
    if query.arrangement.facets:
        answer["facets"] = facets_out(found.facets)
    return answer | {"warnings": found.warnings}


def describe_time(time: TimeWords) -> dict[str, str | None]:
    first, last = (day.isoformat() if day else None for day in (time.first, time.last))
    return {"text": time.text, "from": first, "to": last}


def parse_search(settings: Settings, body: SearchIn, collection: str | None, folder: Path | None) -> SearchQuery:
    """The query of a body, checked; `collection` is that of the address. Raises Validation."""
    parsed = None if body.filter is None else parse_filter(body.filter, body.target)
    collection = validate_collection(merge_query(body, collection=collection).collection)
    k = validate_k(body.k, settings)
    parts = parse_parts(settings, body.query, folder)
    params = body.params or ParamsIn()
    mode = validate_mode(body.mode, body.target, body.exact, parts)
    weights = Weights() if body.weights is None else Weights(body.weights.vector, body.weights.keyword)
    templates = validate_templates(body.templates, body.exact, parts, settings)
    how = (body.exact, params.nprobe, params.refine_k, mode, weights, templates, body.score_threshold, body.calibrate)
    arranged = (body.parse(k, body.target), *parse_feedback(body, mode))
    timed = (validate_time_words(body.time_words, body.target, body.exact), body.today)
    effort = validate_effort(body.effort, body.exact, params)
    return SearchQuery(parts, body.target, k, collection, parsed, *how, *arranged, *timed, effort=effort)


def parse_feedback(body: SearchIn, mode: Mode | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ids of liked and of unliked pictures. Raises Validation."""
    if both := sorted(set(body.like) & set(body.unlike)):
        raise Validation(f"{both[0]!r} is in like and in unlike; send it once")
    if (body.like or body.unlike) and mode == "keyword":
        raise Validation("like and unlike move the vector of a query, which mode 'keyword' does not compare")
    return tuple(dict.fromkeys(body.like)), tuple(dict.fromkeys(body.unlike))


def parse_parts(settings: Settings, query: Sequence[PartIn], folder: Path | None) -> list[QueryPart]:
    """The parts of a query, checked; pictures are written to `folder` (None when there are none). Raises Validation."""
    parts = []
    for n, part in enumerate(query):
        kind = part.kind()
        if kind == "text":
            text = validate_query(part.text or "", settings)
            parts.append(QueryPart(text=text, weight=part.weight, field=f"query.{n}.text"))
        elif folder is not None and kind == "image":
            path = folder / str(n)
            write_picture(part.image or "", path)
            parts.append(QueryPart(picture=path, weight=part.weight))
        else:
            parts.append(
                QueryPart(image_id=part.image_id, text_id=part.text_id, vector=part.vector, weight=part.weight)
            )
    return parts


def validate_mode(mode: Mode | None, target: Target, exact: bool, parts: Sequence[QueryPart]) -> Mode | None:
    """The mode of a search. Raises Validation if it compares words where there are none."""
    if mode in (None, "vector"):
        return mode
    if exact:
        raise Validation(f"mode {mode!r}: exact compares vectors alone")
    if target == "texts":
        raise Validation(f"mode {mode!r}: texts are searched by their vectors alone")
    if not any(part.text is not None and part.weight > 0 for part in parts):
        raise Validation(f"mode {mode!r}: the query has no words to look for")
    return mode


def validate_effort(sent: SearchEffort | None, exact: bool, params: ParamsIn | None = None) -> SearchEffort:
    """How far the index is searched. Raises Validation if that is said twice, and differently."""
    if exact and sent in ("fast", "normal"):
        raise Validation(f"effort {sent!r}: exact compares with every vector")
    if sent is not None and params is not None and (params.nprobe is not None or params.refine_k is not None):
        raise Validation(f"effort {sent!r} and params both say how far the index is searched; send one of them")
    return sent or "normal"


def validate_time_words(sent: bool | None, target: Target, exact: bool) -> bool | None:
    """Whether a search takes words of time. Raises Validation if it asks for them where there is no time."""
    if sent and exact:
        raise Validation("time_words: exact compares the vector of the whole text")
    if sent and target == "texts":
        raise Validation("time_words: texts are not taken at a time")
    return sent


def validate_templates(
    sent: QueryTemplates, exact: bool, parts: Sequence[QueryPart], settings: Settings
) -> tuple[str, ...] | None:
    """The templates of a search; None where it leaves the choice to the server. Raises Validation."""
    if sent in ("auto", ["auto"]):
        return None
    if sent in ("none", ["none"]):
        return PLAIN
    if exact:
        raise Validation("templates: exact compares the vector of the text alone")
    templates = tuple(dict.fromkeys(sent))
    texts = [part.text for part in parts if part.text is not None]
    if len(templates) > MAX_TEMPLATES:
        raise Validation(f"templates: send {MAX_TEMPLATES} at most, these are {len(templates)}")
    if len(texts) * len(templates) > MAX_FILLED:
        raise Validation(
            f"templates: they make {len(texts) * len(templates)} texts of this query; {MAX_FILLED} at most"
        )
    for template in templates:
        if "{}" not in template:
            raise Validation(f"templates: {template[:60]!r} has no {{}} where the text goes")
        for text in texts:
            validate_query(fill(template, text), settings)
    return templates


def list_pictures(batch: Sequence[SearchQuery | SightlineError]) -> list[Path]:
    parts = [part for one in batch if isinstance(one, SearchQuery) for part in one.parts]
    return [part.picture for part in parts if part.picture is not None]


def check_labels(labels: Sequence[str], template: str, settings: Settings) -> None:
    """Raise Validation unless a classification is possible with these labels and this template."""
    if not 2 <= len(labels) <= MAX_LABELS:  # one label alone would always fit: its probability is 1
        hint = ", each in a field of its own" if len(labels) == 1 and "," in labels[0] else ""
        raise Validation(f"send 2 to {MAX_LABELS} labels{hint}, got {len(labels)}")
    if "{}" not in template and "{label}" not in template:
        raise Validation("template must hold {} where the label goes")
    for label in labels:
        validate_query(label, settings)
        validate_query(template + label, settings)


BATCH_FACTOR = 10  # a batch may ask for as many hits and parts as this many of the largest searches
MAX_BATCH_PARTS = 32 * BATCH_FACTOR


@queries.post("/search/batch", response_model=BatchOut)
async def search_batch(
    request: Request,
    library: LibraryDep,
    search: SearchDep,
    settings: SettingsDep,
    threads: ThreadsDep,
    collection: OptionalCollectionDep,
    after: AfterDep,
    body: BatchIn,
) -> Response:
    """Answer up to 100 searches. The answers come in their order, each like that of a search, or why there is none."""
    check_batch_size(body, settings)
    has_pictures = any(part.image is not None for one in body.searches for part in one.query)
    async with open_incoming_folder(library, threads) if has_pictures else nullcontext() as folder:
        batch = await threads.writes.run(parse_batch, settings, body, collection, folder)
        if has_pictures:
            await threads.writes.run(check_pixels, list_pictures(batch), settings)
        for searched in {(one.collection, one.target) for one in batch if isinstance(one, SearchQuery)}:
            await after.wait(*searched)
        async with take_seat(request, BATCHES):
            content = await threads.queries.run(run_batch, search, batch)
    return Response(content, media_type="application/json")


def check_batch_size(body: BatchIn, settings: Settings) -> None:
    """Raise Validation for a batch that asks for too much."""
    most = BATCH_FACTOR * settings.max_k
    if (hits := sum(search.offset + search.k for search in body.searches)) > most:
        raise Validation(f"the searches of one call may ask for {most} hits, these ask for {hits}")
    arranged = sum(search.collapse or search.group_by is not None or search.diversity > 0 for search in body.searches)
    if arranged > BATCH_FACTOR:
        raise Validation(
            f"of one call {BATCH_FACTOR} searches may have collapse, group_by or diversity, not {arranged}"
        )
    if (facets := sum(len(search.facets) for search in body.searches)) > BATCH_FACTOR * MAX_FACETS:
        raise Validation(f"the searches of one call may count {BATCH_FACTOR * MAX_FACETS} facets, these count {facets}")
    if (parts := sum(len(search.query) for search in body.searches)) > MAX_BATCH_PARTS:
        raise Validation(f"the searches of one call may have {MAX_BATCH_PARTS} parts, these have {parts}")
    filled = sum(len(one.query) * len(one.templates) for one in body.searches if isinstance(one.templates, list))
    if filled > MAX_BATCH_PARTS:
        raise Validation(f"the templates of one call may make {MAX_BATCH_PARTS} texts, these make {filled}")


def parse_batch(
    settings: Settings, body: BatchIn, collection: str | None, folder: Path | None
) -> list[SearchQuery | SightlineError]:
    """The query of each search, or what is wrong with it."""
    batch = []
    for n, one in enumerate(body.searches):
        below = folder / str(n) if folder else None
        if below:
            below.mkdir()
        batch.append(result_or_error(lambda s=one, f=below: parse_search(settings, s, collection, f)))  # type: ignore[misc]
    return batch


def run_batch(search: SearchService, batch: list[SearchQuery | SightlineError]) -> bytes:
    """The body of the answer. Made here, in a thread: thousands of records would block the event loop."""
    found = iter(search.searcher.search_all([one for one in batch if isinstance(one, SearchQuery)]))
    answers: list[dict[str, Any]] = []
    for query in batch:
        outcome = next(found) if isinstance(query, SearchQuery) else query
        if isinstance(query, SearchQuery) and isinstance(outcome, SearchResult):
            answers.append(describe_answer(outcome, query))
        elif isinstance(outcome, SightlineError):
            answers.append({"error": {"code": outcome.code, "detail": outcome.detail}})
    return to_json({"answers": answers})
