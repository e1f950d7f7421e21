"""Prometheus metrics of one application, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app import __version__
from app.api.concurrency import ThreadPools
from app.core.errors import SightlineError
from app.service.health import measure_backlog, measure_disk, workers
from app.service.service import Service
from app.storage.backup import read_last_backup

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
INDEX_GAUGES = {
    "open": "Open indexes",
    "vectors": "Vectors in the open indexes",
    "lag": "Log entries not yet in the index that is furthest behind",
    "bytes": "Memory of the open indexes",
    "tail": "Vectors that no base holds yet",
    "tombstones": "Vectors of a base that are deleted",
    "building": "Bases being built now",
}


class ServerMetrics:
    """Requests by route, and the service's own numbers, read when they are asked for."""

    def __init__(self, service: Service, lanes: ThreadPools) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "sightline_requests", "Answered requests", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "sightline_request_seconds",
            "Time to answer",
            ["route", "method", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._inside = Gauge("sightline_requests_in_flight", "Requests being answered", registry=self.registry)
        self._refused = Counter("sightline_refusals", "Refused requests", ["code"], registry=self.registry)
        self._open = Gauge("sightline_connections", "Open connections", registry=self.registry)
        busy = Gauge("sightline_lane_calls", "Calls that run or wait in a lane", ["lane"], registry=self.registry)
        for name, lane in (("queries", lanes.queries), ("reads", lanes.reads), ("writes", lanes.writes)):
            busy.labels(name).set_function(partial(getattr, lane, "inside"))
        ProcessCollector(registry=self.registry)
        self.registry.register(service.reports)
        self.registry.register(_ServiceNumbers(service))

    def connections(self, count: Callable[[], int]) -> None:
        """Say how many connections there are."""
        self._open.set_function(count)

    def began(self) -> None:
        """A request is being answered from now on, until `request`."""
        self._inside.inc()

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        labels = (route, method if method in METHODS else "other", str(status))
        self._inside.dec()
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).observe(seconds)

    def refused(self, code: str) -> None:
        """Count one refusal by the code that it gave."""
        self._refused.labels(code).inc()

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


class _ServiceNumbers(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield make_gauge("info", "1; the version is a label", [((__version__,), 1)], "version")
        yield make_gauge("ready", "1 when searches can be answered", [((), float(not service.ready()))])
        checks = [((check.name,), float(check.ok)) for check in service.checks()]
        yield make_gauge("check", "1 when this check of /readyz is passed", checks, "check")
        yield from self._recall()
        yield from self._indexes()
        yield from self._workers()
        yield from self._disk()
        try:
            yield from self._backlog()
        except SightlineError:  # the database cannot be read: what is known without it is told all the same
            return

    def _backlog(self) -> Iterator[Metric]:
        now = measure_backlog(self._service.database)
        yield make_gauge("images", "Pictures by status", label_values(now.images), "status")
        yield make_gauge("texts", "Texts", [((), now.texts)])
        yield make_gauge("images_retrying", "Pictures that wait for another attempt", [((), now.retrying)])
        yield make_gauge("oldest_waiting_seconds", "Age of the picture that has waited longest", [((), now.oldest)])
        yield make_gauge("uploads_waiting", "Archives, lists and folders still to be taken in", [((), now.sources)])
        yield make_gauge("jobs", "Jobs by state", label_values(now.jobs), "state")
        yield make_gauge(
            "job_oldest_seconds", "Age of the oldest job of a state", label_values(now.jobs_oldest), "state"
        )

    def _indexes(self) -> Iterator[Metric]:
        engine = self._service.loaded
        totals = {} if engine is None else engine.indexes.totals()
        for name, told in INDEX_GAUGES.items():
            values = [((target,), numbers[name]) for target, numbers in totals.items()]
            yield make_gauge(f"index_{name}", told, values, "target")
        yield make_gauge(
            "encoder_queue",
            "Queries that wait for the encoder",
            [((), 0 if engine is None else engine.batcher.queue_length)],
        )

    def _workers(self) -> Iterator[Metric]:
        settings = self._service.settings
        yield make_gauge(
            "workers", "Living worker processes of this data directory", [((), workers(settings.data_dir))]
        )
        yield make_gauge("workers_wanted", "Worker processes that the server keeps", [((), settings.workers)])

    def _disk(self) -> Iterator[Metric]:
        data_dir = self._service.settings.data_dir
        for name, told, value in measure_disk(data_dir):
            yield make_gauge(name, told, [((), value)])
        backup = read_last_backup(data_dir)
        told = "When the last backup succeeded; 0 without one"
        yield make_gauge("backup_last_success_timestamp_seconds", told, [((), backup.at)])
        yield make_gauge("backup_seconds", "Time the last backup took", [((), backup.seconds)])
        yield make_gauge("backup_images", "Pictures of the last backup", [((), backup.pictures)])

    def _recall(self) -> Iterator[Metric]:
        """Of the approximate indexes that were searched, in any collection."""
        found = self._service.sampler.recalls()
        measured = [(key, one.at_10) for key, one in found.items() if one.at_10 is not None]
        yield make_gauge("recall_at_10", "Measured recall of recent searches", measured, "collection", "target")
        effort = [(key, one.effort) for key, one in found.items()]
        yield make_gauge("search_effort", "Doublings of what an index looks into", effort, "collection", "target")


def make_gauge(name: str, told: str, values: Iterable[tuple[Iterable[str], float]], *labels: str) -> Metric:
    """A family of samples (values of the labels, value)."""
    family = GaugeMetricFamily(f"sightline_{name}", told, labels=labels)
    for key, value in values:
        family.add_metric(list(key), value)
    return family


def label_values(numbers: dict[str, float] | dict[str, int]) -> list[tuple[tuple[str], float]]:
    """Numbers by one label."""
    return [((key,), value) for key, value in numbers.items()]
