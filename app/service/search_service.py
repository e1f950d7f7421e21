"""The model and the indexes of one server: loaded in the background, checked, and asked by every search."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from app.core.errors import ModelUnavailable, NotFound, Overloaded, SightlineError, StartupError, Validation
from app.core.locks import StopRequested
from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.core.types import DEFAULT_COLLECTION, Image, Job, JobState, Status, Target
from app.decode.pool import DecodePool
from app.encoder.batcher import Batcher
from app.encoder.catalogue import CHOICES, find_facts
from app.encoder.hub import LoadProgress
from app.encoder.loader import EncoderOptions, load_encoder, load_located, locate_model, read_trained_widths
from app.encoder.memory_check import ModelProcesses, available_memory
from app.encoder.protocol import Embeddings, Encoder
from app.search.collection_profile import CollectionProfiles
from app.search.facets import FacetCounter
from app.search.index_manager import TARGETS, IndexManager, open_milvus_client
from app.search.recall import RecallSampler, SearchEffortStore
from app.search.searcher import Searcher
from app.service.health import HealthCheck, check_model
from app.service.photograph_watch import PhotographWatch
from app.service.snapshots import remove_other_snapshots, remove_snapshots, snapshot_folder
from app.sources.clip_retrieval import wrong_space_detail
from app.storage.database import Database
from app.storage.membership import SINGLE_SERVER, Membership
from app.storage.model_check import (
    check_golden,
    check_name,
    check_space,
    find_model_name,
    find_precision,
    tell_change,
)
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings, next_space
from app.storage.tables.tasks import REEMBED

log = logging.getLogger(__name__)

APPLY_SECONDS = 5.0  # how long an answer may wait for the index to reach what the answer reports
DOWNLOAD_END_SECONDS = 2.0  # for a download to end after `stop_loading`
MILVUS_RETRY_SECONDS = 2.0  # between two tries to open indexes while Milvus does not answer
RETIRE_SECONDS = 10.0  # for which a former model stays, so that requests which have begun with it end with it
POLL_SECONDS = 0.1
ASSUMED_FREE_BYTES = 4 << 30  # where the system does not say how much memory is free


@dataclass(slots=True)
class LoadedModel:
    """What exists once the model is loaded."""

    encoder: Encoder
    batcher: Batcher
    searcher: Searcher
    indexes: IndexManager
    folder: Path  # of the snapshots of its indexes
    widths: tuple[int, ...] = ()  # to which its vectors may be cut


class SearchService:
    """Searches of one data directory. `start` returns at once; `reasons_not_ready` says what is still missing."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        pool: DecodePool,
        metrics: ProcessMetrics,
        membership: Membership = SINGLE_SERVER,
    ) -> None:
        self._membership = membership
        self.fatal: SightlineError | None = None  # why the model will never be loaded
        self.loaded: LoadedModel | None = None  # while the model is loading
        self.is_prepared = False  # whether workers can open the model's files, too
        self.facets = FacetCounter(database)
        self.sampler = RecallSampler(settings.recall_target, self._is_busy)
        self._photographs = PhotographWatch(database, settings.data_dir)
        self._settings = settings
        self._database = database
        self._pool = pool
        self._metrics = metrics
        self._milvus = open_milvus_client(settings.index, settings.index_token)
        self._milvus_fault: str | None = None  # while the indexes wait for it
        self._managers: list[IndexManager] = []  # also of a model that is not `loaded` yet, or no longer
        self.is_changing = False  # whether a job has changed the model, which searches do not have yet
        self._is_retiring = threading.Event()
        self._progress = LoadProgress(before_fetch=lambda: check_name(database, settings.model))
        self._is_locating = False  # it may be waiting for the model hub
        self._closing = self._progress.stop
        self._loading = threading.Thread(target=self._load, name="load", daemon=True)

    def start(self) -> None:
        """Begin to load the model."""
        self._loading.start()
        self.sampler.start()

    def stop_loading(self) -> None:
        """End the thread that loads the model, which may take minutes: it may be building a large index."""
        self._closing.set()
        if self.loaded is not None:  # a second model may be opening its indexes
            self._close_indexes(but=self.loaded.indexes)
        given_up_at = time.monotonic() + DOWNLOAD_END_SECONDS
        while self._loading.is_alive():
            if self._is_locating and time.monotonic() > given_up_at:
                return  # it waits for a hub that does not respond; the thread ends with the process
            self._close_indexes()
            self._loading.join(0.2)

    def close(self) -> None:
        self.stop_loading()
        self._photographs.close()
        self.sampler.close()
        if self.loaded is not None:
            close_model(self.loaded)
            self.loaded = None
        self._close_indexes()
        if self._milvus is not None:
            self._milvus.close()

    @property
    def model(self) -> LoadedModel:
        """Raises ModelUnavailable while the model is loading."""
        if self.loaded is None:
            raise ModelUnavailable(self._still_loading())
        return self.loaded

    @property
    def searcher(self) -> Searcher:
        """Raises ModelUnavailable while no search can be tried, Overloaded while Milvus has never answered."""
        if self._milvus_fault is not None:
            raise Overloaded(self._milvus_fault)
        if reasons := self._stopped():
            raise ModelUnavailable("; ".join(reasons))
        return self.model.searcher

    def is_loaded(self) -> bool:
        """Whether a model serves."""
        return self.loaded is not None

    def reasons_not_ready(self) -> list[str]:
        """Why searches cannot be answered; empty when they can."""
        return self._stopped() + (self.loaded.indexes.remote_faults() if self.loaded is not None else [])

    def faults(self) -> list[str]:
        """What fails in the background while searches are answered."""
        found = [self.sampler.fault] if self.sampler.fault else []
        return found + (self.loaded.indexes.background_faults() if self.loaded is not None else [])

    def checks(self) -> list[HealthCheck]:
        if (loaded := self.loaded) is None:
            return [HealthCheck("model", False, self._stopped()[0], vital=True)]
        faults = loaded.indexes.faults() + loaded.indexes.remote_faults()
        return check_model(loaded.encoder, loaded.batcher.is_alive(), faults)

    def require_space(self, fingerprint: str) -> None:
        """Raise Validation unless this is the space of the loaded model, ModelUnavailable while it is loading."""
        space = self.model.encoder.space
        if fingerprint != space.fingerprint:
            raise Validation(wrong_space_detail(fingerprint, space.model, space.fingerprint))

    def wait_until_applied(self, collection: str, target: Target, seq: int | None) -> bool:
        """Wait until a search sent now sees the log up to `seq`; False if that takes longer than APPLY_SECONDS."""
        if self.loaded is None or seq is None:
            return True
        try:
            return self.loaded.indexes.wait_until_applied(collection, target, seq, APPLY_SECONDS)
        except NotFound:  # the collection was deleted meanwhile: there is nothing left to find
            return True

    def watch_applied(self, collection: str, target: Target, seq: int) -> Callable[[], bool]:
        """See `IndexManager.watch_applied`. Raises NotFound, and ModelUnavailable while the model is loading."""
        return self.model.indexes.watch_applied(collection, target, seq)

    def read_position(self) -> int:
        """The number of the last log entry."""
        return self._database.read(embeddings.get_last_seq_of_all)

    def require_known(self, seq: int) -> None:
        """Raise Validation for the number of a log entry that is still to come: it is of another database."""
        if seq > self.read_position():
            raise Validation("after: no write has had this token here; is it one of another server?")

    def confirm_images(self, found: Sequence[Image]) -> list[Image]:
        """Pictures of one collection with the status that searches confirm.

        A row is `ready` as soon as a worker has stored its vector. It stays `processing` here as long as a search sent
        now would not find it.
        """
        ready = [image for image in found if image.status is Status.READY]
        newest = max((image.embedded_seq or 0 for image in ready), default=None)
        if not ready or self.wait_until_applied(ready[0].collection, "images", newest):
            return list(found)
        return [as_unconfirmed(image) for image in found]

    def confirm_image(self, image: Image) -> Image:
        return self.confirm_images([image])[0]

    def confirm_job(self, job: Job) -> Job:
        """The job; a succeeded one is still `running` as long as a search does not see what it has done."""
        if job.state is JobState.SUCCEEDED and job.kind == REEMBED and self.is_changing:
            return replace(job, state=JobState.RUNNING, finished_at=None)
        if job.state is not JobState.SUCCEEDED or self.wait_until_applied(job.collection, "images", job.last_seq):
            return job
        return replace(job, state=JobState.RUNNING, finished_at=None)

    def describe_model(self) -> dict[str, object] | None:
        """What the loaded model is; None while it is loading."""
        if self.loaded is None:
            return None
        encoder = self.loaded.encoder
        space = encoder.space
        facts = find_facts(space.model)
        return {
            "name": space.model,
            "knows": facts.knows,
            "languages": list(facts.languages),
            "max_tokens": encoder.max_tokens,
            "hint": facts.hint,
            "photographs": None if facts.hint is None else self._photographs.found,
            "d": space.d,
            "space": space.fingerprint,
            "weights": space.weights,
            "image_size": encoder.preprocessing.size,
            "device": encoder.device,
            "runtime": encoder.runtime,
        }

    def describe_spaces(self) -> list[dict[str, Any]]:
        """The space that serves, and the one that fills beside it."""
        model = self.describe_model()
        serving = [] if model is None else [{"model": model["name"], "space": model["space"], "state": "serving"}]
        return serving + self._database.read(describe_filling)

    def describe_indexes(self, collection: str) -> dict[str, Any] | None:
        """The indexes of a collection by target; None while the model is loading."""
        if self.loaded is None:
            return None
        described: dict[Any, dict[str, Any]] = self.loaded.indexes.stats(collection)
        for target in TARGETS:
            if target in described:
                recall = self.sampler.recall((collection, target))
                described[target]["recall"] = asdict(recall) if recall else None
        return described

    def measure_memory(self) -> dict[str, int] | None:
        """How many indexes are open, and their bytes; None while the model is loading."""
        return None if self.loaded is None else self.loaded.indexes.memory()

    def close_collection(self, label: str) -> None:
        """Close the indexes of a deleted collection and delete their snapshots. Waits for searches in them."""
        for indexes in list(self._managers):
            indexes.drop(label)
        self.sampler.forget_collection(collections.name_from_label(label))
        if self.loaded is not None:
            self.loaded.searcher.profiles.forget(collections.name_from_label(label))

    def load_beside(self, model: str, precision: str | None) -> LoadedModel:
        """Load another model beside the one that serves, and open its indexes for what is searched now.

        The caller gives it to `change_model` or `discard_model`. Raises StartupError, and Overloaded when the server
        stops meanwhile.
        """
        serving = self.model
        settings = self._settings
        options = EncoderOptions.of(settings, ModelProcesses(servers=1))
        encoder = load_encoder(
            model, settings.models, replace(options, precision=precision or options.precision), self._progress
        )
        folder = snapshot_folder(settings.cache / "snapshots", encoder.space.fingerprint)
        loaded = self._make_model(encoder, folder)
        try:
            for name in {DEFAULT_COLLECTION, *serving.indexes.list_open_collections()}:
                with suppress(NotFound):  # deleted meanwhile
                    loaded.indexes.open(name)
        except BaseException:
            self.discard_model(loaded)
            raise
        return loaded

    def change_model(self, new: LoadedModel) -> None:
        """Answer every search that begins from now on with `new`, and forget the other model when its searches end."""
        old, self.loaded = self.model, new
        self.is_changing = False
        self.sampler.use_store(SearchEffortStore(new.folder, new.encoder.space.fingerprint))
        log.info("searches are answered by the model %s now", new.encoder.space.model)
        self._is_retiring.set()
        until = time.monotonic() + RETIRE_SECONDS
        while not self._closing.wait(POLL_SECONDS) and (time.monotonic() < until or old.searcher.running):
            pass
        self.discard_model(old)
        self._is_retiring.clear()

    def wait_for_other_model(self, than: LoadedModel) -> None:
        """Wait until another model serves. Raises ModelUnavailable if none takes its place."""
        until = time.monotonic() + APPLY_SECONDS
        while self.model is than:
            if time.monotonic() > until:
                raise ModelUnavailable("the data directory belongs to another model than the one that runs here")
            time.sleep(POLL_SECONDS)

    def discard_model(self, model: LoadedModel) -> None:
        """Close a model that serves nobody, and delete what is kept of its indexes."""
        close_model(model)
        model.indexes.close()
        self._managers.remove(model.indexes)
        remove_snapshots(model.folder)
        for collection in self._database.read(collections.list_all):
            model.indexes.drop_remote(collection.label)

    @property
    def is_stopping(self) -> bool:
        """Whether the server is being closed."""
        return self._closing.is_set()

    @property
    def is_retiring(self) -> bool:
        """Whether searches in the space of a former model may still be under way."""
        return self._is_retiring.is_set()

    def _close_indexes(self, but: IndexManager | None = None) -> None:
        for indexes in list(self._managers):
            if indexes is not but:
                indexes.close()

    def _is_busy(self) -> bool:
        """Whether a search is under way."""
        return self.loaded is not None and self.loaded.searcher.running > 0

    def _stopped(self) -> list[str]:
        """Why no search can even be tried."""
        if self.loaded is None:
            loading = self._milvus_fault or self._still_loading()
            return [self.fatal.detail if self.fatal else loading]
        reasons = [] if self._database.alive() else ["the database takes no changes any more"]
        if not self.loaded.batcher.is_alive():
            reasons.append("the encoder has stopped")
        return reasons + self.loaded.indexes.faults()

    def _still_loading(self) -> str:
        words = self._progress.words
        return f"the model {self._settings.model} is still loading" + (f": {words}" if words else "")

    def _load(self) -> None:
        model = self._settings.model
        try:
            if change := tell_change(self._database, model):
                log.warning("%s", change)
            # Start a child while the model loads, so that the first picture finds one.
            self._pool.submit(time.monotonic)
            encoder = self._load_encoder()
            self.is_prepared = True
            self._check_model(encoder)
            self.loaded = self._open_indexes(encoder)
            space = encoder.space
            self._photographs.start(space.model)
            log.info("ready: model %s on %s, %s, d %d", space.model, encoder.device, encoder.runtime, space.d)
        except StartupError as error:
            self.fatal = error
        except StopRequested:
            log.info("stopped before the model %s was loaded", model)
        except Exception as error:
            if self._closing.is_set():  # the database may be closed already
                return
            log.exception("the model could not be loaded")
            self.fatal = StartupError(f"the model {model} could not be loaded: {error}")

    def _load_encoder(self) -> Encoder:
        settings = self._settings
        options = EncoderOptions.of(settings, ModelProcesses(1, settings.workers))
        self._is_locating = True
        name = find_model_name(self._database, settings.model)
        options = replace(options, precision=find_precision(self._database, settings, name))
        located = locate_model(name, settings.models, self._progress)
        self._is_locating, self._progress.words = False, ""
        return load_located(located, settings.models, options, self._progress)

    def _check_model(self, encoder: Encoder) -> None:
        """Raise StartupError unless the vectors of the data directory are this model's."""
        space, name = encoder.space, self._settings.model.lower()
        chosen_as = name if name in CHOICES else None
        self._database.write(lambda c: embeddings.mark_served(c, space, chosen_as))
        check_space(self._database, space)
        check_golden(self._database, encoder)
        check_space(self._database, space)  # a worker with another model may have been quicker than check_golden

    def _open_indexes(self, encoder: Encoder) -> LoadedModel:
        root, space = self._settings.cache / "snapshots", encoder.space.fingerprint
        filling = self._database.read(next_space.get)
        folder = remove_other_snapshots(root, space, filling.space if filling else None)
        self.sampler.use_store(SearchEffortStore(folder, space))
        model = self._make_model(encoder, folder)
        self._open_default_collection(model.indexes)
        return model

    def _make_model(self, encoder: Encoder, folder: Path) -> LoadedModel:
        """What answers queries with `encoder`; its indexes are not open yet, and have their snapshots in `folder`."""
        settings, database, metrics = self._settings, self._database, self._metrics
        batcher = Batcher(encoder, settings.query_cache, metrics)
        memory = settings.index_memory or (available_memory() or ASSUMED_FREE_BYTES) // 2
        indexes = IndexManager(
            database, encoder.space, folder, self._milvus, memory=memory, metrics=metrics, membership=self._membership
        )
        self._managers.append(indexes)
        record, facets = self.sampler.record_query, self.facets
        searcher = Searcher(database, encoder, batcher, self._pool, indexes.use, metrics, record, facets)
        searcher.profiles.start()
        indexes.calibrate_with(partial(self._list_asked, searcher.profiles))
        widths = read_trained_widths(encoder.space.model, settings.models)
        return LoadedModel(encoder, batcher, searcher, indexes, folder, widths)

    def _list_asked(self, profiles: CollectionProfiles, collection: str, target: Target) -> list[Embeddings]:
        """Vectors of texts that a collection may be asked for, and of its recent searches, for calibration."""
        recent = self.sampler.list_recent((collection, target))
        if target != "images":  # texts are searched by pictures, too: those that are tried without any do for both
            return [recent]
        try:
            return [profiles.read_bank(collection), recent]
        except SightlineError as error:
            log.warning("the index of %s is calibrated without texts: %s", collection, error)
            return [recent]

    def _open_default_collection(self, indexes: IndexManager) -> None:
        """Open its indexes; while Milvus does not answer, again and again."""
        while True:
            try:
                indexes.open(DEFAULT_COLLECTION)
                self._milvus_fault = None
                return
            except Overloaded as error:
                if self._milvus_fault is None:
                    log.warning("%s; searches wait for it, uploads are accepted", error.detail)
                self._milvus_fault = error.detail
            if self._closing.wait(MILVUS_RETRY_SECONDS):
                raise StopRequested


def describe_filling(c: Connection) -> list[dict[str, Any]]:
    row = next_space.get(c)
    space = embeddings.get_space(c, row.space) if row else None
    if row is None or space is None:
        return []
    counts = {"job": row.job_id, "done": row.done, "failed": row.failed, "total": row.total}
    return [{"model": space.model, "space": row.space, "state": "filling", **counts}]


def close_model(model: LoadedModel) -> None:
    """End its threads, except those of its indexes."""
    model.batcher.close()  # ends a measurement that waits for it
    model.searcher.profiles.close()


def as_unconfirmed(image: Image) -> Image:
    """The picture, `processing` where its row is `ready`: whether a search finds it is not known."""
    return replace(image, status=Status.PROCESSING) if image.status is Status.READY else image
