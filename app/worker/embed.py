"""The embedding worker: claims pictures, decodes ahead, encodes batches, commits vectors.

A worker may be killed at any moment. Other workers see that its lock file is free (in a cluster: that its leases have
ended) and claim its pictures again, and one commit holds vectors and states together; so work is repeated, never lost
or doubled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.errors import BlobMissing, Rejected, SightlineError, StorageFull, StorageUnavailable, map_os_errors
from app.core.locks import LeaseOwner, find_dead_owners, remove_dead_locks
from app.core.metrics import ProcessMetrics
from app.core.tracing import span
from app.core.types import ItemError, Lease
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from app.encoder.protocol import Encoder, check_vectors
from app.storage.database import Work
from app.storage.gc import GRACE_SECONDS
from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import embeddings, next_space, precomputed_vectors, work_queue
from app.storage.tables.work_queue import FinishedImage
from app.worker.importer import Importer

log = logging.getLogger(__name__)

FETCHES = 32  # pictures that are brought from a bucket at once
BATCHES_AHEAD = 3  # batches that are claimed and being decoded while one is encoded
POLL_SECONDS = 0.02
RECLAIM_SECONDS = 1.0  # between two looks for dead workers
FIRST_PAUSE, LAST_PAUSE = 1.0, 8.0  # seconds to wait while the disk or the database is at fault
RETRY_WAIT_SECONDS = 5.0  # how long pictures that were tried before wait for new ones
RETRIES_IN_A_ROW = 16  # pictures that were tried before, one after the other, while new ones wait
UNREADABLE = "this picture could not be read, again and again, while others could"
UNENCODABLE = "the model could not encode this picture"
# 16 grey pixels as a PNG. If a decoder reads these but not a picture, the picture is at fault.
PROBE_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000000e494441"
    "5478da6368000206540200501408016d4de0490000000049454e44ae426082"
)


@dataclass(slots=True)
class ClaimedImage:
    """A leased picture, its decoding, which has begun, and the precomputed vector that came with it, if any."""

    lease: Lease
    decoding: Future[DecodedPicture]
    vector: bytes | None = None


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A picture with its vector (float32, little endian), ready for the commit."""

    lease: Lease
    decoded: DecodedPicture
    vector: bytes

    def finish(self) -> FinishedImage:
        picture = self.decoded
        said = (picture.width, picture.height, picture.animated, picture.perceptual_hash)
        return FinishedImage(self.lease, self.vector, *said)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The settings of these names."""

    batch_size: int
    lease_seconds: float
    max_attempts: int
    thumbnail_size: int
    is_cluster: bool = False  # leases of other workers, who may be on other machines, end by the clock alone


class DecoderFault(Exception):
    """A fault of the machine that decoders meet at this picture and at no other."""


class ModelChanged(Exception):
    """The data directory belongs to another model now."""


Failures = list[tuple[Lease, Exception]]
Claimed = tuple[list[Lease], dict[int, bytes]]  # and the precomputed vectors by key


class EmbeddingWorker:
    """One worker of a data directory; `run` returns after `stop`."""

    def __init__(
        self,
        library: Library,
        encoder: Encoder,
        pool: DecodePool,
        importer: Importer,
        owners: Path,
        options: WorkerOptions,
        metrics: ProcessMetrics | None = None,
        quick_importer: Importer | None = None,
    ) -> None:
        """`owners` is the folder of the workers' lock files. A second importer, without patience, has its own thread:
        it goes past what the first one takes long to read."""
        self._library = library
        self._database = library.database
        self._blobs = library.blobs
        self._encoder = encoder
        self._pool = pool
        self._owners = owners
        self._options = options
        self._metrics = metrics or ProcessMetrics("worker")
        self._owner = LeaseOwner(owners)
        self.owner = self._owner.id  # of its leases: the name of its lock file
        self._lanes = {self.owner: importer} | ({f"{self.owner}.quick": quick_importer} if quick_importer else {})
        self._claimed: deque[ClaimedImage] = deque()
        self._threads = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch") if library.blobs.is_remote else None
        self._stopping = threading.Event()
        self._count_commits = self._database.watch_commits()
        self._claimed_at = -1  # the number of the last commit before the last claim
        self._must_release = False  # whether this worker may hold leases that are not in `_claimed`
        self._backoff = Backoff(FIRST_PAUSE, LAST_PAUSE)
        self._reclaimed_at = float("-inf")
        self._retry_at = time.monotonic() + RETRY_WAIT_SECONDS
        self._retries = 0

    def run(self, before_exit: Callable[[], None] = lambda: None) -> None:
        """Work until `stop`, then release what is claimed but not begun. Calls `before_exit` while the lock is held.

        Raises ModelChanged, after the same.
        """
        remove_dead_locks(self._owners)
        space = self._encoder.space
        self._database.write(lambda c: embeddings.save_space(c, space))
        loops = (
            BackgroundLoop("leases", self._renew_leases, "the leases are not renewed", Backoff(1.0, 8.0)),
            *(self._make_lane(owner, importer) for owner, importer in self._lanes.items()),
        )
        if self._blobs.is_remote:
            loops += (BackgroundLoop("cache", self._sweep_cache, "the cache is not swept", Backoff(60.0, 600.0)),)
        for loop in loops:
            loop.start()
        try:
            while not self._stopping.is_set():
                if not all(loop.is_alive() for loop in loops):
                    raise RuntimeError("a thread of the worker has died")
                self._step()
        finally:
            self._stopping.set()
            try:
                self._release_all()
            except SightlineError as error:  # others claim the pictures again once our lock file is free
                log.warning("the leases are not released: %s", error.detail)
            for loop in loops:
                loop.close()
            if self._threads is not None:
                self._threads.shutdown(cancel_futures=True)
            before_exit()
            self._owner.close()

    def _sweep_cache(self) -> float:
        """Remove what the cache of this machine need not keep: no server may run here."""
        self._library.collect_garbage(GRACE_SECONDS, self._stopping.is_set)
        return GRACE_SECONDS

    def _make_lane(self, owner: str, importer: Importer) -> BackgroundLoop:
        import_next = partial(importer.import_next, owner, self._stopping.is_set)
        return BackgroundLoop("importer", import_next, "uploads are not imported", Backoff(1.0, 8.0))

    def warm_up(self) -> None:
        """Start the decoders, and encode: the first pictures of a process take long, else those of a user."""
        self._pool.submit(time.monotonic)
        side = self._encoder.preprocessing.size
        self._encoder.encode_images(np.zeros((2, side, side, 3), dtype=np.uint8))

    def stop(self) -> None:
        """Let `run` return after the present batch. Safe in a signal handler."""
        self._stopping.set()

    def _step(self) -> None:
        """Claim and process one batch, or wait for work. A fault of the disk or the database is waited out."""
        try:
            if self._must_release:
                self._release_all()
            self._reclaim_leases()
            self._claim()
            if self._claimed:
                size = min(self._options.batch_size, len(self._claimed))
                with span("batch", {"pictures": size}):
                    self._process_batch([self._claimed.popleft() for _ in range(size)])
            else:
                self._wait_for_commit()
                self._backoff.reset()
        except SightlineError as error:
            log.warning("waiting: %s", error.detail)
            self._must_release = True
            self._stopping.wait(self._backoff.next())

    def _reclaim_leases(self) -> None:
        """End the leases of dead workers, now and then."""
        if time.monotonic() - self._reclaimed_at < RECLAIM_SECONDS:
            return
        self._reclaimed_at = time.monotonic()
        dead: set[str] = set()
        if self._options.is_cluster:
            is_due = self._database.read(work_queue.has_expired)
        else:
            others = self._database.read(work_queue.list_owners) - {self.owner}
            is_due, dead = bool(others), find_dead_owners(self._owners, others)
        if is_due:
            limit = self._options.max_attempts
            lost, failed = self._database.write(lambda c: work_queue.expire_leases(c, dead, limit))
            if lost:
                self._metrics.reclaimed.inc(lost)
                self._metrics.quarantined.inc(failed)
                log.info("took back %d pictures of dead workers", lost)

    def _claim(self) -> None:
        if (work := self._plan_claim()) is not None:
            self._accept(self._database.write(work))

    def _plan_claim(self) -> Work[Claimed] | None:
        """The change that keeps BATCHES_AHEAD batches claimed and decoding; None if there are enough."""
        room = BATCHES_AHEAD * self._options.batch_size - len(self._claimed)
        if room < self._options.batch_size or self._stopping.is_set():
            return None
        retries_first = self._is_retry_due()
        if retries_first and self._claimed:  # a retry is processed alone: finish what is claimed before
            return None
        self._claimed_at = self._count_commits()
        seconds, alone = self._options.lease_seconds, not self._claimed
        space = self._encoder.space.fingerprint

        def work(c: Connection) -> Claimed:
            if embeddings.get_other_served(c, space) and embeddings.get_golden(c, space) is None:
                raise ModelChanged
            if next_space.are_workers_held(c):
                return [], {}
            leases = work_queue.claim_images(c, self.owner, seconds, room, alone=alone, retries_first=retries_first)
            return leases, precomputed_vectors.find_vectors(c, space, (lease.image.key for lease in leases))

        return work

    def _accept(self, claimed: Claimed) -> None:
        """Begin to decode what was claimed. Pictures of no job go before those of jobs."""
        leases, vectors = claimed
        self._metrics.attempts.inc(len(leases))
        begun = [ClaimedImage(lease, self._start_decoding(lease), vectors.get(lease.image.key)) for lease in leases]
        self._claimed.extend(one for one in begun if one.lease.image.job_id is not None)
        self._claimed.extendleft(one for one in reversed(begun) if one.lease.image.job_id is None)

    def _is_retry_due(self) -> bool:
        """Whether pictures that were tried before have waited long enough, even if new ones wait."""
        if time.monotonic() < self._retry_at:
            return False
        if self._retries < RETRIES_IN_A_ROW and self._database.read(work_queue.has_retries):
            self._retries += not self._claimed
            return True
        self._retries, self._retry_at = 0, time.monotonic() + RETRY_WAIT_SECONDS
        return False

    def _start_decoding(self, lease: Lease) -> Future[DecodedPicture]:
        if self._threads is not None:
            return self._threads.submit(self._fetch_and_decode, lease)
        thumbnail = self._blobs.thumbnail_path(lease.image.sha256, lease.image.format)
        try:
            with map_os_errors():
                thumbnail.parent.mkdir(parents=True, exist_ok=True)
            return self._submit_decode(self._blobs.fetch(lease.image.sha256).path, thumbnail)
        except (SightlineError, OSError) as error:
            failed: Future[DecodedPicture] = Future()
            failed.set_exception(error)
            return failed

    def _fetch_and_decode(self, lease: Lease) -> DecodedPicture:
        """Fetch the picture, decode it, and bring its thumbnail to where the others find it."""
        thumbnail = self._blobs.thumbnail_path(lease.image.sha256, lease.image.format)
        with map_os_errors():
            thumbnail.parent.mkdir(parents=True, exist_ok=True)
        with self._blobs.fetch(lease.image.sha256) as file:
            picture = self._submit_decode(file.path, thumbnail).result()
        self._blobs.keep_thumbnail(thumbnail)
        return picture

    def _submit_decode(self, path: Path, thumbnail: Path) -> Future[DecodedPicture]:
        limits, size = self._pool.picture_limits, self._options.thumbnail_size
        return self._pool.submit(decode_picture, path, self._encoder.preprocessing, limits, OutputFile(thumbnail), size)

    def _process_batch(self, batch: list[ClaimedImage]) -> None:
        decoded: list[tuple[Lease, DecodedPicture]] = []
        failed: Failures = []
        done: list[EncodedImage] = []
        with span("decode"), self._metrics.steps.labels("decode").time():
            for claimed in batch:
                try:
                    picture = claimed.decoding.result()
                except Exception as error:
                    failed.append((claimed.lease, error))
                    continue
                if claimed.vector is None:
                    decoded.append((claimed.lease, picture))
                else:
                    done.append(EncodedImage(claimed.lease, picture, claimed.vector))
        failed = self._find_decoder_faults(failed)
        with span("encode"), self._metrics.steps.labels("encode").time():
            encoded = self._encode(decoded, failed)
        if decoded and not encoded:
            self._check_encoder()
        done += encoded
        claim = None if failed else self._plan_claim()

        def commit(c: Connection) -> Claimed:
            """The end of this batch and the claim of the next share a transaction, so an fsync."""
            self._record(c, done, failed)
            return claim(c) if claim is not None else ([], {})

        with span("commit"), self._metrics.steps.labels("commit").time():
            claimed_next = self._database.write(commit)
        self._count_outcomes(done, failed)
        self._accept(claimed_next)
        # The thumbnails of pictures that a request deleted meanwhile.
        self._library.delete_unused_files(claimed.lease.image.sha256 for claimed in batch)
        if any(is_retryable(error) for _, error in failed):
            self._stopping.wait(self._backoff.next())
        else:
            self._backoff.reset()

    def _find_decoder_faults(self, failed: Failures) -> Failures:
        """The failures, each fault of the machine replaced by DecoderFault when decoders do read another picture.

        A fault of the machine counts no attempt: without this, a picture that ends every decoder would be tried for
        ever. A full disk is not replaced, as a small picture may still fit, nor is a bucket that does not answer.
        """

        def is_doubtful(error: Exception) -> bool:
            return is_retryable(error) and not isinstance(error, StorageFull | StorageUnavailable)

        if not any(is_doubtful(error) for _, error in failed) or self._stopping.is_set() or not self._can_decode():
            return failed
        return [(lease, DecoderFault(str(error)) if is_doubtful(error) else error) for lease, error in failed]

    def _can_decode(self) -> bool:
        """Whether a decoder reads PROBE_PNG and writes its thumbnail."""
        folder = self._library.create_upload_dir()
        thumbnail = self._blobs.thumbnails / f".{self.owner}.webp"
        try:
            (folder / "probe").write_bytes(PROBE_PNG)
            self._submit_decode(folder / "probe", thumbnail).result()
        except (SightlineError, OSError):
            return False
        finally:
            self._library.delete_upload_dir(folder)
            self._library.delete_upload_dir(thumbnail)
        return True

    def _encode(self, decoded: list[tuple[Lease, DecodedPicture]], failed: Failures) -> list[EncodedImage]:
        """Encode in one forward pass; if that fails, one by one, so that a bad picture fails alone (into `failed`)."""
        if not decoded:
            return []
        try:
            vectors = self._encoder.encode_images(np.stack([picture.pixels for _, picture in decoded]))
            check_vectors(vectors)
        except Exception as error:
            if len(decoded) == 1:
                failed.append((decoded[0][0], error))
                return []
            log.warning("a batch of %d failed (%s); encoding its pictures one by one", len(decoded), error)
            return [one for pair in decoded for one in self._encode([pair], failed)]
        return [
            EncodedImage(lease, picture, vector.astype("<f4").tobytes())
            for (lease, picture), vector in zip(decoded, vectors, strict=True)
        ]

    def _check_encoder(self) -> None:
        """Raise RuntimeError when the encoder cannot encode plain grey either, after a fault of its GPU for example.

        Only a new worker helps then, and no picture's attempt may count.
        """
        size = self._encoder.preprocessing.size
        try:
            check_vectors(self._encoder.encode_images(np.full((1, size, size, 3), 128, dtype=np.uint8)))
        except Exception as error:
            raise RuntimeError("the encoder can encode nothing any more") from error

    def _outcome_of(self, lease: Lease, error: Exception) -> str:
        """What becomes of a picture that failed: `released`, `retried` or `failed` (the metric's labels)."""
        if is_retryable(error):
            return "released"
        if isinstance(error, Rejected | BlobMissing) or lease.attempts >= self._options.max_attempts:
            return "failed"
        return "retried"

    def _record(self, c: Connection, encoded: list[EncodedImage], failed: Failures) -> None:
        described = [one for one in encoded if one.decoded.camera_data is not None]
        held = work_queue.get_held_collections(c, (one.lease for one in described)) if described else {}
        for one in described:
            if (data := one.decoded.camera_data) is not None and (one.lease.image.key, one.lease.attempts) in held:
                self._library.record_camera_data(c, one.lease.image.key, data)
        work_queue.finish_images(c, self._encoder.space.fingerprint, [one.finish() for one in encoded])
        for lease, error in failed:
            outcome = self._outcome_of(lease, error)
            if outcome == "released":
                work_queue.release_image(c, lease)
            elif outcome == "retried":
                work_queue.requeue_image(c, lease)
            elif isinstance(error, Rejected | BlobMissing):
                work_queue.fail_image(c, lease, ItemError(error.code, error.detail))
            else:
                reason = UNREADABLE if isinstance(error, DecoderFault) else UNENCODABLE
                work_queue.fail_image(c, lease, ItemError("image_corrupt", reason))

    def _count_outcomes(self, encoded: list[EncodedImage], failed: Failures) -> None:
        """Count and log what is committed."""
        self._metrics.outcomes.labels("ready").inc(len(encoded))
        for one in encoded:
            log.debug("ready", extra=log_fields(one.lease))
        for lease, error in failed:
            outcome = self._outcome_of(lease, error)
            self._metrics.outcomes.labels(outcome).inc()
            if outcome == "failed" and not isinstance(error, Rejected | BlobMissing):
                self._metrics.quarantined.inc()
                log.error("failed %d times: %r", lease.attempts, error, extra=log_fields(lease))
            else:
                level = logging.INFO if outcome == "failed" else logging.DEBUG
                log.log(level, "%s: %s", outcome, error, extra=log_fields(lease))

    def _wait_for_commit(self) -> None:
        """Wait until a process commits something, or it is time to look for dead workers."""
        deadline = time.monotonic() + RECLAIM_SECONDS
        while time.monotonic() < deadline and not self._stopping.wait(POLL_SECONDS):
            if self._count_commits() != self._claimed_at:
                return

    def _renew_leases(self) -> float:
        seconds = self._options.lease_seconds
        for owner in self._lanes:
            self._database.write(partial(work_queue.renew_leases, owner=owner, seconds=seconds))
        return seconds / 3

    def _release_all(self) -> None:
        """Release every picture that is leased to this worker, also those of a failed commit or claim."""
        for claimed in self._claimed:
            claimed.decoding.cancel()
        self._claimed.clear()
        self._database.write(lambda c: work_queue.release_images(c, self.owner))
        self._must_release = False


def is_retryable(error: Exception) -> bool:
    """Whether the machine is at fault, not the picture: a full disk, a pool that stops."""
    return isinstance(error, SightlineError) and error.retryable


def log_fields(lease: Lease) -> dict[str, str | None]:
    return {"picture": lease.image.id, "collection": lease.image.collection, "job": lease.image.job_id}
