"""Prometheus metrics of one application, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app import __version__
from app.api.concurrency import Lanes
from app.core.errors import SightlineError
from app.service.health import disk, told_of, workers
from app.service.service import Service
from app.storage.backup import last_backup

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
INDEX = {
    "open": "Open indexes",
    "vectors": "Vectors in the open indexes",
    "lag": "Log entries not yet in the index that is furthest behind",
    "bytes": "Memory of the open indexes",
    "tail": "Vectors that no base holds yet",
    "tombstones": "Vectors of a base that are deleted",
    "building": "Bases being built now",
}


class Metrics:
    """Requests by route, and the service's own numbers, read when they are asked for."""

    def __init__(self, service: Service, lanes: Lanes) -> None:
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
        yield gauge("info", "1; the version is a label", [((__version__,), 1)], "version")
        yield gauge("ready", "1 when searches can be answered", [((), float(not service.ready()))])
        checks = [((check.name,), float(check.ok)) for check in service.checks()]
        yield gauge("check", "1 when this check of /readyz is passed", checks, "check")
        yield from self._recall()
        yield from self._indexes()
        yield from self._workers()
        yield from self._disk()
        try:
            yield from self._backlog()
        except SightlineError:  # the database cannot be read: what is known without it is told all the same
            return

    def _backlog(self) -> Iterator[Metric]:
        now = told_of(self._service.database)
        yield gauge("images", "Pictures by status", labelled(now.images), "status")
        yield gauge("texts", "Texts", [((), now.texts)])
        yield gauge("images_retrying", "Pictures that wait for another attempt", [((), now.retrying)])
        yield gauge("oldest_waiting_seconds", "Age of the picture that has waited longest", [((), now.oldest)])
        yield gauge("uploads_waiting", "Archives, lists and folders still to be taken in", [((), now.sources)])
        yield gauge("jobs", "Jobs by state", labelled(now.jobs), "state")
        yield gauge("job_oldest_seconds", "Age of the oldest job of a state", labelled(now.jobs_oldest), "state")

    def _indexes(self) -> Iterator[Metric]:
        engine = self._service.loaded
        totals = {} if engine is None else engine.indexes.totals()
        for name, told in INDEX.items():
            values = [((target,), numbers[name]) for target, numbers in totals.items()]
            yield gauge(f"index_{name}", told, values, "target")
        yield gauge(
            "encoder_queue",
            "Queries that wait for the encoder",
            [((), 0 if engine is None else engine.batcher.waiting)],
        )

    def _workers(self) -> Iterator[Metric]:
        settings = self._service.settings
        yield gauge("workers", "Living worker processes of this data directory", [((), workers(settings.data_dir))])
        yield gauge("workers_wanted", "Worker processes that the server keeps", [((), settings.workers)])

    def _disk(self) -> Iterator[Metric]:
        data_dir = self._service.settings.data_dir
        for name, told, value in disk(data_dir):
            yield gauge(name, told, [((), value)])
        backup = last_backup(data_dir)
        told = "When the last backup succeeded; 0 without one"
        yield gauge("backup_last_success_timestamp_seconds", told, [((), backup.at)])
        yield gauge("backup_seconds", "Time the last backup took", [((), backup.seconds)])
        yield gauge("backup_images", "Pictures of the last backup", [((), backup.pictures)])

    def _recall(self) -> Iterator[Metric]:
        """Of the approximate indexes that were searched, in any collection."""
        found = self._service.sampler.recalls()
        measured = [(key, one.at_10) for key, one in found.items() if one.at_10 is not None]
        yield gauge("recall_at_10", "Measured recall of recent searches", measured, "collection", "target")
        effort = [(key, one.effort) for key, one in found.items()]
        yield gauge("search_effort", "Doublings of what an index looks into", effort, "collection", "target")


def gauge(name: str, told: str, values: Iterable[tuple[Iterable[str], float]], *labels: str) -> Metric:
    """A family of samples (values of the labels, value)."""
    family = GaugeMetricFamily(f"sightline_{name}", told, labels=labels)
    for key, value in values:
        family.add_metric(list(key), value)
    return family


def labelled(numbers: dict[str, float] | dict[str, int]) -> list[tuple[tuple[str], float]]:
    """Numbers by one label."""
    return [((key,), value) for key, value in numbers.items()]
