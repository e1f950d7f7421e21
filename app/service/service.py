"""The lifecycle of one server process: its parts are opened and started in order, and closed in reverse.

Uploads are accepted as soon as it is open. Searches are answered when the model is loaded and the indexes have applied
the log.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass

from app.core.errors import SightlineError
from app.core.locks import DataDirLock, find_dead_owners
from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.core.types import Job
from app.core.worker_metrics import MergedMetricsCollector
from app.decode.pool import DecodePool
from app.service.arrivals import ArrivalLoop
from app.service.auth import ApiKeyService
from app.service.camera_data import KIND as CAMERA_DATA
from app.service.camera_data import CameraDataReader
from app.service.data_dir import lock_data_dir, open_library, open_membership
from app.service.duplicates import KIND as DUPLICATES
from app.service.duplicates import DuplicateService
from app.service.embeddings import EmbeddingService
from app.service.enrichment import KIND as ENRICH
from app.service.enrichment import EnrichmentService, check_enrichment_settings
from app.service.evaluation import EVALUATE, EvaluationTask
from app.service.explain import ExplainService
from app.service.factory import check_source_settings, open_fetcher, open_pool, open_poster, open_source_policy
from app.service.heads import TEACH, HeadService
from app.service.health import HealthCheck, check_ingest
from app.service.image_waiter import ImageWaiter
from app.service.labels import KIND as AUTO_TAGS
from app.service.labels import LabelService
from app.service.maintenance import CollectionDeleter, MaintenanceLoop
from app.service.model_follower import ModelFollower
from app.service.questions import QuestionService
from app.service.reembed import ModelChanger
from app.service.saved_searches import SavedSearchService
from app.service.search_service import SearchService
from app.service.tasks import TaskRunner
from app.service.watching import WatchManager
from app.service.webhooks import SECONDS, WebhookLoop
from app.sources.base import SourcePolicy
from app.storage.idempotency import IdempotencyStore
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.membership import Duty, Membership
from app.storage.tables import work_queue
from app.storage.tables.tasks import REEMBED

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Service:
    """The parts of a server (see `open_service`). `start` returns before the model is loaded."""

    settings: Settings
    metrics: ProcessMetrics
    lock: DataDirLock
    membership: Membership
    model_follower: ModelFollower
    library: Library
    pool: DecodePool
    jobs: JobService
    tasks: TaskRunner
    heads: HeadService
    changer: ModelChanger
    long_tasks: TaskRunner
    search: SearchService
    duplicates: DuplicateService
    camera_data: CameraDataReader
    embeddings: EmbeddingService
    enrichment: EnrichmentService
    questions: QuestionService
    explain: ExplainService
    labels: LabelService
    saved_searches: SavedSearchService
    arrivals: ArrivalLoop
    webhooks: WebhookLoop | None
    source_policy: SourcePolicy
    api_keys: ApiKeyService
    idempotency: IdempotencyStore
    image_waiter: ImageWaiter
    deleter: CollectionDeleter
    maintenance: MaintenanceLoop
    watching: WatchManager
    worker_metrics: MergedMetricsCollector

    def start(self) -> None:
        """Release what killed workers held, start the threads, and begin to load the model."""
        self.membership.start()
        try:
            self._recover_leases()
        except SightlineError as error:  # a full disk, say: searches are possible all the same
            log.warning("the leases of killed workers are not released: %s", error.detail)
        self.deleter.start()
        self.image_waiter.start()
        self.search.start()
        if self.membership.is_cluster:
            self.model_follower.start()
        self.maintenance.start()
        self.watching.start()
        self.tasks.start()
        self.long_tasks.start()
        self.arrivals.start()
        if self.webhooks is not None:
            self.webhooks.start()

    def close(self, *, refused: bool = False) -> None:
        """Close everything. What the server has acknowledged is on the disk long before.

        A start that was `refused` leaves no data directory behind that it has made and that holds nothing.
        """
        self.search.stop_loading()
        self.model_follower.close()
        if self.webhooks is not None:
            self.webhooks.close()
        self.arrivals.close()
        self.watching.close()
        self.tasks.close()
        self.long_tasks.close()
        self.maintenance.close()
        self.image_waiter.close()
        self.deleter.close()
        self.questions.close()
        self.search.close()
        self.pool.close()
        is_unused = (
            refused
            and self.lock.made
            and not self.settings.is_cluster
            and self.library.is_empty()
            and not (self.settings.data_dir / "models").exists()
        )
        self.membership.close()  # after the work that it may do, so that no other server begins it before
        self.library.close()
        if is_unused:
            self.lock.remove_new()
        self.lock.close()

    def checks(self) -> list[HealthCheck]:
        """All health checks, those that searches need first. Reads the database and the disk."""
        library = self.library
        ingest = check_ingest(library.database, library.blobs, self.settings, self.faults(), self.membership)
        return [*self.search.checks(), *ingest, *self.enrichment.check()]

    def faults(self) -> list[str]:
        """What fails in the background while searches are answered; each is tried again by itself."""
        found = [*self.maintenance.faults(), self.deleter.fault, self.image_waiter.fault, self.tasks.fault]
        found += [self.long_tasks.fault, self.arrivals.fault, self.webhooks.fault if self.webhooks else None]
        found += [self.watching.fault(), self.membership.fault, self.model_follower.fault]
        return [fault for fault in found if fault] + self.search.faults()

    def read_job(self, id: str) -> Job:
        """A job as searches see it. Raises NotFound."""
        return self.search.confirm_job(self.jobs.get(id))

    def stats(self, collection: str) -> dict[str, object]:
        """Counts, indexes and model, for people and dashboards."""
        by_status, text_count = self.library.count(collection)
        return {
            "collection": collection,
            "images": {**by_status, "total": sum(by_status.values())},
            "texts": text_count,
            "enrichments": self.enrichment.count(collection),
            "index": self.search.describe_indexes(collection),
            "open_indexes": self.search.measure_memory(),
            "model": self.search.describe_model(),
            "spaces": self.search.describe_spaces(),
            "cluster": [asdict(one) for one in self.membership.list_members()] if self.membership.is_cluster else None,
        }

    def _recover_leases(self) -> None:
        database = self.library.database
        if self.membership.is_cluster:  # other workers may be at work: the leases of dead ones end by themselves
            self.enrichment.start()
            return
        dead = find_dead_owners(self.settings.process_folder / "workers", database.read(work_queue.list_owners))
        database.write(lambda c: work_queue.recover_leases(c, dead, self.settings.max_attempts))
        self.enrichment.start()


def open_service(settings: Settings) -> Service:
    """Everything that one server process keeps open. Raises StartupError, and leaves nothing open then."""
    metrics, source_policy = ProcessMetrics(), open_source_policy(settings)
    check_parts(settings)
    with ExitStack() as opened:
        lock = opened.enter_context(closing(lock_data_dir(settings)))
        library = opened.enter_context(closing(open_library(settings, metrics)))
        membership = open_membership(settings, "server", find_duties(settings, source_policy))
        pool = opened.enter_context(closing(open_pool(settings, metrics=metrics)))
        jobs = JobService(library)
        search = SearchService(settings, library.database, pool, metrics, membership)
        deleter = open_deleter(settings, library, search, membership)
        saved, webhooks = open_saved_searches(settings, library, membership)
        labels, arrivals = open_arrivals(library, search, saved, membership)
        service = Service(
            settings=settings,
            metrics=metrics,
            lock=lock,
            membership=membership,
            model_follower=ModelFollower(settings, library.database, search),
            library=library,
            pool=pool,
            jobs=jobs,
            tasks=TaskRunner(library.database, search.is_loaded, membership=membership),
            heads=HeadService(library.database, pool, search, source_policy),
            changer=ModelChanger(settings, library.database, search, deleter.wake),
            long_tasks=TaskRunner(library.database, search.is_loaded, long=True, membership=membership),
            search=search,
            duplicates=DuplicateService(library, jobs, pool, search),
            camera_data=CameraDataReader(library, jobs, pool),
            embeddings=EmbeddingService(search, pool, open_fetcher(settings), settings.served_names),
            enrichment=EnrichmentService(library, jobs, settings, membership),
            questions=QuestionService(library, pool, search, settings),
            explain=ExplainService(library, pool, search),
            labels=labels,
            saved_searches=saved,
            arrivals=arrivals,
            webhooks=webhooks,
            source_policy=source_policy,
            api_keys=ApiKeyService(library.database),
            idempotency=IdempotencyStore(library.database),
            image_waiter=ImageWaiter(library.database),
            deleter=deleter,
            maintenance=MaintenanceLoop(library, jobs, settings.job_days, membership),
            watching=WatchManager(library, source_policy, settings.rescan_seconds, membership),
            worker_metrics=MergedMetricsCollector(settings.process_folder / "workers", metrics),
        )
        register_tasks(service)
        opened.pop_all()
    return service


def check_parts(settings: Settings) -> None:
    """Raise StartupError for settings that only other processes, or later work, would find wrong."""
    check_source_settings(settings)
    check_enrichment_settings(settings)


def find_duties(settings: Settings, policy: SourcePolicy) -> list[Duty]:
    """The work of a cluster that a server with these settings can do."""
    impossible = {Duty.WEBHOOKS: not settings.webhooks, Duty.WATCHES: not policy.folders.paths}
    return [duty for duty in Duty if not impossible.get(duty)]


def open_deleter(
    settings: Settings, library: Library, search: SearchService, membership: Membership
) -> CollectionDeleter:
    snapshots = settings.cache / "snapshots"
    return CollectionDeleter(library, snapshots, search.close_collection, lambda: search.is_retiring, membership)


def register_tasks(service: Service) -> None:
    """Name the handler of each kind of task, but those that `open_service` had to name before."""
    evaluation = EvaluationTask(service.library.database, service.pool, service.search, service.source_policy)
    service.tasks.register(AUTO_TAGS, service.labels.run)
    service.tasks.register(CAMERA_DATA, service.camera_data.run)
    service.tasks.register(DUPLICATES, service.duplicates.scan)
    service.tasks.register(ENRICH, service.enrichment.queue)
    service.tasks.register(EVALUATE, evaluation.run)
    service.long_tasks.register(REEMBED, service.changer.run)
    service.tasks.register(TEACH, service.heads.teach)


def open_saved_searches(
    settings: Settings, library: Library, membership: Membership
) -> tuple[SavedSearchService, WebhookLoop | None]:
    """The saved searches, and what sends their webhooks; None where the operator does not allow these."""
    poster = open_poster(settings, SECONDS)
    webhooks = None if poster is None else WebhookLoop(library.database, poster, membership=membership)
    return SavedSearchService(library.database, poster, webhooks.wake if webhooks else None), webhooks


def open_arrivals(
    library: Library, search: SearchService, saved: SavedSearchService, membership: Membership
) -> tuple[LabelService, ArrivalLoop]:
    """The labels, and what is done with new pictures."""
    labels = LabelService(library.database, search, JobService(library))
    return labels, ArrivalLoop(library.database, search, labels, saved.wake_webhooks, membership)
