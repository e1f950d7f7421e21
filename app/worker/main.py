"""`sightline worker`: one worker process."""

from __future__ import annotations

import logging
import math
import os
import signal
from dataclasses import replace

from app.core.errors import StartupError
from app.core.metrics import ProcessMetrics
from app.core.process import die_with_parent
from app.core.settings import Settings
from app.core.worker_metrics import WorkerMetricsWriter
from app.decode.pool import DecodePool
from app.encoder.hub import LoadProgress
from app.encoder.loader import EncoderOptions, load_encoder
from app.encoder.memory_check import NO_PROCESSES, ModelProcesses
from app.encoder.protocol import Encoder
from app.service.data_dir import make_data_dir, open_library
from app.service.factory import archive_limits, open_pool, open_sources, video_limits
from app.storage.library import Library
from app.storage.model_check import check_golden, check_name, check_space, find_model_name, find_precision
from app.worker.embed import EmbeddingWorker, ModelChanged, WorkerOptions
from app.worker.importer import Importer

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds to read one archive or list one source while uploads of other jobs wait
NICENESS = 10  # of a worker: the searches of the server come first


def run_worker(settings: Settings, parent: int | None = None) -> None:
    """Work until SIGTERM or SIGINT; with `parent` (a process id), no longer than the parent lives."""
    os.nice(NICENESS)
    if parent is None:
        make_data_dir(settings.data_dir)  # a server has done it for its workers
        _run_again(settings, ModelProcesses(workers=1))
        return
    die_with_parent(parent)
    try:
        _run_again(settings, NO_PROCESSES)  # the server has counted the memory of its workers
    except StartupError as error:  # the server cannot start for the same reason, and reports it
        log.info("the worker cannot start: %s", error.detail)
        raise SystemExit(2) from None


def _run_again(settings: Settings, processes: ModelProcesses) -> None:
    """Work with the model of the data directory, and with the next one when a server changes it."""
    while True:
        try:
            return _run(settings, processes)
        except ModelChanged:
            log.info("the data directory has changed its model; loading the new one")


def _run(settings: Settings, processes: ModelProcesses) -> None:
    metrics = ProcessMetrics("worker")
    library = open_library(settings, metrics)
    try:
        name = find_model_name(library.database, settings.model)
        progress = LoadProgress(before_fetch=lambda: check_name(library.database, name))
        bulk = replace(
            EncoderOptions.of(settings, processes, bulk=True),
            precision=find_precision(library.database, settings, name),
        )
        encoder = load_encoder(name, settings.models, bulk, progress)
        check_space(library.database, encoder.space)
        check_golden(library.database, encoder, texts=False)
        with open_pool(settings, encoder.device, metrics) as pool:
            importer, quick = (
                open_importer(settings, library, pool, encoder, seconds) for seconds in (math.inf, PATIENCE)
            )
            options = WorkerOptions(
                settings.batch_size_for(encoder.device),
                settings.lease_seconds,
                settings.max_attempts,
                settings.thumbnail_size,
            )
            owners = settings.data_dir / "workers"
            worker = EmbeddingWorker(library, encoder, pool, importer, owners, options, metrics, quick)
            writer = WorkerMetricsWriter(owners, worker.owner, metrics)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: worker.stop())
            worker.run(writer.close)
    finally:
        library.close()


def open_importer(
    settings: Settings, library: Library, pool: DecodePool, encoder: Encoder, patience: float
) -> Importer:
    sources = open_sources(settings, library, pool, encoder)
    limits = (archive_limits(settings), settings.archive_seconds, settings.lease_seconds, settings.max_attempts)
    return Importer(library, pool, *limits, sources, patience, video_limits(settings))
