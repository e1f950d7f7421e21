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
from app.service.health import count_workers, measure_backlog, measure_disk
from app.service.service import Service
from app.storage.backup import read_last_backup
from app.storage.membership import Duty

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
INDEX_GAUGES = {
    "open": "Open indexes",
    "vectors": "Vectors in the open indexes",
    "lag": "Log entries not yet in the index that is furthest behind",
    "bytes": "Memory of the open indexes",
    "tail": "Vectors in growing segments",
    "tombstones": "Deleted vectors that sealed segments still hold",
    "building": "Bases being built now",
}


class ServerMetrics:
    """Requests by route, and the numbers of the service, which are read at each scrape."""

    def __init__(self, service: Service, threads: ThreadPools) -> None:
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
        self._in_flight = Gauge("sightline_requests_in_flight", "Requests being answered", registry=self.registry)
        self._refused = Counter("sightline_refusals", "Refused requests", ["code"], registry=self.registry)
        self._open = Gauge("sightline_connections", "Open connections", registry=self.registry)
        busy = Gauge("sightline_lane_calls", "Calls that run or wait for a thread", ["lane"], registry=self.registry)
        for pool in (threads.queries, threads.reads, threads.writes):
            busy.labels(pool.name).set_function(partial(getattr, pool, "running"))
        ProcessCollector(registry=self.registry)
        self.registry.register(service.worker_metrics)
        self.registry.register(_ServiceNumbers(service))

    def watch_connections(self, count: Callable[[], int]) -> None:
        """`count` is called at each scrape."""
        self._open.set_function(count)

    def request_started(self) -> None:
        self._in_flight.inc()

    def request_finished(self, route: str, method: str, status: int, seconds: float) -> None:
        labels = (route, method if method in METHODS else "other", str(status))
        self._in_flight.dec()
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).observe(seconds)

    def count_refusal(self, code: str) -> None:
        self._refused.labels(code).inc()

    def render(self) -> bytes:
        """Every metric, in Prometheus' text format."""
        return generate_latest(self.registry)


class _ServiceNumbers(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield make_gauge("info", "1; the version is a label", [((__version__,), 1)], "version")
        is_ready = not service.search.reasons_not_ready()
        yield make_gauge("ready", "1 when searches can be answered", [((), float(is_ready))])
        checks = [((check.name,), float(check.ok)) for check in service.checks()]
        yield make_gauge("check", "1 when this check of /readyz is passed", checks, "check")
        yield from self._recall()
        yield from self._indexes()
        yield from self._workers()
        yield from self._disk()
        try:
            yield from self._backlog()
            yield from self._enrichments()
            yield from self._cluster()
        except SightlineError:  # the database cannot be read: the other metrics are complete
            return

    def _backlog(self) -> Iterator[Metric]:
        service = self._service
        now = measure_backlog(service.library.database)
        limits = service.settings.max_queue, service.settings.max_queue_bytes
        yield make_gauge("queue_items", "Pictures in the queue, members of uploads included", [((), now.depth.items)])
        yield make_gauge("queue_bytes", "Bytes of the pictures in the queue", [((), now.depth.bytes)])
        yield make_gauge("queue_max_items", "Uploads are refused from this many pictures on", [((), limits[0])])
        yield make_gauge("queue_max_bytes", "Uploads are refused from this many bytes on", [((), limits[1])])
        yield make_gauge("images", "Pictures by status", label_values(now.images), "status")
        yield make_gauge("texts", "Texts", [((), now.texts)])
        yield make_gauge("images_retrying", "Pictures that wait for another attempt", [((), now.retrying)])
        yield make_gauge(
            "oldest_waiting_seconds", "Age of the picture that has waited longest", [((), now.oldest_seconds)]
        )
        yield make_gauge("uploads_waiting", "Archives, lists and folders not imported yet", [((), now.uploads)])
        yield make_gauge("jobs", "Jobs by state", label_values(now.jobs), "state")
        yield make_gauge(
            "job_oldest_seconds", "Age of the oldest job of a state", label_values(now.oldest_job_seconds), "state"
        )

    def _enrichments(self) -> Iterator[Metric]:
        counts = self._service.enrichment.count_all()
        waiting = [((kind,), one.waiting) for kind, one in counts.items()]
        yield make_gauge("enrichments_waiting", "Pictures that wait for a second pass", waiting, "kind")
        failed = [((kind,), one.failed) for kind, one in counts.items()]
        yield make_gauge("enrichments_failed", "Pictures that a second pass has given up", failed, "kind")

    def _cluster(self) -> Iterator[Metric]:
        membership = self._service.membership
        kinds = [one.kind for one in membership.list_members()]
        counts = [((kind,), kinds.count(kind)) for kind in sorted(set(kinds))]
        yield make_gauge("members", "Living processes of the cluster", counts, "kind")
        duties = Duty if membership.is_cluster else ()
        leads = [((duty,), float(membership.leads(duty))) for duty in duties]
        yield make_gauge("duty", "1 where this server does this work, which one server does", leads, "duty")

    def _indexes(self) -> Iterator[Metric]:
        loaded = self._service.search.loaded
        totals = {} if loaded is None else loaded.indexes.totals()
        for name, help in INDEX_GAUGES.items():
            values = [((target,), numbers[name]) for target, numbers in totals.items()]
            yield make_gauge(f"index_{name}", help, values, "target")
        yield make_gauge(
            "encoder_queue",
            "Queries that wait for the encoder",
            [((), 0 if loaded is None else loaded.batcher.queue_length)],
        )

    def _workers(self) -> Iterator[Metric]:
        settings = self._service.settings
        yield make_gauge(
            "workers", "Living worker processes of this data directory", [((), count_workers(settings.process_folder))]
        )
        yield make_gauge("workers_wanted", "Worker processes that the server keeps", [((), settings.workers)])

    def _disk(self) -> Iterator[Metric]:
        data_dir = self._service.settings.data_dir
        for name, help, value in measure_disk(data_dir):
            yield make_gauge(name, help, [((), value)])
        backup = read_last_backup(data_dir)
        help = "When the last backup succeeded; 0 without one"
        yield make_gauge("backup_last_success_timestamp_seconds", help, [((), backup.at)])
        yield make_gauge("backup_seconds", "Time the last backup took", [((), backup.seconds)])
        yield make_gauge("backup_images", "Pictures of the last backup", [((), backup.pictures)])

    def _recall(self) -> Iterator[Metric]:
        """Of the approximate indexes that were searched, in any collection."""
        found = self._service.search.sampler.recalls()
        measured = [(key, one.at_10) for key, one in found.items() if one.at_10 is not None]
        yield make_gauge("recall_at_10", "Measured recall of recent searches", measured, "collection", "target")
        effort = [(key, one.effort) for key, one in found.items()]
        yield make_gauge("search_effort", "Doublings of what an index looks into", effort, "collection", "target")


def make_gauge(name: str, help: str, values: Iterable[tuple[Iterable[str], float]], *labels: str) -> Metric:
    """A family of samples (values of the labels, value)."""
    family = GaugeMetricFamily(f"sightline_{name}", help, labels=labels)
    for key, value in values:
        family.add_metric(list(key), value)
    return family


def label_values(numbers: dict[str, float] | dict[str, int]) -> list[tuple[tuple[str], float]]:
    """Numbers by one label."""
    return [((key,), value) for key, value in numbers.items()]
