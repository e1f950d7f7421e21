"""`sightline worker`: one worker process."""

from __future__ import annotations

import logging
import os
import signal

from app.core.errors import StartupError
from app.core.metrics import Meters
from app.core.process import die_with
from app.core.settings import Settings
from app.core.worker_metrics import Reporter
from app.encoder.loader import load
from app.encoder.memory_check import NOBODY, Crew
from app.encoder.shared import Shared
from app.service.service import archive_limits, open_gathering, open_library, open_pool
from app.storage.model_check import check_golden, check_space
from app.worker.embed import Options, Worker
from app.worker.importer import Importer

log = logging.getLogger(__name__)


POLITE = 10  # niceness: searches are answered by another process and come first


def work(settings: Settings, parent: int | None = None) -> None:
    """Work until SIGTERM or SIGINT; with `parent` (a process id), never longer than that lives."""
    os.nice(POLITE)
    if parent is None:
        _work(settings, NOBODY if settings.ignore_memory else Crew(workers=1))
        return
    die_with(parent)
    try:
        _work(settings, NOBODY)  # its server has counted it
    except StartupError as error:  # the server, which has the same reason, is who tells it
        log.info("the worker cannot start: %s", error.detail)
        raise SystemExit(2) from None


def _work(settings: Settings, crew: Crew) -> None:
    meters = Meters("worker")
    library = open_library(settings, meters)
    try:
        encoder = load(
            settings.model,
            settings.models,
            device=settings.device,
            precision=settings.precision,
            runtime=settings.runtime,
            threads=settings.threads,
            crew=crew,
            bulk=True,
        )
        check_space(library.database, encoder.space)
        check_golden(library.database, encoder, texts=False)
        shared = Shared(encoder)  # by the worker and what tries given vectors
        with open_pool(settings, encoder.device, meters) as pool:
            importer = Importer(
                library,
                pool,
                archive_limits(settings),
                settings.archive_seconds,
                settings.lease_seconds,
                settings.max_attempts,
                open_gathering(settings, library, pool, shared),
            )
            options = Options(
                settings.batch_for(encoder.device),
                settings.lease_seconds,
                settings.max_attempts,
                settings.thumbnail_size,
            )
            worker = Worker(library, shared, pool, importer, settings.data_dir / "workers", options, meters)
            reporter = Reporter(settings.data_dir / "workers", worker.owner, meters)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: worker.stop())
            worker.run(reporter.close)
    finally:
        library.database.close()
