"""Prometheus metrics of one application, in a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.errors import SightlineError
from app.service import Service
from app.types import DEFAULT_COLLECTION

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Requests by route, and the service's own numbers, read when they are asked for."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "sightline_requests", "Answered requests", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "sightline_request_seconds", "Time to answer", ["route"], buckets=BUCKETS, registry=self.registry
        )
        service.meters.register(self.registry)
        self.registry.register(_ServiceNumbers(service))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


class _ServiceNumbers(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("sightline_ready", "1 when searches can be answered")
        ready.add_metric([], float(not self._service.ready()))
        yield ready
        yield from self._recall()
        try:
            stats: dict[str, Any] = self._service.stats(DEFAULT_COLLECTION)
        except SightlineError:
            return
        pictures = GaugeMetricFamily("sightline_images", "Pictures by status", labels=["status"])
        for status, count in stats["images"].items():
            if status != "total":
                pictures.add_metric([status], count)
        yield pictures
        texts = GaugeMetricFamily("sightline_texts", "Texts")
        texts.add_metric([], stats["texts"])
        yield texts
        vectors = GaugeMetricFamily("sightline_index_vectors", "Vectors in the index", labels=["target"])
        lag = GaugeMetricFamily("sightline_index_lag", "Log entries not yet in the index", labels=["target"])
        for target, index in (stats["index"] or {}).items():
            vectors.add_metric([target], index["ntotal"])
            lag.add_metric([target], index["lag"])
        yield vectors
        yield lag

    def _recall(self) -> Iterator[Metric]:
        """Of the approximate indexes that were searched, in any collection."""
        labels = ["collection", "target"]
        recall = GaugeMetricFamily("sightline_recall_at_10", "Measured recall of recent searches", labels=labels)
        effort = GaugeMetricFamily("sightline_search_effort", "Doublings of what an index looks into", labels=labels)
        for key, found in self._service.sampler.recalls().items():
            effort.add_metric(key, found.effort)
            if found.at_10 is not None:
                recall.add_metric(key, found.at_10)
        yield recall
        yield effort
