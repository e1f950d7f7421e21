"""Run an importer in a thread, as a worker does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.worker.importer import Importer


@contextmanager
def importing(importer: Importer, owner: str = "me") -> Iterator[BackgroundLoop]:
    """The importer at work until the end of the block; it repeats after a hundredth of a second what failed."""
    loop: BackgroundLoop
    step = partial(importer.import_next, owner, lambda: loop.is_closing())
    loop = BackgroundLoop("importer", step, "uploads are not imported", Backoff(0.01, 0.01))
    loop.start()
    try:
        yield loop
    finally:
        loop.close()
