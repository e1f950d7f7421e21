"""What worker processes have counted, on its way to the server's `/metrics`: a small file for each.

A worker writes its Meters every few seconds. The server adds the files up; what a worker that is gone had counted
stays in the sum, so that counters never fall. Labels do not tell one worker from another: there may be any number.
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

from app.core.locks import find_dead_owners
from app.core.metrics import ProcessMetrics

WRITE_SECONDS = 2.0
SUFFIX = ".prom"
PAGE = resource.getpagesize()

Series = tuple[str, tuple[tuple[str, str], ...]]  # name of a sample and its labels


class WorkerMetricsWriter:
    """Writes the Meters of one worker to its file, until it is closed."""

    def __init__(self, folder: Path, owner: str, metrics: ProcessMetrics) -> None:
        self._path = folder / f".{owner}{SUFFIX}"  # hidden: what has a plain name there is a lock file
        self._metrics = metrics
        Gauge("sightline_worker_memory_bytes", "Memory of the workers", registry=metrics.registry).set_function(
            process_memory_bytes
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write once more, and end. The file stays: the server reads it once more, and removes it."""
        self._stopping.set()
        self._thread.join()
        self._write()

    def _run(self) -> None:
        self._write()
        while not self._stopping.wait(WRITE_SECONDS):
            self._write()

    def _write(self) -> None:
        with suppress(OSError):  # a full disk, say, is told by what matters more
            write(self._path, self._metrics.text())


class MergedMetricsCollector(Collector):
    """The server's own Meters and those of all workers in `folder`, added up."""

    def __init__(self, folder: Path, metrics: ProcessMetrics) -> None:
        self._folder = folder
        self._own = metrics.registry
        self._lock = threading.Lock()
        self._gone: dict[Series, float] = defaultdict(float)  # what workers that are gone had counted
        with suppress(OSError):
            for path in self._files():  # of the server before us: counters begin anew with a process
                if find_dead_owners(folder, [owner_of(path)]):
                    path.unlink(missing_ok=True)

    def collect(self) -> Iterator[Metric]:
        """Every family once."""
        with self._lock:
            sums, extra = self._sums()
        for family in self._own.collect():
            yield add_worker_values(family, sums)
        yield from (add_worker_values(family, sums) for family in extra.values())

    def forget(self) -> None:
        """Take in what workers that are gone have left, and remove their files."""
        with self._lock:
            self._sums()

    def _files(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if path.name.startswith(".") and path.suffix == SUFFIX]

    def _sums(self) -> tuple[dict[Series, float], dict[str, Metric]]:
        """What the workers have counted together, and the families that the server itself does not have."""
        living: dict[Series, float] = defaultdict(float)
        ours = {family.name for family in self._own.collect()}
        extra: dict[str, Metric] = {"sightline_worker_memory_bytes": make_memory_family()}
        with suppress(OSError):
            for path in self._files():
                gone = bool(
                    find_dead_owners(self._folder, [owner_of(path)])
                )  # before it is read: nobody writes it after that
                for family in parse_families(path):
                    if family.name not in ours and family.name not in extra:
                        continue  # of another version
                    for sample in family.samples:
                        if gone and family.type == "gauge":
                            continue
                        into = self._gone if gone else living
                        into[sample.name, tuple(sorted(sample.labels.items()))] += sample.value
                if gone:
                    path.unlink(missing_ok=True)
        for series, value in self._gone.items():
            living[series] += value
        return living, extra


def add_worker_values(family: Metric, sums: dict[Series, float]) -> Metric:
    """The family with what stands in `sums` under its names, which is taken out of them."""
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
    """What a worker has written; nothing where it cannot be read."""
    try:
        return list(text_string_to_metric_families(path.read_text("utf-8")))
    except (OSError, ValueError):
        return []


def write(path: Path, text: str) -> None:
    """Replace the file as a whole."""
    new = path.with_suffix(".new")
    try:
        new.write_text(text, "utf-8")
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def owner_of(path: Path) -> str:
    """Which worker wrote this file."""
    return path.name[1 : -len(SUFFIX)]


def make_memory_family() -> Metric:
    """The memory of no worker at all."""
    return GaugeMetricFamily("sightline_worker_memory_bytes", "Memory of the workers", 0.0)


def process_memory_bytes() -> float:
    """What this process holds in memory, in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0.0
