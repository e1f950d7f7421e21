"""`python -m app.worker.enrich KIND PARENT`: the second pass of one kind, over pictures that searches find already.

A server starts one process for each kind that is on. It takes a picture at a time, newest first, and stores what it
finds with the row. Pictures that wait to be embedded come first: while there are any, it works a twentieth of the time.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

from app.core.backoff import Backoff
from app.core.connection_string import find_secrets
from app.core.errors import BlobMissing, Rejected, SightlineError, StartupError, describe_error
from app.core.locks import LeaseOwner
from app.core.logging import configure
from app.core.metrics import ProcessMetrics
from app.core.process import die_with_parent
from app.core.settings import Settings
from app.core.worker_metrics import WorkerMetricsWriter
from app.decode.limits import ChildLimits
from app.decode.pool import DecodePool
from app.decode.syscall_filter import refuse_sockets
from app.service.data_dir import open_library, open_membership, picture_limits
from app.service.enrichment import lock_prefix
from app.storage.blobs import LocalFile
from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import enrichments, work_queue
from app.storage.tables.enrichments import Enrichment, EnrichmentClaim
from app.worker.enricher import BatchEnricher, Enricher, EnricherAway

log = logging.getLogger(__name__)

NICENESS = 19  # below workers (10) and re-embedding (15)
SHARE = 20  # while pictures wait to be embedded: a part in so many of the time
POLL_SECONDS = 0.1
LOOK_SECONDS = 5.0
BACKLOG = 200  # older pictures that one transaction queues
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0  # seconds to wait while the machine, or a server that is asked, is at fault


class EnrichmentWorker:
    """Repeats: claim a picture (or a batch), enrich it, store what was found."""

    def __init__(
        self,
        library: Library,
        enricher: Enricher | BatchEnricher,
        owner: str,
        max_attempts: int,
        metrics: ProcessMetrics | None = None,
        lease_seconds: float | None = None,
        fetch: Callable[[str], LocalFile] | None = None,
    ) -> None:
        """In a cluster, others may take a picture `lease_seconds` after it should have been done at the latest. `fetch`
        brings the file of a SHA-256, where this thread may not."""
        self._lease_seconds = None if lease_seconds is None else enricher.seconds + lease_seconds
        self._database = library.database
        self._fetch_file = fetch or library.blobs.fetch
        self._enricher = enricher
        self._kind = enricher.kind
        self._owner = owner
        self._max_attempts = max_attempts
        self._metrics = metrics or ProcessMetrics("worker")
        self._stopping = threading.Event()
        self._count_commits = self._database.watch_commits()
        self._backoff = Backoff(FIRST_PAUSE, LAST_PAUSE)
        self._fault: str | None = None

    def stop(self) -> None:
        """Let `run` return after the present picture. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Work until `stop`. What a process of this kind before it left is released first."""
        self._database.write(self._release_lost)
        self._database.write(lambda c: enrichments.set_fault(c, self._kind, None))
        while not self._stopping.is_set():
            commits = self._count_commits()
            try:
                if not self.step():
                    self._wait_for_commit(commits)
            except SightlineError as error:
                log.warning("waiting: %s", error.detail)
                self._tell_fault(error.detail)
                asked = error.pause if isinstance(error, EnricherAway) else 0.0
                self._stopping.wait(max(self._backoff.next(), asked))

    def step(self) -> bool:
        """Enrich the next picture, or batch; False when none waits."""
        most = self._enricher.at_once if isinstance(self._enricher, BatchEnricher) else 1

        def claim(c: Connection) -> list[EnrichmentClaim]:
            if self._lease_seconds is not None:
                self._release_lost(c)
            return enrichments.claim_some(c, self._kind, self._owner, most, self._lease_seconds)

        claimed = self._database.write(claim)
        if not claimed:
            return self._database.write(lambda c: enrichments.add_backlog(c, self._kind, BACKLOG))
        began = time.monotonic()
        self._enrich(claimed)
        self._yield_to_ingest(time.monotonic() - began)
        return True

    def _release_lost(self, c: Connection) -> None:
        """Let the pictures wait again over which a process of this kind has died."""
        expired_only, most = self._lease_seconds is not None, self._max_attempts
        failed = enrichments.release(c, self._kind, was_killed=True, max_attempts=most, expired_only=expired_only)
        self._metrics.enriched.labels(self._kind, "failed").inc(failed)

    def _enrich(self, claimed: Sequence[EnrichmentClaim]) -> None:
        """Raises the fault for which pictures wait again."""
        began = time.monotonic()
        outcomes = self._find(claimed)
        seconds = (time.monotonic() - began) / len(claimed)
        faults = [self._record(one, outcome, seconds) for one, outcome in zip(claimed, outcomes, strict=True)]
        for fault in filter(None, faults):
            raise fault
        self._tell_fault(None)
        self._backoff.reset()

    def _find(self, claimed: Sequence[EnrichmentClaim]) -> list[Enrichment | Exception]:
        """What there is in each picture, or why that is not known."""
        files = [self._fetch(one.image.sha256) for one in claimed]
        there = [(n, file) for n, file in enumerate(files) if isinstance(file, LocalFile)]
        outcomes: list[Enrichment | Exception] = [
            BlobMissing("") if isinstance(one, LocalFile) else one for one in files
        ]
        try:
            with limit_seconds(self._enricher.seconds):
                if isinstance(self._enricher, BatchEnricher):
                    given = [(claimed[n].image, file.path) for n, file in there]
                    found = self._enricher.enrich_all(given) if given else []
                else:
                    found = [self._enricher.enrich(claimed[n].image, file.path) for n, file in there]
        except Exception as error:
            found = [error] * len(there)
        for (n, file), outcome in zip(there, found, strict=True):
            file.close()
            outcomes[n] = outcome
        return outcomes

    def _fetch(self, sha256: str) -> LocalFile | SightlineError:
        """The file of a picture, or why there is none."""
        try:
            return self._fetch_file(sha256)
        except SightlineError as error:
            return error

    def _record(
        self, claimed: EnrichmentClaim, outcome: Enrichment | Exception, seconds: float
    ) -> SightlineError | None:
        """Store an outcome. Returns the fault of the machine, or of a server, for which the picture waits again."""
        write, counter, kind = self._database.write, self._metrics.enriched, self._kind
        if isinstance(outcome, Enrichment):
            stored = write(lambda c: enrichments.finish(c, claimed, outcome))
            counter.labels(kind, "done" if stored else "dropped").inc()
            self._metrics.enrichment_seconds.labels(kind).observe(seconds)
        elif isinstance(outcome, Rejected | BlobMissing):
            self._fail(claimed, outcome.detail)
        elif isinstance(outcome, SightlineError) and outcome.retryable:
            write(lambda c: enrichments.put_back(c, claimed))
            counter.labels(kind, "released").inc()
            return outcome
        elif claimed.attempts >= self._max_attempts:
            self._fail(claimed, describe_error(outcome))
        else:
            log.warning("%s: a picture will be tried again: %r", kind, outcome, extra={"picture": claimed.image.id})
            write(lambda c: enrichments.retry(c, claimed))
            counter.labels(kind, "retried").inc()
        return None

    def _tell_fault(self, fault: str | None) -> None:
        """Let the server's check say why pictures wait."""
        if fault != self._fault:
            with suppress(SightlineError):  # it may be the database that is at fault
                self._database.write(lambda c: enrichments.set_fault(c, self._kind, fault))
                self._fault = fault

    def _fail(self, claimed: EnrichmentClaim, detail: str) -> None:
        log.info("%s: a picture is given up: %s", self._kind, detail, extra={"picture": claimed.image.id})
        self._database.write(lambda c: enrichments.fail(c, claimed, detail))
        self._metrics.enriched.labels(self._kind, "failed").inc()

    def _yield_to_ingest(self, worked: float) -> None:
        """Pause while pictures wait to be embedded, until this process has had its share."""
        until = time.monotonic() + worked * (SHARE - 1)
        while time.monotonic() < until and self._database.read(work_queue.has_work):
            if self._stopping.wait(POLL_SECONDS):
                return

    def _wait_for_commit(self, commits: int) -> None:
        until = time.monotonic() + LOOK_SECONDS  # then for leases that have ended, of which no commit tells
        while self._count_commits() == commits and time.monotonic() < until and not self._stopping.wait(POLL_SECONDS):
            pass


@contextmanager
def limit_seconds(seconds: float) -> Iterator[None]:
    """Let the kernel kill this process if the block takes longer, whatever code hangs in it."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def open_enricher(kind: str, settings: Settings, pool: DecodePool) -> Enricher | BatchEnricher:
    """Raises StartupError where what the kind needs is missing."""
    if kind == "ocr":
        from app.worker.ocr import OcrEnricher  # which loads OpenVINO

        refuse_sockets()
        return OcrEnricher(pool)
    if kind == "caption":
        from app.worker.captions import open_captioner

        return open_captioner(settings, pool)
    raise StartupError(f"there is no second pass {kind!r}")


def run_enricher(
    kind: str,
    settings: Settings,
    when_open: Callable[[EnrichmentWorker], None],
    open_kind: Callable[[str, Settings, DecodePool], Enricher | BatchEnricher] = open_enricher,
) -> None:
    """Open what the kind needs, call `when_open`, and work until it is stopped. Raises StartupError."""
    metrics = ProcessMetrics("worker")
    limits = ChildLimits(settings.decode_seconds, settings.decode_memory)
    folder = settings.process_folder / "workers"
    with (
        closing(open_library(settings, metrics)) as library,
        DecodePool(1, limits, picture_limits(settings), metrics) as pool,
        closing(LeaseOwner(folder, lock_prefix(kind))) as owner,
        closing(open_membership(settings, kind)) as membership,
        ThreadPoolExecutor(1, "fetch") as fetching,
    ):
        membership.start()
        # Threads that have begun keep the way to the database and the bucket when this one refuses sockets.
        fetching.submit(os.getpid).result()
        enricher = open_kind(kind, settings, pool)
        if enricher.memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (enricher.memory, enricher.memory))
        writer = WorkerMetricsWriter(folder, owner.id, metrics)
        lease_seconds = settings.lease_seconds if settings.is_cluster else None

        def fetch(sha256: str) -> LocalFile:
            return fetching.submit(library.blobs.fetch, sha256).result()

        worker = EnrichmentWorker(library, enricher, owner.id, settings.max_attempts, metrics, lease_seconds, fetch)
        when_open(worker)
        try:
            worker.run()
        finally:
            writer.close()


def main(kind: str, parent: int) -> int:
    """Work for the server that is `parent`; the exit code."""
    die_with_parent(parent)
    os.nice(NICENESS)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    settings = Settings()
    configure(settings.log_level, json=settings.log_format != "text", secrets=find_secrets(settings.database))

    def obey_signals(worker: EnrichmentWorker) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())

    try:
        run_enricher(kind, settings, obey_signals)
    except SightlineError as error:
        log.warning("the second pass %s cannot run: %s", kind, error.detail)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
