"""Everything that one server process keeps open, opened in order and closed in reverse.

The store opens at once, so that pictures can be taken in while the model is still loading in the
background; searching begins when the model is there and the indexes have caught up with the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import apsw

from app.core.errors import ModelUnavailable, NotFound, Overloaded, SightlineError, StartupError, Validation
from app.core.locks import DataDirLock, StopRequested, find_dead_owners
from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.core.types import DEFAULT_COLLECTION, Image, Job, JobState, Status, Target
from app.core.worker_metrics import MergedMetricsCollector
from app.decode.limits import ArchiveLimits, ChildLimits, PictureLimits
from app.decode.pool import DecodePool
from app.encoder.batcher import Batcher
from app.encoder.loader import EncoderOptions, LocatedModel, load_located
from app.encoder.memory_check import NO_PROCESSES, ModelProcesses, available_memory
from app.encoder.protocol import Encoder
from app.search.index_manager import TARGETS, IndexManager, open_milvus_client
from app.search.recall import RecallSampler, SearchEffortStore
from app.search.searcher import Searcher
from app.service.auth import ApiKeyService
from app.service.health import HealthCheck, check_ingest, check_model
from app.service.maintenance import CollectionDeleter, MaintenanceLoop
from app.sources.base import SourceContext, SourcePolicy
from app.sources.clip_retrieval import wrong_space_detail
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.http import FetchLimits, HttpFetcher
from app.sources.local_files import AllowedFolders
from app.sources.object_store import open_object_store, parse_allowed_buckets
from app.sources.registry import SourceReader
from app.storage.attributes import MetadataLimits
from app.storage.blobs import BlobStore, make_folder
from app.storage.database import Database
from app.storage.idempotency import IdempotencyStore
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.model_check import check_golden, check_space
from app.storage.tables import collections, embeddings, images, leases, texts

log = logging.getLogger(__name__)

CATCH_UP_SECONDS = 5.0  # how long an answer may wait for the index to reach what it reports
MILVUS_RETRY_SECONDS = 2.0  # between two tries to open indexes whose engine is away
ASSUMED_FREE_BYTES = 4 << 30  # bytes, where the system does not say what is free
DELETE_WAIT_SECONDS = 2.0  # how long dropping a collection waits for the last of its rows


def open_library(settings: Settings, metrics: ProcessMetrics | None = None) -> Library:
    """The data directory's store and files, made if they are not there."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        media = BlobStore(settings.data_dir, metrics)
    except (OSError, SightlineError) as error:
        raise StartupError(f"the data directory {settings.data_dir} cannot be used: {error}") from error
    file = settings.data_dir / "sightline.db"
    if not file.exists() and any(media.iter_files()):
        raise StartupError(
            f"{file} is missing, but {media.root} holds pictures; restore it from a backup, or move the pictures away"
        )
    database = Database(file, metrics)
    bounds = MetadataLimits(settings.max_metadata_bytes, settings.max_metadata_depth)
    return Library(database, media, picture_limits(settings), settings.max_queue, bounds, settings.max_queue_bytes)


def lock_data_dir(settings: Settings) -> DataDirLock:
    """The data directory, made if it is not there, for this server alone."""
    try:
        make_folder(settings.data_dir)
        return DataDirLock(settings.data_dir)
    except OSError as error:
        raise StartupError(f"the data directory {settings.data_dir} cannot be used: {error.strerror}") from error


def picture_limits(settings: Settings) -> PictureLimits:
    """The limits of a picture."""
    return PictureLimits(settings.max_image_bytes, settings.max_image_pixels, settings.max_image_side)


def archive_limits(settings: Settings) -> ArchiveLimits:
    """The limits of an archive."""
    return ArchiveLimits(settings.max_archive_bytes, settings.max_archive_members, settings.max_image_bytes)


def open_folder_roots(settings: Settings) -> AllowedFolders:
    """The folders of this machine that may be read. Raises StartupError for a path that is not absolute."""
    try:
        return AllowedFolders.parse(settings.folders)
    except ValueError as error:
        raise StartupError(f"SIGHTLINE_FOLDERS: {error}") from None


def open_source_policy(settings: Settings) -> SourcePolicy:
    """What sources may read. Raises StartupError."""
    roots, buckets = open_folder_roots(settings), parse_allowed_buckets(settings)
    return SourcePolicy(roots, settings.fetch, settings.max_urls, settings.max_image_bytes, buckets)


def open_sources(settings: Settings, library: Library, pool: DecodePool, encoder: Encoder) -> SourceReader:
    """What brings pictures from named sources."""
    fetcher, objects = open_fetcher(settings), open_object_store(settings)
    tools = SourceContext(
        library.database, library.blobs, open_source_policy(settings), fetcher, pool, settings.archive_seconds
    )
    return SourceReader(replace(tools, object_store=objects, encoder=encoder))


def open_fetcher(settings: Settings) -> HttpFetcher | None:
    """What fetches pictures by URL; None where that is not allowed."""
    if not settings.fetch:
        return None
    return HttpFetcher(open_address_policy(settings), FetchLimits(settings.max_image_bytes, settings.fetch_seconds))


def open_address_policy(settings: Settings) -> AddressPolicy:
    """Which addresses URLs may lead to. Raises StartupError for networks that are none."""
    try:
        return AddressPolicy([text for text in settings.fetch_also.split(",") if text.strip()])
    except ValueError as error:
        raise StartupError(f"SIGHTLINE_FETCH_ALSO is not a list of addresses and networks: {error}") from None


def open_pool(settings: Settings, device: str = "cpu", metrics: ProcessMetrics | None = None) -> DecodePool:
    """The decode children of this process; `device` is what they feed."""
    limits = ChildLimits(settings.decode_seconds, settings.decode_memory)
    return DecodePool(settings.decoders_for(device), limits, picture_limits(settings), metrics)


@dataclass(slots=True)
class LoadedModel:
    """What exists once the model is loaded."""

    encoder: Encoder
    batcher: Batcher
    searcher: Searcher
    indexes: IndexManager


class Service:
    """One data directory, served. `start` returns at once; `ready` says what is still missing."""

    def __init__(self, settings: Settings, located: LocatedModel) -> None:
        self.settings = settings
        self._located = located
        self._engine: LoadedModel | None = None
        self._remote = open_milvus_client(settings.index, settings.index_token)
        self._waiting: str | None = None
        self.fatal: SightlineError | None = None
        self.prepared = False  # whether the model's files are ready to be opened by others, too
        self.allowed = open_source_policy(settings)
        open_address_policy(settings)  # what is wrong with these should not be told by the first worker
        open_object_store(settings)
        self.metrics = ProcessMetrics()
        self._lock = lock_data_dir(settings)
        try:
            self.library = open_library(settings, self.metrics)
            self.pool = open_pool(settings, metrics=self.metrics)
        except BaseException:
            self._lock.close()
            raise
        self.database = self.library.database
        self.bulks = JobService(self.library)
        self.repeats = IdempotencyStore(self.database)
        self._indexes: IndexManager | None = None
        self.dropper = CollectionDeleter(self.library, settings.data_dir / "snapshots", self._forget)
        self.reports = MergedMetricsCollector(settings.data_dir / "workers", self.metrics)
        self.sampler = RecallSampler(settings.recall_target, self._busy)
        self.access = ApiKeyService(self.database)
        self._loading = threading.Thread(target=self._load, name="load", daemon=True)
        self.sweeper = MaintenanceLoop(self.library, self.bulks, settings.job_days)
        self._closing = threading.Event()

    def start(self) -> None:
        """Tidy up after whatever happened before, and begin to load the model."""
        try:
            held = self.database.read(leases.list_owners)
            gone = find_dead_owners(self.settings.data_dir / "workers", held)
            self.database.write(lambda c: leases.recover_leases(c, gone, self.settings.max_attempts))
        except SightlineError as error:  # a full disk, say: what is there can be searched all the same
            log.warning("attempts not forgotten: %s", error.detail)
        self.dropper.start()
        self._loading.start()
        self.sweeper.start()
        self.sampler.start()

    def close(self) -> None:
        """Close everything; what was acknowledged is safe long before."""
        self._closing.set()
        while self._loading.is_alive():
            if self._indexes is not None:  # it may be building the base of a large one first, which takes minutes
                self._indexes.close()
            self._loading.join(0.2)
        self.sweeper.close()
        self.sampler.close()
        if (engine := self._engine) is not None:
            self._engine = None
            engine.batcher.close()
        self.dropper.close()
        if self._indexes is not None:
            self._indexes.close()
        if self._remote is not None:
            self._remote.close()
        self.pool.close()
        self.database.close()
        self._lock.close()

    @property
    def engine(self) -> LoadedModel:
        """The loaded model and its indexes. Raises ModelUnavailable while there is none."""
        if self._engine is None:
            raise ModelUnavailable(f"the model {self.settings.model} is still loading")
        return self._engine

    @property
    def loaded(self) -> LoadedModel | None:
        """The same, None while there is none."""
        return self._engine

    @property
    def searcher(self) -> Searcher:
        """Raises ModelUnavailable while the model is loading or the indexes are behind, Overloaded while an engine that
        was never reached is away."""
        if self._waiting is not None:
            raise Overloaded(self._waiting)
        if reasons := self._stopped():
            raise ModelUnavailable("; ".join(reasons))
        return self.engine.searcher

    def checks(self) -> list[HealthCheck]:
        """Everything that must be right, what searches need first. Reads the database and the disk."""
        if (engine := self._engine) is None:
            found = [HealthCheck("model", False, self._stopped()[0], vital=True)]
        else:
            faults = engine.indexes.faults() + engine.indexes.away()
            found = check_model(engine.encoder, engine.batcher.is_alive(), faults)
        return [*found, *check_ingest(self.database, self.settings, self.faults())]

    def require_space(self, fingerprint: str) -> None:
        """Raise Validation unless this is the space of the loaded model, ModelUnavailable while it is loading."""
        space = self.engine.encoder.space
        if fingerprint != space.fingerprint:
            raise Validation(wrong_space_detail(fingerprint, space.model, space.fingerprint))

    def ready(self) -> list[str]:
        """Why searches cannot be answered; empty when they can."""
        return self._stopped() + (self._engine.indexes.away() if self._engine is not None else [])

    def faults(self) -> list[str]:
        """What goes wrong in the background while searches are answered; each is tried again by itself."""
        found = [*self.sweeper.faults(), self.dropper.fault, self.sampler.fault]
        return [one for one in found if one] + (self._engine.indexes.troubles() if self._engine is not None else [])

    def _stopped(self) -> list[str]:
        """Why no search can even be tried."""
        if self._engine is None:
            loading = self._waiting or f"the model {self.settings.model} is still loading"
            return [self.fatal.detail if self.fatal else loading]
        reasons = [] if self.database.alive() else ["the database takes no changes any more"]
        if not self._engine.batcher.is_alive():
            reasons.append("the encoder has stopped")
        return reasons + self._engine.indexes.faults()

    def settle(self, collection: str, target: Target, seq: int | None) -> bool:
        """Wait until a search sent now sees the log up to `seq`; False if that took too long."""
        engine = self._engine
        if engine is None or seq is None:
            return True
        try:
            return engine.indexes.settle(collection, target, seq, CATCH_UP_SECONDS)
        except NotFound:  # dropped meanwhile: there is nothing left to be found
            return True

    def settled(self, found: Sequence[Image]) -> bool:
        """Whether every `ready` of these pictures of one collection is true: a search sent now would find them."""
        ready = [image for image in found if image.status is Status.READY]
        newest = max((image.embedded_seq or 0 for image in ready), default=None)
        return not ready or self.settle(ready[0].collection, "images", newest)

    def settled_job(self, job: Job) -> bool:
        """Whether everything the job has done can be found."""
        return job.state is not JobState.SUCCEEDED or self.settle(job.collection, "images", job.last_seq)

    def stats(self, collection: str) -> dict[str, object]:
        """Counts, index and model, for people and dashboards."""

        def work(c: apsw.Connection) -> tuple[dict[str, int], int]:
            if collections.get(c, collection) is None:
                raise NotFound(f"there is no collection {collection!r}")
            return images.count_by_status(c, collection), texts.count(c, collection)

        counted, text_count = self.database.read(work)
        return {
            "collection": collection,
            "images": {**counted, "total": sum(counted.values())},
            "texts": text_count,
            "index": self._index_stats(collection),
            "open_indexes": None if self._engine is None else self._engine.indexes.memory(),
            "model": self.model(),
        }

    def drop(self, collection: str) -> None:
        """Drop a collection; a large one is swept away in the background. Raises NotFound, Validation."""
        self.dropper.drop(collection, DELETE_WAIT_SECONDS)

    def _forget(self, label: str) -> None:
        if (indexes := self._indexes) is not None:
            indexes.forget(label)
        self.sampler.forget(collections.name_from_label(label))

    def model(self) -> dict[str, object] | None:
        """What the loaded model is; None while it is loading."""
        if self._engine is None:
            return None
        encoder = self._engine.encoder
        space = encoder.space
        return {
            "name": space.model,
            "d": space.d,
            "space": space.fingerprint,
            "weights": space.weights,
            "image_size": encoder.preprocessing.size,
            "device": encoder.device,
            "runtime": encoder.runtime,
        }

    def _index_stats(self, collection: str) -> dict[str, Any] | None:
        if self._engine is None:
            return None
        told: dict[Any, dict[str, Any]] = self._engine.indexes.stats(collection)
        for target in TARGETS:
            if target in told:
                recall = self.sampler.recall((collection, target))
                told[target]["recall"] = asdict(recall) if recall else None
        return told

    def _busy(self) -> bool:
        """Whether somebody waits for the answer of a search."""
        return self._engine is not None and self._engine.searcher.running > 0

    def _open(self, indexes: IndexManager) -> None:
        """Open the indexes; as long as their engine is away, again and again."""
        while True:
            try:
                indexes.open(DEFAULT_COLLECTION)
                self._waiting = None
                return
            except Overloaded as error:
                if self._waiting is None:
                    log.warning("%s; searches wait for it, pictures are taken in", error.detail)
                self._waiting = error.detail
            if self._closing.wait(MILVUS_RETRY_SECONDS):
                raise StopRequested

    def _load(self) -> None:
        try:
            settings = self.settings
            self.pool.submit(time.monotonic)  # beside the model a child starts, so that the first picture need not wait
            processes = NO_PROCESSES if settings.ignore_memory else ModelProcesses(1, settings.workers)
            placement = EncoderOptions(
                settings.device, settings.precision, settings.runtime, settings.threads, processes
            )
            encoder = load_located(self._located, settings.models, placement, self._closing)
            self.prepared = True
            space = encoder.space
            self.database.write(lambda c: embeddings.mark_served(c, space))
            check_space(self.database, space)
            check_golden(self.database, encoder)
            check_space(self.database, space)  # a worker with another may have been quicker than the golden vectors
            batcher = Batcher(encoder, settings.max_concurrent_queries, settings.query_cache, self.metrics)
            bound = settings.index_memory or (available_memory() or ASSUMED_FREE_BYTES) // 2
            snapshots = settings.data_dir / "snapshots"
            self.sampler.resume(SearchEffortStore(snapshots, space.fingerprint))
            self._indexes = indexes = IndexManager(
                self.database, space, snapshots, self._remote, memory=bound, metrics=self.metrics
            )
            self._open(indexes)
            searcher = Searcher(
                self.database, encoder, batcher, self.pool, indexes.use, self.metrics, self.sampler.note
            )
            self._engine = LoadedModel(encoder, batcher, searcher, indexes)
            log.info("ready: model %s on %s, %s, d %d", space.model, encoder.device, encoder.runtime, space.d)
        except StartupError as error:
            self.fatal = error
        except StopRequested:
            log.info("stopped before the model %s was prepared", self.settings.model)
        except Exception as error:
            log.exception("the model could not be loaded")
            self.fatal = StartupError(f"the model {self.settings.model} could not be loaded: {error}")
