"""What searches leave for `/metrics`: times by stage, and ids of an index that have no row."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.types import Target

STAGES = ("encode", "search", "fetch", "total")
TARGETS: tuple[Target, ...] = ("images", "texts")
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Meters:
    """Counted where it happens, registered where it is asked for."""

    def __init__(self) -> None:
        self._seconds = Histogram(
            "sightline_search_seconds", "Time of the searches of a call", ["stage"], buckets=SECONDS, registry=None
        )
        self._ghosts = Counter(
            "sightline_ghost_hits", "Ids that an index gave and that have no row", ["target"], registry=None
        )
        for stage in STAGES:  # shown as 0 before the first
            self._seconds.labels(stage)
        for target in TARGETS:
            self._ghosts.labels(target)

    def register(self, registry: CollectorRegistry) -> None:
        """Show them in this registry."""
        registry.register(self._seconds)
        registry.register(self._ghosts)

    def searched(self, seconds: Mapping[str, float]) -> None:
        """One call was answered: its stages and their seconds."""
        for stage, took in seconds.items():
            self._seconds.labels(stage).observe(took)

    def ghosts(self, target: Target, n: int) -> None:
        """So many ids of an answer had no row."""
        if n:
            self._ghosts.labels(target).inc(n)
