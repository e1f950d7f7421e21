"""The records of bodies and answers, written by generate.py from the OpenAPI document of the server. Do not edit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Filter = Mapping[str, Any]


class Answer(BaseModel):
    """A possible answer, and the probability that it is the right one of those that were sent."""

    answer: str
    probability: float


class AnswerWarning(BaseModel):
    """What a call did, or left out, that its client might not expect."""

    code: str
    """A stable code."""
    detail: str
    """A sentence for a person."""
    field: str | None = None
    """The parameter or field that the warning is about."""


class Applied(BaseModel):
    """How a search was answered."""

    mode: Literal["hybrid", "vector", "keyword"]
    effort: Literal["fast", "normal", "exact"]
    """How far an approximate index was searched; an exact one is compared whole."""
    model_trust: float | None = None
    """How much the vectors counted beside the words: the share of captions and names of the collection by which
    the model finds their pictures. Null if the vectors were ranked alone.
    """
    head: str | None = None
    """The head that the query went through; null for none."""
    normalisation: Literal["nnn", "off"]
    """Whether pictures that are near to every text were ranked down (nnn)."""
    templates: list[str]
    """The templates whose mean was searched for; empty without any."""
    order_by: str | None = None
    """The order of these hits, if not the ranking."""
    group_by: str | None = None
    """Of which each value has group_size hits."""
    diversity: float | None = None
    """As sent, if it is on."""
    collapse: float | None = None
    """The cosine from which hits are the same."""
    time: Time | None = None
    """The words of time that were a condition."""
    like: float | None = None
    """The weight of the mean of liked pictures."""
    unlike: float | None = None
    """The weight of the mean of unliked pictures."""


class AppliedLabels(BaseModel):
    """How all pictures were last tagged."""

    at: str
    is_current: bool
    """Whether it was by these labels."""
    basis: Literal["pairs", "shares", "none"] | None = None


class Area(BaseModel):
    """What the model sees of a picture, in shares of its width and height; beyond 0 and 1 where it is padded."""

    left: float
    top: float
    width: float
    height: float


class Ask(BaseModel):
    """The answers, likeliest first. `by` and `model` say what has answered."""

    question: str
    answers: list[Answer]
    by: Literal["encoder", "captioner"]
    model: str
    warnings: list[AnswerWarning]
    """What is odd about the texts and the filter that were sent; empty for most."""


class AutoTag(BaseModel):
    """A tag that a label of the collection gave to a picture."""

    tag: str
    probability: float


class BatchResult(BaseModel):
    """The answers, in the order of the searches."""

    answers: list[SearchResult | Refused]


class Changes(BaseModel):
    """What came of the changes."""

    added: int
    replaced: int
    moved: int
    deleted: int
    wanted: list[str]
    """Paths whose bytes are needed: send their changes again, with the files."""
    failed: dict[str, ItemError]
    """Paths of files that are no pictures, and why."""


class Check(BaseModel):
    """One check of the server's health."""

    name: str
    ok: bool
    detail: str


class Classification(BaseModel):
    """Labels, likeliest first; the probabilities add up to 1, or are each its own (of a model like SigLIP)."""

    labels: list[Label]
    warnings: list[AnswerWarning]
    """What is odd about the texts and the filter that were sent; empty for most."""


class Collection(BaseModel):
    """A collection with its counts; `space` is null until its first vector, `head` is the head that it uses."""

    name: str
    description: str
    images: int
    texts: int
    space: Space | None = None
    head: str | None = None
    created_at: str


class CollectionLabel(BaseModel):
    """A label, and how many pictures have it."""

    label: str
    texts: list[str]
    templates: list[str] | Literal["auto"]
    threshold: float
    tagged: int


class Collections(BaseModel):
    """All collections by name."""

    collections: list[Collection]


class Counts(BaseModel):
    """Pictures by their status."""

    queued: int
    processing: int
    ready: int
    failed: int
    total: int


class DeletedCollections(BaseModel):
    matched: int
    deleted: int
    examples: list[Collection]
    warnings: list[AnswerWarning] = []
    """What is odd about the filter."""


class DeletedHeads(BaseModel):
    matched: int
    deleted: int
    examples: list[Head]
    warnings: list[AnswerWarning] = []
    """What is odd about the filter."""


class DeletedImages(BaseModel):
    matched: int
    deleted: int
    examples: list[Image]
    warnings: list[AnswerWarning] = []
    """What is odd about the filter."""


class DeletedSavedSearches(BaseModel):
    matched: int
    deleted: int
    examples: list[SavedSearch]
    warnings: list[AnswerWarning] = []
    """What is odd about the filter."""


class DeletedTexts(BaseModel):
    matched: int
    deleted: int
    examples: list[Text]
    warnings: list[AnswerWarning] = []
    """What is odd about the filter."""


class DeletedVideos(BaseModel):
    matched: int
    deleted: int
    examples: list[Video]
    warnings: list[AnswerWarning] = []
    """What is odd about the filter."""


class Depth(BaseModel):
    """How far a search of one effort looks, and the share of the ten nearest that this found when it was
    calibrated.
    """

    probes: int
    rerank: int
    recall: float


class Duplicate(BaseModel):
    """A picture of a group, and how far it is from the first one of the group."""

    id: str
    distance: float
    """Bits of 64 that differ (exact), or 1 - cosine (near); 0 of the first."""
    image: Image


class DuplicateGroup(BaseModel):
    """Pictures that are alike. The first is the best: it has the most pixels, then bytes, then is the oldest."""

    images: list[Duplicate]
    size: int
    """How many pictures the group has; `images` holds the first 100."""


class DuplicateScan(BaseModel):
    """How far the collection is searched for duplicates."""

    finished_at: str | None = None
    """When a search last ended; null if none has."""
    compared: int
    """Pictures that are compared with each other."""
    waiting: int
    """Ready pictures that no search has compared yet."""
    job_id: str | None = None
    """The job that searches the collection now."""


class Duplicates(BaseModel):
    """Groups of duplicates, those whose best picture is the newest first."""

    collection: str
    kind: Literal["exact", "near"]
    threshold: float
    groups: list[DuplicateGroup]
    total: int
    """How many groups there are."""
    extra: int
    """How many pictures the groups have beside the best ones."""
    next_cursor: str | None = None
    scan: DuplicateScan
    warnings: list[AnswerWarning]
    """Says if no search has been made, or pictures came after it."""


class Enrichment(BaseModel):
    """How far a second pass is with a picture."""

    state: Literal["waiting", "running", "done", "failed"]
    detail: str | None = None
    """Why it was given up."""
    result: EnrichmentResult | None = None
    """What the pass found last."""


class EnrichmentCounts(BaseModel):
    """How far a second pass is."""

    waiting: int
    done: int
    failed: int


class EnrichmentResult(BaseModel):
    """What a second pass found, beside the fields of the picture: lines of text, or what wrote the caption."""

    lines: list[TextLine] | None = None
    """Of `ocr`, in the order of reading."""
    model: str | None = None
    """Of `caption`: what wrote it."""
    prompt: str | None = None
    """Of `caption`: what it was asked, if it reads that."""


class Enrichments(BaseModel):
    """How far each second pass is with a picture; a kind that the picture never waited for is absent."""

    id: str
    enrichments: dict[str, Enrichment]


class Explanation(BaseModel):
    """What of the picture, and what of the words, made the cosine."""

    id: str
    score: float
    """The cosine of the picture and the words."""
    verdict: PlaceVerdict
    grid: list[list[float]]
    """Rows of cells, from the top left: how much the cosine falls when that part is covered."""
    heat: list[list[float]]
    """The same from 0 to 1, to be drawn; all 0 where the match is none."""
    area: Area
    """Where the grid lies in the picture."""
    words: list[WordWeight]
    """In the order of the query."""
    model: str
    warnings: list[AnswerWarning]
    """What is odd about the texts and the filter that were sent; empty for most."""


class Facet(BaseModel):
    """A value, and how many records have it."""

    value: str | int | float | bool
    count: int


class Fields(BaseModel):
    """What the files beside a picture say of it."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = None
    caption: str | None = None
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    camera_data: dict[str, Any] | None = None
    """As a line of metadata.jsonl has it: taken_at and others."""


class FileChange(BaseModel):
    """What became of one file. `move` has the path `before`; `put` a `sha256`; `delete` only its `path`."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["put", "move", "delete"]
    path: str
    before: str = ""
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    sha256: str = ""
    beside: str = ""
    is_mounted: bool = False
    fields: Fields | None = None
    error: FileError | None = None


class FileError(BaseModel):
    """Why a file cannot become a picture."""

    model_config = ConfigDict(extra="forbid")

    code: str
    detail: str


class Head(BaseModel):
    """A head that a collection was taught."""

    id: str
    collection: str
    space: Space
    is_used: bool
    """Whether the collection uses it; it counts while the server has its model."""
    figures: dict[str, Any]
    """What was measured on held-out pairs, as in the result of its job: it has an `R@k` for each k."""
    created_at: str


class Heads(BaseModel):
    """Heads, newest first."""

    heads: list[Head]


class Hit(BaseModel):
    """A hit: `score` is the cosine, higher is nearer; either `image` or `text` is set."""

    id: str
    score: float
    image: Image | None = None
    text: Text | None = None
    ranks: Ranks
    """Its places, from 1, in the rankings that were fused."""
    matched: list[Literal["caption", "tags", "name", "ocr", "generated"]] = []
    """Where the picture has words of the query."""
    highlights: dict[str, list[str]] = {}
    """These words by their place, as they are written there."""
    duplicates: list[SimilarHit] = []
    """With collapse: hits that are nearly the same picture, best first."""


class Image(BaseModel):
    """A picture. `ready` means: a search sent after this answer finds it."""

    id: str
    collection: str
    sha256: str
    status: Literal["queued", "processing", "ready", "failed"]
    error: ItemError | None = None
    width: int | None = None
    height: int | None = None
    format: str
    bytes: int
    animated: bool
    caption: str | None = None
    tags: list[str]
    metadata: dict[str, Any]
    source: str | None = None
    created_at: str
    job_id: str | None = None
    taken_at: str | None = None
    """When it was taken, by the camera's clock; with its offset from UTC if the camera tells it."""
    camera: str | None = None
    lens: str | None = None
    location: Location | None = None
    ocr_text: str | None = None
    """The text that was read in the picture."""
    generated_caption: str | None = None
    """What a model wrote about the picture."""
    video_id: str | None = None
    """The video that it is a frame of."""
    t_ms: int | None = None
    """Where the frame is in its video, in milliseconds."""
    auto_tags: list[AutoTag]
    """What the labels of its collection say of it, the likeliest first."""
    rejected_tags: list[str]
    """Auto-tags that a person took off, for good."""
    duplicate: bool = False
    vector: list[float] | None = None
    """Its vector, where a list was asked for vectors and it has one."""


class ImagePage(BaseModel):
    """Pictures, newest first or in the order asked for."""

    images: list[Image]
    next_cursor: str | None = None
    total: int | None = None
    """How many pictures the whole listing has; null unless asked for."""
    facets: dict[str, list[Facet]] | None = None
    """The most frequent values of the facets asked for."""
    warnings: list[AnswerWarning] = []
    """What is odd about the filter."""


class Index(BaseModel):
    """An index, and how far it is behind the log."""

    kind: str
    ntotal: int
    applied_seq: int
    lag: int
    base: int | None = None
    tail: int | None = None
    tombstones: int | None = None
    built_seq: int | None = None
    built_at: str | None = None
    building: bool | None = None
    build_error: str | None = None
    probes: int | None = None
    rerank: int | None = None
    effort: int | None = None
    efforts: dict[str, Depth] | None = None
    """Of an approximate index: `fast` and `normal`. `exact` compares everything."""
    recall: Recall | None = None


class Indexes(BaseModel):
    images: Index | None = None
    texts: Index | None = None


class Item(BaseModel):
    """The result of one item of a job."""

    name: str
    status: Literal["queued", "done", "failed", "duplicate"]
    image_id: str | None = None
    error: ItemError | None = None
    warnings: list[AnswerWarning] = []
    """What was cut, left out or filled."""


class ItemError(BaseModel):
    """Why an item failed."""

    code: str
    detail: str


class ItemPage(BaseModel):
    """Items of a job, in their order."""

    items: list[Item]
    next_cursor: str | None = None


ItemStatus = Literal["queued", "done", "failed", "duplicate"]


class Job(BaseModel):
    """An import of many pictures, or another task. At the end of an import `done + failed + duplicates ==
    total`.
    """

    id: str
    collection: str
    kind: str
    state: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
    priority: Literal["high", "normal", "low"]
    total: int
    done: int
    failed: int
    duplicates: int
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    rate: float | None = None
    """Items a second since the start."""
    eta_s: float | None = None
    """Seconds to the end at this rate."""
    left_out: dict[str, int] = {}
    """How many files of other kinds were left out, by their suffix."""
    warnings: list[AnswerWarning] = []
    """Places that were left out, by name."""
    warned: int = 0
    """How many items have warnings."""
    name: str | None = None
    """The archive, folder or bucket; null for loose files."""
    is_task: bool = False
    """Whether it is no import, but a task of the server."""
    result: dict[str, Any] | None = None
    """What came of a task that is no import. Its fields are those of the job's `kind`, which may gain more; the
    reference has them.
    """
    error: ItemError | None = None
    """Why a task failed."""


JobState = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


class Jobs(BaseModel):
    """Jobs, newest first."""

    jobs: list[Job]


class Known(BaseModel):
    """Those of them that are stored already, and what of caption, tags and metadata each of these lacks."""

    sha256: list[str]
    lacks: dict[str, list[str]]


class Label(BaseModel):
    """A label and its probability among the labels that were sent."""

    label: str
    probability: float


class Labels(BaseModel):
    """The labels of a collection. `basis` says what probabilities are, null while that is not known yet."""

    collection: str
    labels: list[CollectionLabel]
    basis: Literal["pairs", "shares", "none"] | None = None
    """pairs: each label by itself, as of POST /v1/match; shares: among the labels, as of POST /v1/classify;
    none: nothing tells, and nothing is tagged.
    """
    applied: AppliedLabels | None = None
    job: str | None = None
    """The job that this call has begun, which tags what is there."""
    warnings: list[AnswerWarning]


class Liveness(BaseModel):
    status: Literal["ok"]


class LoadedModel(BaseModel):
    """The model that serves."""

    name: str
    knows: str
    languages: list[str]
    max_tokens: int | None = None
    hint: str | None = None
    photographs: bool | None = None
    space: str
    weights: str
    image_size: int
    device: str
    runtime: str
    d: int


class Location(BaseModel):
    """Where a picture was taken, in degrees (WGS 84)."""

    latitude: float
    longitude: float


class Match(BaseModel):
    """How a text fits: its cosine, and the probability that it is right. Null where nothing tells that."""

    text: str
    score: float
    probability: float | None = None
    match: bool | None = None
    """Whether the probability is at least one half."""


class MatchPage(BaseModel):
    """Matches, newest first."""

    matches: list[Matched]
    next_cursor: str | None = None


class Matched(BaseModel):
    """A picture that a saved search has found; `score` is its cosine, null of words alone."""

    n: int
    is_new: bool
    """Whether nobody has seen it."""
    score: float | None = None
    matched: list[Literal["vector", "keyword"]]
    matched_at: str
    image: Image


class Matches(BaseModel):
    """The texts in the order in which they were sent."""

    matches: list[Match]
    warnings: list[AnswerWarning]
    """What is odd about the texts and the filter that were sent; empty for most."""


class Member(BaseModel):
    """A process of a cluster that is alive."""

    kind: str
    host: str
    pid: int
    since: str
    seconds: float
    """Since it was last heard of."""
    duties: list[str]
    """Work that this server does for all."""


class Model(BaseModel):
    """A model that has a name here. What nobody has published is null."""

    name: str
    alias: str | None = None
    knows: str
    parameters: float
    languages: str
    max_tokens: int | None = None
    licence: str
    recall: float | None = None
    coco_r1: float | None = None
    flickr_r1: float | None = None
    xm3600_r1: float | None = None
    source: str | None = None
    note: str
    names: list[str]
    memory_mib: int
    download_mb: int | None = None
    d: int


class Models(BaseModel):
    """The models that are known, and the one that is loaded."""

    object: Literal["list"]
    data: list[ServedModel]
    models: list[Model]
    loaded: LoadedModel | None = None


class NewLabel(BaseModel):
    """A label: a picture that it fits gets it as a tag."""

    model_config = ConfigDict(extra="forbid")

    label: str
    texts: list[str] = []
    """What describes it, if not its own words; the mean of their vectors counts."""
    templates: Literal["auto", "none"] | list[str] | None = None
    """Sentences with {} for this label, as of a search."""
    threshold: float | None = None
    """The probability from which a picture gets it."""


class NewText(BaseModel):
    """A text to store; without an id, the same words always get the same id."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = None
    text: str
    metadata: dict[str, Any] = {}


class NewWebhook(BaseModel):
    """Where new matches are sent."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = None
    """http or https; the addresses of its host must be public."""
    new_secret: bool = False
    """Make a new secret, which the answer shows once."""
    enabled: Literal[True] | None = None
    """true: try again what was given up."""


class OpenIndexes(BaseModel):
    """The indexes of all collections that are open, and their bytes."""

    open: int
    bytes: int


class PlaceVerdict(BaseModel):
    """Whether the model knows where in the picture the words are met."""

    match: Literal["good", "weak", "none"]
    """none: it does not know, and the grid means nothing."""
    confidence: float
    """0: it could be either; 1: certain."""


class QueryPart(BaseModel):
    """One part of a query: exactly one of text, image_id, text_id, image and vector."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = None
    image_id: str | None = None
    text_id: str | None = None
    image: str | None = None
    """A picture, as base64 or a data URI."""
    vector: list[float] | None = None
    weight: float = 1.0
    """How much the part counts; negative: away from it."""


class Ranks(BaseModel):
    """Places in the ranking of the vectors and in that of the words; null where the picture is not among its
    first.
    """

    vector: int | None = None
    keyword: int | None = None


class Readiness(BaseModel):
    """Whether searches can be answered."""

    status: Literal["ok", "degraded", "not ready"]
    reasons: list[str]
    faults: list[str]
    checks: list[Check]


class Recall(BaseModel):
    """What was measured of an approximate index, by searches that were repeated exactly."""

    at_10: float | None = None
    queries: int
    target: float
    effort: int
    updated_at: str | None = None


class Refused(BaseModel):
    """The error of a search that has no answer."""

    error: ItemError


class SavedSearch(BaseModel):
    """A saved search. `total` counts the pictures that it has found, `new` those that nobody has seen."""

    id: str
    collection: str
    name: str
    query: dict[str, Any]
    """The body of `POST /v1/search` that was saved, as it was sent."""
    match: Literal["good"] | None = None
    total: int
    new: int
    last: int
    """The number of its last match; 0 before the first."""
    is_complete: bool
    """Whether it was compared with every picture that is ready."""
    error: str | None = None
    """Why it cannot be compared, such as a deleted picture in its query."""
    created_at: str
    webhook: Webhook | None = None
    warnings: list[AnswerWarning] = []


class SavedSearches(BaseModel):
    """Saved searches, newest first."""

    saved_searches: list[SavedSearch]


class SearchParams(BaseModel):
    """How much an approximate index compares; an exact index ignores it."""

    model_config = ConfigDict(extra="forbid")

    nprobe: int | None = None
    """How many lists of the index are searched."""
    refine_k: int | None = None
    """Candidates compared again by full vectors."""
    probes: int | None = None
    """The old name of `nprobe`."""
    rerank: int | None = None
    """The old name of `refine_k`."""


class SearchQuery(BaseModel):
    """A query of weighted parts."""

    model_config = ConfigDict(extra="forbid")

    offset: int = 0
    """Skip so many hits of the ranking; offset + k is 10,000 at most."""
    order_by: str | None = None
    """The order: score (the ranking), taken_at, created_at, width, bytes or metadata.KEY; a leading - descends."""
    group_by: str | None = None
    """At most group_size hits of each job_id, video_id, camera, day, month or metadata.KEY."""
    group_size: int = 1
    collapse: bool = False
    """Of near-duplicates among the hits show the best alone; the others are its duplicates."""
    diversity: float = 0.0
    """From 0 (off) to 1: how unlike each other the first hits are (maximal marginal relevance)."""
    facets: list[str] = []
    """Count the values of these fields: tags, auto_tags, format, camera, lens, year, metadata.KEY."""
    facet_size: int = 10
    query: list[QueryPart]
    target: Literal["images", "texts"] = "images"
    k: int = 10
    """How many hits."""
    collection: str | None = None
    """Which collection (default)."""
    filter: Filter | None = None
    """Only what matches, in Qdrant's form: `must`, `should`, `must_not` of conditions."""
    exact: bool = False
    """Compare with every vector, whatever the index could save (false)."""
    effort: Literal["fast", "normal", "exact"] | None = None
    """How far an approximate index is searched: fast, normal (default), or exact (everywhere). `GET /v1/stats`
    tells the recall of each.
    """
    mode: Literal["hybrid", "vector", "keyword"] | None = None
    """Compare words (keyword), vectors (vector), or both (hybrid: the default for words alone)."""
    weights: Weights | None = None
    params: SearchParams | None = None
    templates: Literal["auto", "none"] | list[str] = "auto"
    """Sentences with {} in whose place the text is put; auto (default): where they were measured to help; or
    none.
    """
    score_threshold: float | None = None
    """Hits with a lower cosine are left out."""
    calibrate: bool = True
    """Say in `verdict` whether anything fits (true)."""
    time_words: bool | None = None
    """Look for pictures taken at the time that words name ("beach July 2023"), not for these words; without it,
    if the collection has pictures with a time.
    """
    today: str | None = None
    """The day for which words like yesterday are meant (that of the server's clock)."""
    like: list[str] = []
    """Ids of pictures that the query is moved towards."""
    unlike: list[str] = []
    """Ids of pictures that it is moved away from."""


class SearchResult(BaseModel):
    """Hits, best first; `searched` is how many vectors were compared."""

    hits: list[Hit]
    took_ms: Timings
    model: str
    target: Literal["images", "texts"]
    searched: int
    applied: Applied
    verdict: Verdict | None = None
    """Of searches for pictures by words, unless `calibrate` is false or `exact` is true."""
    facets: dict[str, list[Facet]] | None = None
    """The most frequent values of the facets asked for."""
    warnings: list[AnswerWarning]
    """What is odd about the texts and the filter that were sent; empty for most."""


class ServedModel(BaseModel):
    """A name of the loaded model, as OpenAI lists models."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ServedSpace(BaseModel):
    """An embedding space: the one that serves, or the one that fills beside it."""

    model: str
    space: str
    state: str


class Session(BaseModel):
    """Whether keys are needed here, and what the key of the request allows."""

    needed: bool
    name: str | None = None
    scope: str | None = None
    collections: list[str] | None = None
    expires_at: str | None = None


class SimilarHit(BaseModel):
    """A hit that is nearly the same as a better one, with its cosine to that."""

    id: str
    score: float
    similarity: float


class Sources(BaseModel):
    """What the operator allows `POST /v1/images/ingest` to read, the limits of uploads, and the accepted
    formats.
    """

    urls: bool
    folders: list[str]
    max_urls: int
    max_upload_bytes: int
    max_archive_bytes: int
    max_archive_members: int
    max_image_bytes: int
    formats: list[str]
    videos: bool
    max_video_bytes: int


class Space(BaseModel):
    """The embedding space of the vectors of a collection."""

    fingerprint: str
    model: str
    d: int


class Stats(BaseModel):
    """Counts, indexes and the model. What is null is not known before the model is loaded."""

    collection: str
    images: Counts
    texts: int
    enrichments: dict[str, EnrichmentCounts]
    index: Indexes | None = None
    open_indexes: OpenIndexes | None = None
    """Not for a key that is bound to collections."""
    model: LoadedModel | None = None
    spaces: list[ServedSpace] | None = None
    """Not for a key that is bound to collections."""
    cluster: list[Member] | None = None
    """Null on one machine, and for a key that is bound."""


class StoredTexts(BaseModel):
    """The stored texts, in the order they were sent."""

    texts: list[Text]
    warnings: list[AnswerWarning]
    """What is odd about the texts that were sent; empty for most."""


class Text(BaseModel):
    """A text that searches find, like pictures."""

    id: str
    text: str
    metadata: dict[str, Any]
    created_at: str
    truncated: bool | None = None
    """Whether the model read only its beginning; null of a text that an older version stored."""


class TextLine(BaseModel):
    """A line that was read in a picture."""

    text: str
    score: float
    """0 to 1."""
    box: list[list[float]]
    """Four corners, clockwise from where it begins, as shares of width and height."""


class TextPage(BaseModel):
    """Texts, newest first."""

    texts: list[Text]
    next_cursor: str | None = None


class Time(BaseModel):
    """Words of time in a query, and from which day to which it looked for pictures; null: open."""

    text: str
    from_: str | None = Field(None, alias="from")
    to: str | None = None


class Timings(BaseModel):
    """Milliseconds by stage."""

    encode: float
    search: float
    fetch: float
    total: float


class Upload(BaseModel):
    """A picture that was sent. `filled` and `kept` are there when its bytes were stored before."""

    id: str
    collection: str
    sha256: str
    status: Literal["queued", "processing", "ready", "failed"]
    error: ItemError | None = None
    width: int | None = None
    height: int | None = None
    format: str
    bytes: int
    animated: bool
    caption: str | None = None
    tags: list[str]
    metadata: dict[str, Any]
    source: str | None = None
    created_at: str
    job_id: str | None = None
    taken_at: str | None = None
    """When it was taken, by the camera's clock; with its offset from UTC if the camera tells it."""
    camera: str | None = None
    lens: str | None = None
    location: Location | None = None
    ocr_text: str | None = None
    """The text that was read in the picture."""
    generated_caption: str | None = None
    """What a model wrote about the picture."""
    video_id: str | None = None
    """The video that it is a frame of."""
    t_ms: int | None = None
    """Where the frame is in its video, in milliseconds."""
    auto_tags: list[AutoTag]
    """What the labels of its collection say of it, the likeliest first."""
    rejected_tags: list[str]
    """Auto-tags that a person took off, for good."""
    duplicate: bool = False
    vector: list[float] | None = None
    """Its vector, where a list was asked for vectors and it has one."""
    filled: list[str] = []
    """What the stored picture lacked, and has now."""
    kept: list[str] = []
    """What was sent, and did not replace what it has."""
    warnings: list[AnswerWarning] = []


class Vector(BaseModel):
    """The stored vector of a picture, float32, of length 1, and the embedding space that it belongs to."""

    id: str
    vector: list[float]
    space: str
    """The fingerprint of the space: vectors of two spaces are never compared."""
    model: str
    d: int


class Verdict(BaseModel):
    """Whether anything fits the query."""

    match: Literal["good", "weak", "none"]
    confidence: float
    """0: it could be either; 1: certain."""
    threshold: float | None = None
    """What pictures with a lower score show does not fit; null where that is not known."""


class Video(BaseModel):
    """A video. Its frames are the pictures whose `video_id` is its id."""

    id: str
    """The SHA-256 of its file."""
    collection: str
    source: str | None = None
    """The name that it came with."""
    format: Literal["mp4", "mov", "webm", "mkv"]
    codec: str
    bytes: int
    width: int
    """Upright, with square pixels."""
    height: int
    duration_ms: int
    frames: int
    """How many of its frames are pictures now."""
    taken_at: str | None = None
    """When it begins, if it tells."""
    created_at: str
    job_id: str | None = None
    kept: bool
    """Whether its file can be had."""


class VideoPage(BaseModel):
    """Videos, newest first."""

    videos: list[Video]
    next_cursor: str | None = None


class Watch(BaseModel):
    """A watched folder, and how its pictures stand to it."""

    id: str
    collection: str
    source: str
    title: str
    exclude: list[str]
    deletes: Literal["mirror", "keep"]
    poll_seconds: float | None = None
    allow_mass_delete: bool
    state: str
    """new, scanning, watching, polling, held (deletions wait), missing (it cannot be read), refused, paused, or
    away (its client is silent).
    """
    fault: str | None = None
    """What somebody should look at."""
    files: int
    """Files that were applied."""
    failed: int
    """Files of them that are no pictures."""
    held: int
    """Deletions that wait for a confirmation."""
    confirmed: bool
    """Whether somebody has confirmed them."""
    identity: str | None = None
    """Device and inode of the folder; other ones may be another disk."""
    created_at: str
    scanned_at: str | None = None
    """When every file was looked at last."""
    changed_at: str | None = None
    """When something was applied last."""
    seen_at: str | None = None
    """When the reader of the folder last reported its state."""


class WatchReport(BaseModel):
    """How the one that reads the folder stands."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["scanning", "watching", "polling", "held", "missing"]
    fault: str | None = None
    held: int = 0
    scanned: bool = False
    identity: str | None = None
    took_confirmation: bool = False


class WatchedFile(BaseModel):
    """A file as it was when it was applied."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str
    beside: str
    """Changes with the files beside it."""
    is_mounted: bool
    """Whether it lay on another device than the folder."""
    image_id: str | None = None
    """Its picture; null if it is none, or somebody has deleted that."""
    error: ItemError | None = None
    """Why it is no picture."""


class WatchedFilePage(BaseModel):
    """Files of a watched folder, by folder and name."""

    files: list[WatchedFile]
    next_cursor: str | None = None


class Watches(BaseModel):
    """Watched folders, in the order in which they were added."""

    watches: list[Watch]


class Webhook(BaseModel):
    """A webhook, and how it fares. `secret` is there once, in the answer that made it."""

    url: str
    """Without its path for a key that may only search."""
    state: Literal["on", "waiting", "off", "disabled"]
    """waiting: the last try failed, and is repeated; disabled: too many tries failed; off: the operator allows
    no webhooks.
    """
    failures: int
    error: str | None = None
    disabled_at: str | None = None
    secret: str | None = None


class Weights(BaseModel):
    """How much each ranking counts in a hybrid search."""

    model_config = ConfigDict(extra="forbid")

    vector: float = 1.0
    keyword: float = 1.0


class WordWeight(BaseModel):
    """A word of the query, or some, and how much the cosine falls without it; null if nothing is left without
    it.
    """

    text: str
    weight: float | None = None
