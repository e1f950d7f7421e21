"""What operators are answered. These models describe answers that the service makes itself; they check nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.fields import example


class CountsOut(BaseModel):
    """Pictures by their status."""

    queued: int
    processing: int
    ready: int
    failed: int
    total: int


class EnrichmentCountsOut(BaseModel):
    """How far a second pass is."""

    waiting: int
    done: int
    failed: int


class RecallOut(BaseModel):
    """What was measured of an approximate index, by searches that were repeated exactly."""

    at_10: float | None
    queries: int
    target: float
    effort: int
    updated_at: str | None


class DepthOut(BaseModel):
    """How far a search of one effort looks, and the share of the ten nearest that this found when it was calibrated."""

    probes: int
    rerank: int
    recall: float


class IndexOut(BaseModel):
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
    efforts: dict[str, DepthOut] | None = Field(
        None, description="Of an approximate index: `fast` and `normal`. `exact` compares everything."
    )
    recall: RecallOut | None = None


class IndexesOut(BaseModel):
    images: IndexOut | None = None
    texts: IndexOut | None = None


class OpenIndexesOut(BaseModel):
    """The indexes of all collections that are open, and their bytes."""

    open: int
    bytes: int


class LoadedModelOut(BaseModel):
    """The model that serves."""

    name: str
    knows: str
    languages: list[str]
    max_tokens: int | None
    hint: str | None
    photographs: bool | None
    space: str
    weights: str
    image_size: int
    device: str
    runtime: str
    d: int  # the last: openapi-python-client reads fields in their order, from a variable of this name


class ServedSpaceOut(BaseModel):
    """An embedding space: the one that serves, or the one that fills beside it."""

    model: str
    space: str
    state: str


class MemberOut(BaseModel):
    """A process of a cluster that is alive."""

    kind: str
    host: str
    pid: int
    since: str
    seconds: float = Field(description="Since it was last heard of.")
    duties: list[str] = Field(description="Work that this server does for all.")


class StatsOut(BaseModel):
    """Counts, indexes and the model. What is null is not known before the model is loaded."""

    collection: str
    images: CountsOut
    texts: int
    enrichments: dict[str, EnrichmentCountsOut]
    index: IndexesOut | None
    open_indexes: OpenIndexesOut | None = Field(None, description="Not for a key that is bound to collections.")
    model: LoadedModelOut | None
    spaces: list[ServedSpaceOut] | None = Field(None, description="Not for a key that is bound to collections.")
    cluster: list[MemberOut] | None = Field(None, description="Null on one machine, and for a key that is bound.")


class ModelOut(BaseModel):
    """A model that has a name here. What nobody has published is null."""

    name: str
    alias: str | None
    knows: str
    parameters: float
    languages: str
    max_tokens: int | None
    licence: str
    recall: float | None
    coco_r1: float | None
    flickr_r1: float | None
    xm3600_r1: float | None
    source: str | None
    note: str
    names: list[str]
    memory_mib: int
    download_mb: int | None
    d: int  # the last, as above


class ServedModelOut(BaseModel):
    """A name of the loaded model, as OpenAI lists models."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsOut(BaseModel):
    """The models that are known, and the one that is loaded."""

    object: Literal["list"]
    data: list[ServedModelOut]
    models: list[ModelOut]
    loaded: LoadedModelOut | None


class LivenessOut(BaseModel):
    status: Literal["ok"]


class CheckOut(BaseModel):
    """One check of the server's health."""

    name: str
    ok: bool
    detail: str


class ReadinessOut(BaseModel):
    """Whether searches can be answered."""

    model_config = ConfigDict(
        json_schema_extra=example(
            status="ok", reasons=[], faults=[], checks=[{"name": "model", "ok": True, "detail": "photos on cpu"}]
        )
    )

    status: Literal["ok", "degraded", "not ready"]
    reasons: list[str]
    faults: list[str]
    checks: list[CheckOut]
