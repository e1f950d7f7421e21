"""The data types of the service: frozen dataclasses and enums that import no other module of ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Literal, NamedTuple

Metadata = Mapping[str, Any]
Target = Literal["images", "texts"]
Mode = Literal["hybrid", "vector", "keyword"]
Effort = Literal["fast", "normal", "exact"]
"""How far a search looks into an approximate index; exact: everywhere."""
EnrichmentKind = Literal["ocr", "caption"]

DEFAULT_COLLECTION = "default"


class Status(StrEnum):
    """How far a picture is on its way from upload to search results."""

    QUEUED = "queued"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class JobState(StrEnum):
    """A job whose items failed in part has still succeeded."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(StrEnum):
    """The share of the workers that a job gets while several jobs wait; none gets nothing."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class ItemStatus(StrEnum):
    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """What makes vectors comparable; vectors of two spaces are never compared.

    `weights` and `preprocessing` are SHA-256 digests in hex; `d` is the dimension of a vector.
    """

    model: str
    weights: str
    d: int
    preprocessing: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify the space. The model's name has no part in it."""
        return hashlib.sha256(f"{self.weights}|{self.d}|{self.preprocessing}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the model's input, uint8 pixels of `size` × `size`.

    `resize`: `shortest` covers the square and crops the middle, `longest` fits inside and pads with `fill`, `squash`
    ignores the aspect ratio.
    """

    size: int
    resize: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill: int = 0
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def digest(self) -> str:
        """SHA-256 in hex over every field."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item failed: a stable error code, and a sentence for a person."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class AnswerWarning:
    """What a call did, or left out, that its client might not expect. `field` is what the client sent."""

    code: str
    detail: str
    field: str | None = None


class Description(NamedTuple):
    """The texts by which words find a picture."""

    caption: str | None = None
    tags: tuple[str, ...] = ()
    source: str | None = None
    ocr_text: str | None = None
    generated_caption: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """One picture of a collection. `key` is the id of its vector in the index, `embedded_seq` its entry in the log.

    `taken_at` is the time on the camera's clock (`YYYY-MM-DDTHH:MM:SS.mmm`), `taken_offset` how many minutes that clock
    was ahead of UTC. A frame of the video `video_id` is the one at `t_ms`.
    """

    key: int
    collection: str
    id: str
    sha256: str
    status: Status
    error: ItemError | None
    width: int | None
    height: int | None
    format: str
    bytes: int
    animated: bool
    caption: str | None
    tags: tuple[str, ...]
    metadata: Metadata
    source: str | None
    created_at: str
    job_id: str | None
    embedded_seq: int | None = None
    taken_at: str | None = None
    taken_offset: int | None = None
    camera: str | None = None
    lens: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    ocr_text: str | None = None
    generated_caption: str | None = None
    video_id: str | None = None
    t_ms: int | None = None
    auto_tags: Mapping[str, float] = field(default_factory=dict)  # with their probabilities, the likeliest first
    rejected_tags: tuple[str, ...] = ()

    @property
    def description(self) -> Description:
        return Description(self.caption, self.tags, self.source, self.ocr_text, self.generated_caption)


@dataclass(frozen=True, slots=True)
class CameraData:
    """What a picture, or a file beside it, says of how it was taken, and the words that it carries.

    Time, camera and place as of `Image`. `exposure` is what `metadata.exif` may hold.
    """

    taken_at: str | None = None
    taken_offset: int | None = None
    camera: str | None = None
    lens: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    caption: str | None = None
    tags: tuple[str, ...] = ()
    exposure: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewImage:
    """A picture that was received, but has no row yet; its bytes are in a temporary file."""

    sha256: str
    format: str
    bytes: int
    width: int
    height: int
    id: str | None = None
    caption: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    source: str | None = None
    warnings: tuple[AnswerWarning, ...] = ()  # of what the file holds beside the picture
    camera_data: CameraData | None = None  # of files beside it


@dataclass(frozen=True, slots=True)
class NewVideo:
    """A video that was read, whose frames become pictures. `kept`: its file stays."""

    sha256: str
    source: str | None
    format: str
    codec: str
    bytes: int
    width: int
    height: int
    duration_ms: int
    taken_at: str | None
    taken_offset: int | None
    kept: bool


@dataclass(frozen=True, slots=True)
class Video:
    """One video of a collection; its id is the SHA-256 of its file. `frames` of it are pictures.

    `is_kept`: the file is there. `is_complete`: all frames that were chosen have been imported.
    """

    key: int
    collection: str
    id: str
    source: str | None
    format: str
    codec: str
    bytes: int
    width: int
    height: int
    duration_ms: int
    created_at: str
    job_id: str | None
    is_kept: bool
    is_complete: bool
    frames: int
    taken_at: str | None = None
    taken_offset: int | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a collection. `key` is the id of its vector in the index.

    `truncated` tells whether the model read only its beginning; None if nobody has looked.
    """

    key: int
    collection: str
    id: str
    text: str
    metadata: Metadata
    created_at: str
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """An import of many pictures, with the counts of its items by outcome; or a task of the server, with its result.

    `error` says why a task failed. Times are RFC 3339.
    """

    id: str
    collection: str
    kind: str
    state: JobState
    total: int
    done: int
    failed: int
    duplicates: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    rate: float | None = None
    eta_s: float | None = None
    last_seq: int = 0
    priority: Priority = Priority.NORMAL
    left_out: Mapping[str, int] = field(default_factory=dict)  # files of other kinds, by their suffix
    warnings: tuple[AnswerWarning, ...] = ()
    warned: int = 0  # items with warnings
    name: str | None = None  # of the archive, folder or bucket; None for loose files
    is_task: bool = False
    result: Mapping[str, Any] | None = None
    error: ItemError | None = None


@dataclass(frozen=True, slots=True)
class JobItem:
    """One item of a job; `name` is the one that its sender gave."""

    name: str
    status: ItemStatus
    image_id: str | None
    error: ItemError | None
    warnings: tuple[AnswerWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection with its counts, its embedding space (None before its first vector) and the head that it uses."""

    name: str
    description: str
    images: int
    texts: int
    space: EmbeddingSpace | None
    created_at: str
    head: str | None = None


@dataclass(frozen=True, slots=True)
class HeadInfo:
    """A head that a collection was taught: the space of its vectors, and what was measured on held-out pairs."""

    id: str
    collection: str
    space: str
    model: str
    d: int
    figures: Mapping[str, Any]
    created_at: str
    is_used: bool


@dataclass(frozen=True, slots=True)
class Label:
    """A tag, the texts that describe it, and the probability from which a picture gets it.

    `templates` None leaves them to the server.
    """

    label: str
    texts: tuple[str, ...]
    threshold: float
    templates: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of the collection `label`. Pictures up to log entry `seq` were compared with them.

    `applied` says how what is there was last tagged as a whole: `revision`, `space`, `head`, `basis`, `at`.
    """

    label: str
    labels: tuple[Label, ...]
    revision: int
    seq: int
    applied: Mapping[str, Any] | None
    updated_at: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where matches are sent. Those up to `sent` are delivered, those up to `sending` are in the message under way.

    `next_at` is the wall time (seconds since 1970) of the next try.
    """

    url: str
    secret: bytes = field(repr=False)
    sent: int
    sending: int | None
    failures: int
    next_at: float
    last_error: str | None
    disabled_at: str | None


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """A search of the collection `label` that is compared with each new picture. `query` is the body of a search.

    `match`: "good" counts where the verdict would be good. Pictures that became ready up to log entry `seq` were
    compared; those past `since` are news. `error` says why the search cannot be compared now.
    """

    id: str
    label: str
    collection: str
    name: str
    query: Mapping[str, Any]
    match: str | None
    revision: int
    seq: int
    since: int
    seen: int
    error: str | None
    created_at: str
    webhook: Webhook | None


@dataclass(frozen=True, slots=True)
class Match:
    """A picture that a saved search has found. `score` is its cosine, None of words alone; `matched` says by what."""

    n: int
    key: int
    is_new: bool
    score: float | None
    matched: tuple[str, ...]
    matched_at: str


@dataclass(frozen=True, slots=True)
class NewMatch:
    """A match without its number; `sha256` is that of the bytes that were compared."""

    key: int
    sha256: str
    is_new: bool
    score: float | None
    matched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MatchCount:
    """How many pictures a search has found, how many of them nobody has seen, and the number of the last.

    `is_complete`: it was compared with every ready picture.
    """

    total: int
    new: int
    last: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's claim on a picture: no other worker takes the picture until the lease ends."""

    image: Image
    owner: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A hit that is nearly the same as a better one; `similarity` is their cosine."""

    id: str
    score: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search. `score` is the cosine; a higher one is nearer.

    `ranks` are its places in the rankings that were fused, from 1. `highlights` are the words of the query as its
    caption, tags or name have them.
    """

    id: str
    score: float
    image: Image | None = None
    text: Text | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    highlights: Mapping[str, Sequence[str]] = field(default_factory=dict)
    duplicates: Sequence[Duplicate] = ()


class KeyScope(IntEnum):
    """What an API key allows; each scope includes those before it."""

    OPEN = 0
    SEARCH = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored API key. `hash` is that of its secret; `collections` limits it to these, None is no limit."""

    id: str
    name: str
    hash: bytes = field(repr=False)
    right: KeyScope
    collections: frozenset[str] | None
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source as a request names it: `kind:place`, and the options of its kind."""

    kind: str
    place: str = ""
    options: dict[str, Any] = field(default_factory=dict)
