"""What a process counts where it happens: searches, passes of the encoder, decoding, commits, batches, builds.

Each process has one `Meters`. A worker writes its own to a file, from which the server's `/metrics` adds them to its
own (see `app.core.worker_metrics`). Labels are few and known beforehand: never an id, a query or an address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter, time
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from app.core.types import Target

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which no question here needs

Process = Literal["server", "worker"]
STAGES = ("encode", "search", "fetch", "total")
KINDS = ("texts", "images")
TARGETS: tuple[Target, ...] = ("images", "texts")
DEATHS = ("timeout", "processor", "memory", "crash")
STEPS = ("decode", "encode", "commit")
OUTCOMES = ("ready", "failed", "retried", "released")
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LONG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ProcessMetrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self, process: Process = "server") -> None:
        self.registry = CollectorRegistry()
        self._process = process
        self._search = self._histogram("search_seconds", "Time of the searches of a call", "stage", STAGES)
        self._ghosts = self._counter("ghost_hits", "Ids that an index gave and that have no row", "target", TARGETS)
        self._waits = self._histogram("encoder_wait_seconds", "Time a query waited for the encoder", "kind", KINDS)
        self._passes = self._histogram("encoder_pass_seconds", "Time of a pass of the encoder", "kind", KINDS)
        self._rows = self._counter("encoder_rows", "Texts and pictures of queries that were encoded", "kind", KINDS)
        self._commits = self._histogram("commit_seconds", "Time of a commit, fsync included", "process", (process,))
        self._fsyncs = self._histogram("fsync_seconds", "Time of the fsync of a picture", "process", (process,))
        self._decoding = self._histogram(
            "decode_seconds", "Time to decode a picture or expand an archive", "process", (process,), LONG_BUCKETS
        )
        self._deaths = Counter(
            "sightline_decode_deaths", "Decoders that died", ["process", "cause"], registry=self.registry
        )
        for cause in DEATHS:
            self._deaths.labels(process, cause)
        self._steps = self._histogram(
            "worker_batch_seconds", "Time of a worker's batch by step", "step", STEPS, LONG_BUCKETS
        )
        self._pictures = self._counter("worker_pictures", "What became of claimed pictures", "outcome", OUTCOMES)
        self._attempts = self._plain("worker_attempts", "Pictures claimed")
        self._quarantined = self._plain("worker_quarantined", "Pictures given up after their last attempt")
        self._reclaimed = self._plain("worker_reclaimed", "Pictures taken back from workers that are gone")
        self._builds = self._counter("index_builds", "Bases that were built", "outcome", ("ok", "failed"))
        self._build = Gauge("sightline_index_build_seconds", "Time of the last build", registry=self.registry)
        self._built = Gauge(
            "sightline_index_build_timestamp_seconds", "When the last build of this outcome ended", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        for outcome in ("ok", "failed"):
            self._built.labels(outcome)
        self._lag = self._unlabelled("event_loop_lag_seconds", "How late the event loop was")
        self._restarts = self._plain("worker_restarts", "Worker processes that ended and were started again")

    def text(self) -> str:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def observe_search(self, seconds: Mapping[str, float]) -> None:
        """One call was answered: its stages and their seconds."""
        for stage, took in seconds.items():
            self._search.labels(stage).observe(took)

    def count_orphans(self, target: Target, n: int) -> None:
        """So many ids of an answer had no row."""
        if n:
            self._ghosts.labels(target).inc(n)

    def observe_encoder_wait(self, kind: str, seconds: float) -> None:
        """A query's texts or pictures waited so long for their pass."""
        self._waits.labels(kind).observe(seconds)

    def observe_encoder_pass(self, kind: str, rows: int, seconds: float) -> None:
        """The encoder made vectors of so many texts or pictures at once."""
        self._passes.labels(kind).observe(seconds)
        self._rows.labels(kind).inc(rows)

    @contextmanager
    def time_commit(self) -> Iterator[None]:
        """Time a commit."""
        with self._commits.labels(self._process).time():
            yield

    @contextmanager
    def time_fsync(self) -> Iterator[None]:
        """Time the fsync of a file."""
        with self._fsyncs.labels(self._process).time():
            yield

    def observe_decode(self, seconds: float) -> None:
        """A decode child has answered, with a result or a refusal."""
        self._decoding.labels(self._process).observe(seconds)

    def count_decoder_death(self, cause: str) -> None:
        """A decode child did not survive its task."""
        self._deaths.labels(self._process, cause).inc()

    @contextmanager
    def time_step(self, step: str) -> Iterator[None]:
        """Time one step of a worker's batch."""
        began = perf_counter()
        try:
            yield
        finally:
            self._steps.labels(step).observe(perf_counter() - began)

    def count_claimed(self, n: int) -> None:
        """A worker has begun so many attempts."""
        self._attempts.inc(n)

    def count_outcome(self, outcome: str, n: int = 1) -> None:
        """What was made of so many claimed pictures."""
        self._pictures.labels(outcome).inc(n)

    def count_quarantined(self, n: int = 1) -> None:
        """So many pictures were given up: no attempt is left."""
        self._quarantined.inc(n)

    def count_reclaimed(self, n: int) -> None:
        """So many pictures were held by workers that are gone."""
        self._reclaimed.inc(n)

    def observe_build(self, seconds: float, *, ok: bool) -> None:
        """A build of a base has ended."""
        outcome = "ok" if ok else "failed"
        self._builds.labels(outcome).inc()
        self._build.set(seconds)
        self._built.labels(outcome).set(time())

    def observe_loop_lag(self, seconds: float) -> None:
        """The event loop was so late."""
        self._lag.observe(seconds)

    def count_restart(self) -> None:
        """A worker process has ended by itself."""
        self._restarts.inc()

    def _histogram(
        self, name: str, told: str, label: str, values: tuple[str, ...], buckets: tuple[float, ...] = BUCKETS
    ) -> Histogram:
        made = Histogram(f"sightline_{name}", told, [label], buckets=buckets, registry=self.registry)
        for value in values:  # shown as 0 before the first
            made.labels(value)
        return made

    def _unlabelled(self, name: str, told: str) -> Histogram:
        return Histogram(f"sightline_{name}", told, buckets=BUCKETS, registry=self.registry)

    def _counter(self, name: str, told: str, label: str, values: tuple[str, ...]) -> Counter:
        made = Counter(f"sightline_{name}", told, [label], registry=self.registry)
        for value in values:
            made.labels(value)
        return made

    def _plain(self, name: str, told: str) -> Counter:
        return Counter(f"sightline_{name}", told, registry=self.registry)
