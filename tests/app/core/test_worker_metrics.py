"""What worker processes have counted, in the sum of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.core.locks import LeaseOwner
from app.core.metrics import ProcessMetrics
from app.core.worker_metrics import MergedMetricsCollector, WorkerMetricsWriter, owner_of


class Working:
    """A worker: its lock file, its counters and what writes them."""

    def __init__(self, folder: Path) -> None:
        self.metrics = ProcessMetrics("worker")
        self.owner = LeaseOwner(folder)
        self.reporter = WorkerMetricsWriter(folder, self.owner.id, self.metrics)

    def end(self) -> None:
        self.reporter.close()
        self.owner.close()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[], Working]]:
    begun: list[Working] = []

    def make() -> Working:
        begun.append(Working(tmp_path))
        return begun[-1]

    yield make
    for one in begun:
        one.end()


def read_samples(reports: MergedMetricsCollector) -> dict[str, float]:
    """Every sample, by its name and labels as they are written; the text must be one that a scraper takes."""
    registry = CollectorRegistry()
    registry.register(reports)
    text = generate_latest(registry).decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    return {
        "".join([sample.name, *(f" {key}={value}" for key, value in sorted(sample.labels.items()))]): sample.value
        for family in families
        for sample in family.samples
    }


def test_workers_are_added_up_and_what_the_dead_had_counted_stays(tmp_path: Path, begin: Callable[[], Working]) -> None:
    own = ProcessMetrics()
    reports = MergedMetricsCollector(tmp_path, own)
    first, second = begin(), begin()
    for worker, n in ((first, 3), (second, 4)):
        worker.metrics.attempts.inc(n)
        worker.metrics.decodes.observe(0.02)
        worker.metrics.count_decoder_death("crash")
    own.decodes.observe(5.0)
    second.reporter.close()  # writes what it has, and its owner lives
    first.end()
    for _ in range(2):
        numbers = read_samples(reports)
        assert numbers["sightline_worker_attempts_total"] == 7
        assert numbers["sightline_decode_seconds_count process=worker"] == 2
        assert numbers["sightline_decode_seconds_count process=server"] == 1
        assert numbers["sightline_decode_seconds_bucket le=0.025 process=worker"] == 2
        assert numbers["sightline_decode_seconds_bucket le=0.01 process=worker"] == 0
        assert numbers["sightline_decode_deaths_total cause=crash process=worker"] == 2
        assert numbers["sightline_decode_deaths_total cause=crash process=server"] == 0
    (left,) = tmp_path.glob(".*.prom")
    assert owner_of(left) == second.owner.id
    second.owner.close()
    assert read_samples(reports)["sightline_worker_attempts_total"] == 7
    assert not list(tmp_path.glob(".*.prom"))


def test_memory_is_that_of_the_living_alone(tmp_path: Path, begin: Callable[[], Working]) -> None:
    reports = MergedMetricsCollector(tmp_path, ProcessMetrics())
    assert read_samples(reports)["sightline_worker_memory_bytes"] == 0
    worker = begin()
    worker.reporter.close()
    assert read_samples(reports)["sightline_worker_memory_bytes"] > 1 << 20
    worker.owner.close()
    reports.absorb_dead_workers()
    assert read_samples(reports)["sightline_worker_memory_bytes"] == 0


def test_a_new_server_begins_without_what_the_dead_of_the_one_before_had_counted(
    tmp_path: Path, begin: Callable[[], Working]
) -> None:
    gone, living = begin(), begin()
    for worker in (gone, living):
        worker.metrics.attempts.inc(1)
        worker.reporter.close()
    gone.owner.close()
    assert read_samples(MergedMetricsCollector(tmp_path, ProcessMetrics()))["sightline_worker_attempts_total"] == 1
    assert (
        read_samples(MergedMetricsCollector(tmp_path / "nowhere", ProcessMetrics()))["sightline_worker_attempts_total"]
        == 0
    )


def test_what_cannot_be_read_and_what_is_of_another_version_is_left_out(
    tmp_path: Path, begin: Callable[[], Working]
) -> None:
    worker = begin()
    worker.reporter.close()
    path = tmp_path / f".{worker.owner.id}.prom"
    path.write_text(path.read_text() + "# TYPE sightline_of_old_total counter\nsightline_of_old_total 3\n")
    (tmp_path / ".torn.prom").write_bytes(b"# TYPE a counter\na{ \xff")
    numbers = read_samples(MergedMetricsCollector(tmp_path, ProcessMetrics()))
    assert "sightline_of_old_total" not in numbers
    assert numbers["sightline_worker_attempts_total"] == 0
