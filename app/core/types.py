"""The nouns of the service, as plain frozen data. A leaf: it imports nothing of ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Literal

Metadata = Mapping[str, Any]
Target = Literal["images", "texts"]

DEFAULT_COLLECTION = "default"


class Status(StrEnum):
    """Where a picture stands between its upload and being findable."""

    QUEUED = "queued"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class JobState(StrEnum):
    """Where a job stands. A job with some failed items has still succeeded."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(StrEnum):
    """Whose pictures come first while several jobs wait; every one of them gets its share."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class ItemStatus(StrEnum):
    """What became of one item of a job."""

    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """Everything that decides what a vector means; vectors of two spaces are never compared.

    `weights` and `preprocessing` are SHA-256 digests in hex; `d` is the width of a vector.
    """

    model: str
    weights: str
    d: int
    preprocessing: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name the space; the model's name is not part of its meaning."""
        return hashlib.sha256(f"{self.weights}|{self.d}|{self.preprocessing}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the model's input: uint8 pixels of `size` × `size`.

    `resize` says how the sides are fitted: `shortest` covers the square and crops the middle,
    `longest` fits inside and pads with `fill`, `squash` ignores the aspect ratio.
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
        fields = [self.size, self.resize, self.interpolation, self.fill, self.mean, self.std]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item failed: a stable code of the contract and a sentence a person can read."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Image:
    """One picture of a collection. `key` is its number in the index, `embedded_seq` its log entry."""

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


@dataclass(frozen=True, slots=True)
class NewImage:
    """A picture whose bytes lie in a temporary file, not yet acknowledged."""

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


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a collection that pictures can be asked about."""

    key: int
    collection: str
    id: str
    text: str
    metadata: Metadata
    created_at: str


@dataclass(frozen=True, slots=True)
class Job:
    """A bulk of pictures: how many there are, and what became of them so far. Times are RFC 3339."""

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


@dataclass(frozen=True, slots=True)
class JobItem:
    """One item of a job, by the name its sender gave it."""

    name: str
    status: ItemStatus
    image_id: str | None
    error: ItemError | None


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection with its counts and the space that it is filled in (None before its first vector)."""

    name: str
    description: str
    images: int
    texts: int
    space: EmbeddingSpace | None
    created_at: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A picture that a worker has claimed: nobody else works on it until the lease ends."""

    image: Image
    owner: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search: the cosine (higher is nearer) and what was found."""

    id: str
    score: float
    image: Image | None = None
    text: Text | None = None


class KeyScope(IntEnum):
    """What a caller may do; each includes those before it."""

    OPEN = 0
    SEARCH = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it is kept: the hash of its secret, and what it allows. `collections` is None for all of them."""

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
    """A source as a request names it: `kind:place`, and the options that its kind takes."""

    kind: str
    place: str = ""
    options: dict[str, Any] = field(default_factory=dict)
