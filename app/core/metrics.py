"""The counters and histograms of one process: searches, encoding, decoding, commits, batches, index builds.

Each process has one `ProcessMetrics`. A worker writes its own to a file; the server's `/metrics` adds those files to
its own numbers (see `worker_metrics`). Labels are few and known beforehand: never an id, a query or an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from time import time
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from app.core.types import Target

disable_created_metrics()  # type: ignore[no-untyped-call]  # else each counter has a second series, which nobody reads

Process = Literal["server", "worker"]
STAGES = ("encode", "search", "fetch", "total")
KINDS = ("texts", "images")
TARGETS: tuple[Target, ...] = ("images", "texts")
DEATHS = ("timeout", "processor", "memory", "crash", "sandbox")
STEPS = ("decode", "encode", "commit")
OUTCOMES = ("ready", "failed", "retried", "released")
OPERATIONS = ("get", "put", "head", "list", "delete", "sign")
ENRICHMENTS = ("ocr", "caption")
ENRICHED = ("done", "failed", "retried", "released", "dropped")
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LONG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ProcessMetrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, process: Process = "server") -> None:
        self.registry = CollectorRegistry()
        self._process = process
        self._search = self._histogram("search_seconds", "Time of the searches of one request", "stage", STAGES)
        self.ghost_hits = self._counter("ghost_hits", "Ids in an index whose row is gone", "target", TARGETS)
        self.encoder_waits = self._histogram(
            "encoder_wait_seconds", "Time that a query waited for the encoder", "kind", KINDS
        )
        self._passes = self._histogram("encoder_pass_seconds", "Time of one forward pass", "kind", KINDS)
        self._rows = self._counter("encoder_rows", "Texts and pictures of queries that were encoded", "kind", KINDS)
        commits = self._histogram("commit_seconds", "Time of a commit, with its fsync", "process", (process,))
        self.commits = commits.labels(process)
        fsyncs = self._histogram("fsync_seconds", "Time of the fsync of a picture file", "process", (process,))
        self.fsyncs = fsyncs.labels(process)
        self._count_object_store()
        decoding = "Time to decode a picture or to expand an archive"
        decodes = self._histogram("decode_seconds", decoding, "process", (process,), LONG_BUCKETS)
        self.decodes = decodes.labels(process)
        self._deaths = Counter(
            "sightline_decode_deaths", "Decode children that died", ["process", "cause"], registry=self.registry
        )
        for cause in DEATHS:
            self._deaths.labels(process, cause)
        self.steps = self._histogram(
            "worker_batch_seconds", "Time of each step of a worker's batch", "step", STEPS, LONG_BUCKETS
        )
        self.outcomes = self._counter("worker_pictures", "Claimed pictures by their outcome", "outcome", OUTCOMES)
        self.attempts = self._plain_counter("worker_attempts", "Pictures that workers claimed, once for each attempt")
        self.quarantined = self._plain_counter("worker_quarantined", "Pictures that failed their last attempt")
        self.reclaimed = self._plain_counter("worker_reclaimed", "Pictures taken back from dead workers")
        self.enriched = self._count_enrichments()
        self.enrichment_seconds = self._histogram(
            "enrichment_seconds", "Time of a second pass for one picture", "kind", ENRICHMENTS, LONG_BUCKETS
        )
        self._builds = self._counter("index_builds", "Index builds that ended", "outcome", ("ok", "failed"))
        self._build = Gauge("sightline_index_build_seconds", "Time of the last index build", registry=self.registry)
        self._built = Gauge(
            "sightline_index_build_timestamp_seconds",
            "End of the last index build of this outcome, in seconds since 1970",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("ok", "failed"):
            self._built.labels(outcome)
        self.loop_lag = Histogram(
            "sightline_event_loop_lag_seconds", "Delay of the event loop", buckets=BUCKETS, registry=self.registry
        )
        self.restarts = self._plain_counter("worker_restarts", "Worker processes that ended and were started again")

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def observe_search(self, seconds: Mapping[str, float]) -> None:
        """`seconds` by stage, of one request."""
        for stage, duration in seconds.items():
            self._search.labels(stage).observe(duration)

    def observe_encoder_pass(self, kind: str, rows: int, seconds: float) -> None:
        self._passes.labels(kind).observe(seconds)
        self._rows.labels(kind).inc(rows)

    def count_decoder_death(self, cause: str) -> None:
        self._deaths.labels(self._process, cause).inc()

    def observe_build(self, seconds: float, *, ok: bool) -> None:
        outcome = "ok" if ok else "failed"
        self._builds.labels(outcome).inc()
        self._build.set(seconds)
        self._built.labels(outcome).set(time())

    def _count_object_store(self) -> None:
        help = "Time of a request to the bucket of the pictures, with its retries"
        self.object_store = self._histogram("object_store_seconds", help, "operation", OPERATIONS, LONG_BUCKETS)
        help = "Requests to the bucket of the pictures that failed"
        self.object_store_errors = self._counter("object_store_errors", help, "operation", OPERATIONS)

    def _count_enrichments(self) -> Counter:
        help = "Pictures that a second pass took, by its kind and the outcome"
        made = Counter("sightline_enrichments", help, ["kind", "outcome"], registry=self.registry)
        for labels in product(ENRICHMENTS, ENRICHED):
            made.labels(*labels)
        return made

    def _histogram(
        self, name: str, help: str, label: str, values: tuple[str, ...], buckets: tuple[float, ...] = BUCKETS
    ) -> Histogram:
        made = Histogram(f"sightline_{name}", help, [label], buckets=buckets, registry=self.registry)
        for value in values:  # so that a series is 0 before its first event
            made.labels(value)
        return made

    def _counter(self, name: str, help: str, label: str, values: tuple[str, ...]) -> Counter:
        made = Counter(f"sightline_{name}", help, [label], registry=self.registry)
        for value in values:
            made.labels(value)
        return made

    def _plain_counter(self, name: str, help: str) -> Counter:
        return Counter(f"sightline_{name}", help, registry=self.registry)
