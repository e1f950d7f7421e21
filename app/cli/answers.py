"""What the commands read of the server's answers. Whatever listens on the port is not trusted to send it."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field

MAX_QUOTED = 300  # characters of a text of the server


class Answer(BaseModel):
    """Base of the shapes: fields that no command reads are not looked at, so that older and newer servers fit."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Picture(Answer):
    id: str
    created_at: str
    caption: str | None
    source: str | None


class Pictures(Answer):
    images: list[Picture]
    next_cursor: str | None


class StoredText(Answer):
    text: str


class Hit(Answer):
    id: str
    score: float
    image: Picture | None
    text: StoredText | None


class Took(Answer):
    total: float


class Warned(Answer):
    code: str
    detail: str


class CandidateAnswer(Answer):
    answer: str
    probability: float


class Answered(Answer):
    """The answer to a question about a picture."""

    answers: list[CandidateAnswer]
    by: str
    model: str
    warnings: list[Warned] = []


class WordWeight(Answer):
    text: str
    weight: float | None


class PlaceVerdict(Answer):
    match: str
    confidence: float


class Explanation(Answer):
    """Which part of a picture met words, and which of the words counted."""

    score: float
    verdict: PlaceVerdict
    heat: list[list[float]]
    words: list[WordWeight]
    warnings: list[Warned] = []


class Found(Answer):
    """The answer to a search."""

    hits: list[Hit]
    searched: int
    target: str
    took_ms: Took
    warnings: list[Warned] = []


class FoundMany(Answer):
    """The answers to a batch of searches: each is a `Found`, or has an `error`."""

    answers: list[dict[str, Any]]


class Job(Answer):
    id: str
    kind: str
    state: str
    total: int
    done: int
    failed: int
    duplicates: int
    created_at: str
    name: str | None = None
    left_out: dict[str, int] = {}
    warnings: list[Warned] = []
    warned: int = 0


class Jobs(Answer):
    jobs: list[Job]


class Watch(Answer):
    """A watched folder."""

    id: str
    collection: str
    source: str
    deletes: str
    state: str
    fault: str | None
    files: int
    failed: int
    held: int
    confirmed: bool
    scanned_at: str | None
    seen_at: str | None
    identity: str | None = None


class Watches(Answer):
    watches: list[Watch]


class Reason(Answer):
    code: str
    detail: str


class Item(Answer):
    name: str
    image_id: str | None
    error: Reason | None
    warnings: list[Warned] = []


class Items(Answer):
    items: list[Item]
    next_cursor: str | None


class WatchedFile(Answer):
    """What the server knows of a file of a watched folder."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str
    beside: str
    is_mounted: bool
    error: Reason | None


class WatchedFiles(Answer):
    files: list[WatchedFile]
    next_cursor: str | None


class Applied(Answer):
    """What came of changes of a watched folder."""

    added: int
    replaced: int
    moved: int
    deleted: int
    wanted: list[str]
    failed: dict[str, Reason]


class Known(Answer):
    """Which files are stored, and what of caption, tags and metadata each of these lacks."""

    sha256: list[str]
    lacks: dict[str, list[str]] = {}


class Added(Answer):
    """The answer to texts that were added."""

    texts: list[dict[str, Any]]


class Deleted(Answer):
    matched: int
    deleted: int
    examples: list[Picture]


class Alike(Picture):
    """A picture as it is compared with others."""

    width: int | None
    height: int | None
    bytes: int
    tags: list[str]
    metadata: dict[str, Any]


class Duplicate(Answer):
    id: str
    distance: float
    image: Alike


class DuplicateGroup(Answer):
    images: list[Duplicate] = Field(min_length=1)


class DuplicateScan(Answer):
    job_id: str | None


class Duplicates(Answer):
    groups: list[DuplicateGroup]
    next_cursor: str | None
    scan: DuplicateScan
    warnings: list[Warned]


class Counts(Answer):
    total: int
    ready: int
    queued: int
    processing: int
    failed: int


class Model(Answer):
    name: str
    device: str
    d: int
    space: str
    hint: str | None = None


class Index(Answer):
    ntotal: int
    kind: str
    lag: int


class ServedSpace(Answer):
    model: str
    state: str
    job: str = ""
    done: int = 0
    total: int = 0


class Enrichments(Answer):
    waiting: int = 0
    done: int = 0
    failed: int = 0


class Stats(Answer):
    collection: str
    images: Counts
    texts: int
    model: Model | None
    spaces: list[ServedSpace] = []
    index: dict[str, Index] | None
    enrichments: dict[str, Enrichments] = {}


class Loaded(Answer):
    """Of the models: the one that is loaded."""

    loaded: Model | None


class Check(Answer):
    name: str
    ok: bool
    detail: str


class Readiness(Answer):
    status: str
    reasons: list[str]
    checks: list[Check]


class Space(Answer):
    model: str


class Collection(Answer):
    name: str
    description: str
    images: int
    texts: int
    space: Space | None


class Label(Answer):
    label: str
    threshold: float
    tagged: int


class Labels(Answer):
    labels: list[Label]
    basis: str | None
    job: str | None = None
    warnings: list[Warned] = []


class Collections(Answer):
    collections: list[Collection]


class Limits(Answer):
    """What one upload may hold; a server that does not tell has the defaults."""

    max_upload_bytes: int = 4 << 30
    max_archive_bytes: int = 2 << 30
    max_archive_members: int = 10_000
    max_image_bytes: int = 32 << 20
    formats: list[str] = ["jpeg", "png", "webp", "gif", "avif"]
    videos: bool = False
    max_video_bytes: int = 4 << 30


class Problem(Answer):
    """An error of the server (problem+json)."""

    code: str
    detail: str
    retryable: bool = False


def parse_answer(response: httpx.Response, shape: type[Answer]) -> Any:
    """The JSON of an answer. Raises ValueError unless it has this shape."""
    try:
        value = response.json()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    shape.model_validate(value)
    return value


def parse_problem(response: httpx.Response) -> Problem | None:
    """What the server says of an error; None if it does not say it as Sightline does."""
    try:
        return Problem.model_validate(response.json())
    except (ValueError, RecursionError):
        return None


def clean(text: str) -> str:
    """A text of the server as one line of bounded length, without what a terminal would act on."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= MAX_QUOTED else line[:MAX_QUOTED] + "…"
