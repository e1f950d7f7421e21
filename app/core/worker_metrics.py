"""The metrics of worker processes on their way to the server's `/metrics`: each worker writes a small file.

The server adds the files up. Its sums keep what a dead worker had counted, so that counters never fall. There may be
any number of workers, so no label tells one from another.
"""

from __future__ import annotations

import resource
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from app.core.background import BackgroundLoop
from app.core.files import atomic_write
from app.core.locks import find_dead_owners
from app.core.metrics import ProcessMetrics

WRITE_SECONDS = 2.0
SUFFIX = ".prom"
PAGE = resource.getpagesize()
MEMORY = ("sightline_worker_memory_bytes", "Memory of the live workers, without their decode children")

Series = tuple[str, tuple[tuple[str, str], ...]]  # name of a sample and its labels


class WorkerMetricsWriter:
    """Writes the metrics of one worker to its file until it is closed."""

    def __init__(self, folder: Path, owner: str, metrics: ProcessMetrics) -> None:
        self._path = folder / f".{owner}{SUFFIX}"  # hidden: a file without a dot is a lock file
        self._metrics = metrics
        Gauge(*MEMORY, registry=metrics.registry).set_function(process_memory_bytes)
        self._loop = BackgroundLoop("worker-metrics", self._write, "the metrics of this worker are not written")
        self._loop.start()

    def close(self) -> None:
        """Write once more. The file stays: the server reads it a last time and removes it."""
        self._loop.close()
        self._write()

    def _write(self) -> float:
        with suppress(OSError), atomic_write(self._path, durable=False) as file:  # others report a full disk
            file.write(self._metrics.text())
        return WRITE_SECONDS


class MergedMetricsCollector(Collector):
    """The server's own metrics plus those of all workers in `folder`."""

    def __init__(self, folder: Path, metrics: ProcessMetrics) -> None:
        self._folder = folder
        self._own = metrics.registry
        self._lock = threading.Lock()
        self._dead: dict[Series, float] = defaultdict(float)  # what dead workers had counted
        with suppress(OSError):
            for path in [*self._files(), *self._files(".tmp")]:  # of an earlier server; counters start at 0 here
                if find_dead_owners(folder, [owner_of(path)]):
                    path.unlink(missing_ok=True)

    def collect(self) -> Iterator[Metric]:
        """Each family once."""
        with self._lock:
            sums, extra = self._sum_workers()
        for family in (*self._own.collect(), *extra.values()):
            yield add_worker_values(family, sums)

    def absorb_dead_workers(self) -> None:
        """Add the counters of workers that have died to the sums, and remove their files."""
        with self._lock:
            self._sum_workers()

    def _files(self, suffix: str = SUFFIX) -> list[Path]:
        return [path for path in self._folder.iterdir() if path.name.startswith(".") and path.suffix == suffix]

    def _sum_workers(self) -> tuple[dict[Series, float], dict[str, Metric]]:
        """The sums over all workers, and the families that the server itself does not have."""
        sums: dict[Series, float] = defaultdict(float)
        own = {family.name for family in self._own.collect()}
        extra: dict[str, Metric] = {MEMORY[0]: GaugeMetricFamily(*MEMORY, 0.0)}
        with suppress(OSError):
            for path in self._files():
                is_dead = bool(find_dead_owners(self._folder, [owner_of(path)]))  # asked before the last read
                for family in parse_families(path):
                    if family.name not in own and family.name not in extra:
                        continue  # a metric of another version
                    for sample in family.samples:
                        if is_dead and family.type == "gauge":
                            continue
                        into = self._dead if is_dead else sums
                        into[sample.name, tuple(sorted(sample.labels.items()))] += sample.value
                if is_dead:
                    path.unlink(missing_ok=True)
        for series, value in self._dead.items():
            sums[series] += value
        return sums, extra


def add_worker_values(family: Metric, sums: dict[Series, float]) -> Metric:
    """The family plus the values that `sums` has for it; they are removed from `sums`."""
    whole = Metric(family.name, family.documentation, family.type)
    names = {family.name, *(family.name + suffix for suffix in ("_total", "_bucket", "_count", "_sum"))}
    for sample in family.samples:
        more = sums.pop((sample.name, tuple(sorted(sample.labels.items()))), 0.0)
        whole.add_sample(sample.name, sample.labels, sample.value + more)
    for (name, labels), value in list(sums.items()):
        if name in names:
            whole.add_sample(name, dict(labels), value)
            del sums[name, labels]
    return whole


def parse_families(path: Path) -> list[Metric]:
    """The metrics in a worker's file; none if it cannot be read."""
    try:
        return list(text_string_to_metric_families(path.read_text("utf-8")))
    except (OSError, ValueError):
        return []


def owner_of(path: Path) -> str:
    """The LeaseOwner id of the worker that wrote this file."""
    return path.name.lstrip(".").partition(".")[0]


def process_memory_bytes() -> float:
    """The resident memory of this process; 0 where the system does not tell it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0.0
