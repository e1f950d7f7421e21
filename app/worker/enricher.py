"""What does the work of a second pass (`app.worker.enrich`): a picture at a time, or a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from app.core.errors import Overloaded
from app.core.types import Image
from app.storage.tables.enrichments import Enrichment


class Enricher(Protocol):
    """What does the work of one kind.

    `seconds` is how long it may take for a picture: after that the kernel kills the process. `memory` is its address
    space, in bytes; None sets no limit.
    """

    kind: str
    seconds: float
    memory: int | None

    def enrich(self, image: Image, path: Path) -> Enrichment:
        """Read the file at `path`, through a decode child.

        Rejected, or BlobMissing, gives the picture up; an error that is `retryable` counts no attempt, and the process
        pauses; any other counts one.
        """


@runtime_checkable
class BatchEnricher(Protocol):
    """An Enricher that takes up to `at_once` pictures together; `seconds` is its time for all of them."""

    kind: str
    seconds: float
    memory: int | None
    at_once: int

    def enrich_all(self, pictures: Sequence[tuple[Image, Path]]) -> Sequence[Enrichment | Exception]:
        """What was found in each picture, or its error, as `enrich` raises it. What this raises is the error of all."""


class EnricherAway(Overloaded):
    """A server that does the work does not; `pause` are the seconds that it asks to wait."""

    def __init__(self, detail: str, pause: float = 0.0) -> None:
        super().__init__(detail)
        self.pause = pause
