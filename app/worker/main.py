"""`sightline worker`: one worker process, or what keeps several of them running."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
from contextlib import closing, suppress
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
from app.service.data_dir import (
    check_places,
    make_data_dir,
    open_library,
    open_membership,
    refuse_other_machine,
)
from app.service.enrichment import check_enrichment_settings, list_kinds
from app.service.factory import archive_limits, open_pool, open_sources, video_limits
from app.storage.library import Library
from app.storage.model_check import check_golden, check_name, check_space, find_model_name, find_precision
from app.worker.embed import EmbeddingWorker, ModelChanged, WorkerOptions
from app.worker.importer import Importer
from app.worker.supervisor import WorkerSupervisor

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds to read one archive or list one source while uploads of other jobs wait
NICENESS = 10  # of a worker: the searches of the server come first


def run_worker(settings: Settings, parent: int | None = None) -> None:
    """Work until SIGTERM or SIGINT; with `parent` (a process id), no longer than the parent lives."""
    os.nice(NICENESS)
    if parent is None:
        prepare_places(settings)  # a server has done it for its workers
        _run_again(settings, ModelProcesses(workers=1))
        return
    die_with_parent(parent)
    try:
        _run_again(settings, NO_PROCESSES)  # the server has counted the memory of its workers
    except StartupError as error:  # the server cannot start for the same reason, and reports it
        log.info("the worker cannot start: %s", error.detail)
        raise SystemExit(2) from None


def needs_supervisor(settings: Settings) -> bool:
    """Whether `sightline worker` runs more than one process. Raises StartupError where it would run none."""
    if settings.workers == 0:
        raise StartupError("--workers 0 (SIGHTLINE_WORKERS) leaves `sightline worker` nothing to run")
    return settings.workers > 1 or (settings.is_cluster and bool(list_kinds(settings)))


def run_workers(settings: Settings) -> None:
    """Keep workers running, and in a cluster the processes of the second passes, until SIGTERM or SIGINT.

    Raises StartupError.
    """
    check_enrichment_settings(settings)
    prepare_places(settings)
    open_library(settings).close()  # says here, once, what keeps every worker from starting
    asyncio.run(_supervise(WorkerSupervisor(settings, enrichments=list_kinds(settings) if settings.is_cluster else ())))


async def _supervise(supervisor: WorkerSupervisor) -> None:
    working = asyncio.create_task(supervisor.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    with suppress(asyncio.CancelledError):
        await working


def prepare_places(settings: Settings) -> None:
    """Make the folder of a worker. Raises StartupError where places of the settings do not go together."""
    check_places(settings)
    if settings.is_cluster:
        make_data_dir(settings.cache)
    else:
        refuse_other_machine(settings.data_dir)
        make_data_dir(settings.data_dir)


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
                settings.is_cluster,
            )
            owners = settings.process_folder / "workers"
            worker = EmbeddingWorker(library, encoder, pool, importer, owners, options, metrics, quick)
            writer = WorkerMetricsWriter(owners, worker.owner, metrics)
            membership = open_membership(settings, "worker")
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: worker.stop())
            with closing(membership):
                membership.start()
                worker.warm_up()
                worker.run(writer.close)
    finally:
        library.close()


def open_importer(
    settings: Settings, library: Library, pool: DecodePool, encoder: Encoder, patience: float
) -> Importer:
    sources = open_sources(settings, library, pool, encoder)
    limits = (archive_limits(settings), settings.archive_seconds, settings.lease_seconds, settings.max_attempts)
    return Importer(library, pool, *limits, sources, patience, video_limits(settings))
