"""The worker: claim, decode ahead, encode, commit; renew leases; stop without losing anything.

A worker may be killed at any moment: what it had claimed is taken back as soon as somebody sees that its
lock file is free, and a commit holds vectors and states together, so work is repeated, never lost or doubled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apsw
import numpy as np

from app.core.errors import BlobMissing, Rejected, SightlineError, StorageFull, map_os_errors
from app.core.locks import LeaseOwner, find_dead_owners, remove_dead_locks
from app.core.metrics import ProcessMetrics
from app.core.tracing import span
from app.core.types import ItemError, Lease
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.pool import DecodePool
from app.encoder.protocol import Encoder, check_vectors
from app.storage.library import Library
from app.storage.tables import embeddings, leases, precomputed_vectors
from app.worker.importer import Importer

log = logging.getLogger(__name__)

BATCHES_AHEAD = 3  # batches that are claimed and being decoded while one is encoded
POLL_SECONDS = 0.02
RECLAIM_SECONDS = 1.0
PAUSE_SECONDS = 1.0
RETRY_WAIT_SECONDS = 5.0  # how long pictures that were tried before wait for those that were not
UNREAD = "this picture could not be read, again and again, while others could"
RETRIES_IN_A_ROW = 16  # pictures that were tried before, one after the other, while others wait
# 16 grey pixels as a PNG. If a decoder can read these, a picture that it cannot read is to blame itself.
PROBE_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000000e494441"
    "5478da6368000206540200501408016d4de0490000000049454e44ae426082"
)


@dataclass(slots=True)
class ClaimedImage:
    """A leased picture, the decoding that was begun for it, and the vector that it came with, if any."""

    lease: Lease
    decoding: Future[DecodedPicture]
    vector: bytes | None = None


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A picture with its vector, to be committed."""

    lease: Lease
    decoded: DecodedPicture
    vector: bytes


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works; see Settings for the meaning of each."""

    batch_size: int
    lease_seconds: float
    max_attempts: int
    thumbnail_size: int


class DecoderFault(Exception):
    """The decoder fails at a picture for a reason that is not the picture's, but not at others."""


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
    ) -> None:
        self._library = library
        self._database = library.database
        self._media = library.blobs
        self._encoder = encoder
        self._pool = pool
        self._importer = importer
        self._owners = owners
        self._options = options
        self._metrics = metrics or ProcessMetrics("worker")
        self._owner = LeaseOwner(owners)
        self._claimed: deque[ClaimedImage] = deque()
        self._stopping = threading.Event()
        self._changed = self._database.watch_commits()
        self._unsure = False  # whether pictures may be leased to us that we do not know of
        self._seen = -1
        self._reclaimed_at = float("-inf")
        self._tried_at = time.monotonic() + RETRY_WAIT_SECONDS
        self._tried = 0

    def run(self, ending: Callable[[], None] = lambda: None) -> None:
        """Work until `stop`; what was claimed but not begun is given back. `ending` is called while we still live."""
        remove_dead_locks(self._owners)
        space = self._encoder.space
        self._database.write(lambda c: embeddings.save_space(c, space))
        threads = [
            threading.Thread(target=self._renew, name="leases", daemon=True),
            threading.Thread(target=self._importer.run, args=(self._owner.id, self._stopping), name="importer"),
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._stopping.is_set():
                if not all(thread.is_alive() for thread in threads) and not self._stopping.is_set():
                    raise RuntimeError("a thread of the worker has died")
                self._step()
        finally:
            self._stopping.set()
            try:
                self._release()
            except SightlineError as error:  # others take them back once our lock file is free
                log.warning("leases not released: %s", error.detail)
            for thread in threads:
                thread.join()
            ending()
            self._owner.close()

    @property
    def owner(self) -> str:
        """Its name, which is that of its lock file."""
        return self._owner.id

    def stop(self) -> None:
        """Ask `run` to return after the batch it is at. Safe in a signal handler."""
        self._stopping.set()

    def _step(self) -> None:
        """One round. A fault of the disk or the database is waited out, never fatal."""
        try:
            if self._unsure:
                self._release()
            self._reclaim()
            self._claim()
            if self._claimed:
                self._commit_batch([self._claimed.popleft() for _ in range(self._next_size())])
            else:
                self._wait()
        except SightlineError as error:
            log.warning("waiting: %s", error.detail)
            self._unsure = True
            self._stopping.wait(PAUSE_SECONDS)

    def _reclaim(self) -> None:
        """Take back what dead workers hold, now and then."""
        if time.monotonic() - self._reclaimed_at < RECLAIM_SECONDS:
            return
        self._reclaimed_at = time.monotonic()
        others = self._database.read(leases.list_owners) - {self._owner.id}
        if others:
            gone = find_dead_owners(self._owners, others)
            most = self._options.max_attempts
            lost, given_up = self._database.write(lambda c: leases.expire_leases(c, gone, time.monotonic(), most))
            if lost:
                self._metrics.count_reclaimed(lost)
                self._metrics.count_quarantined(given_up)
                log.info("took back %d pictures of workers that are gone", lost)

    def _claim(self) -> None:
        """Keep AHEAD batches leased and decoding. What came one by one goes before what came in bulks."""
        room = BATCHES_AHEAD * self._options.batch_size - len(self._claimed)
        if room < self._options.batch_size or self._stopping.is_set():
            return
        tried = self._turn_of_tried()
        if tried and self._claimed:  # they are at work alone: what was claimed comes first
            return
        until = time.monotonic() + self._options.lease_seconds
        self._seen = self._changed()
        alone = not self._claimed
        space = self._encoder.space.fingerprint

        def work(c: apsw.Connection) -> tuple[list[Lease], dict[int, bytes]]:
            claimed = leases.claim_images(c, self._owner.id, until, room, alone=alone, tried=tried)
            return claimed, precomputed_vectors.find_vectors(c, space, (lease.image.key for lease in claimed))

        got, vectors = self._database.write(work)
        self._metrics.count_claimed(len(got))
        claimed = [ClaimedImage(lease, self._decode(lease), vectors.get(lease.image.key)) for lease in got]
        self._claimed.extend(one for one in claimed if one.lease.image.job_id is not None)
        self._claimed.extendleft(one for one in reversed(claimed) if one.lease.image.job_id is None)

    def _turn_of_tried(self) -> bool:
        """Whether pictures that were tried before have waited long enough, though there may be others."""
        if time.monotonic() < self._tried_at:
            return False
        if self._tried < RETRIES_IN_A_ROW and self._database.read(leases.has_retries):
            self._tried += not self._claimed
            return True
        self._tried, self._tried_at = 0, time.monotonic() + RETRY_WAIT_SECONDS
        return False

    def _decode(self, lease: Lease) -> Future[DecodedPicture]:
        sha256 = lease.image.sha256
        thumbnail = self._media.thumbnail(sha256, lease.image.format)
        path = self._media.path(sha256)
        try:
            with map_os_errors():
                thumbnail.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    raise BlobMissing("the file of this picture is missing")
            return self._submit_decode(path, thumbnail)
        except (SightlineError, OSError) as error:
            failed: Future[DecodedPicture] = Future()
            failed.set_exception(error)
            return failed

    def _submit_decode(self, path: Path, thumbnail: Path) -> Future[DecodedPicture]:
        limits, size = self._pool.picture_limits, self._options.thumbnail_size
        return self._pool.submit(decode_picture, path, self._encoder.preprocessing, limits, thumbnail, size)

    def _next_size(self) -> int:
        """A full batch, or what there is when the first picture is decoded and nothing else waits."""
        return min(self._options.batch_size, len(self._claimed))

    def _commit_batch(self, batch: list[ClaimedImage]) -> None:
        with span("batch", {"pictures": len(batch)}):
            self._work_off(batch)

    def _work_off(self, batch: list[ClaimedImage]) -> None:
        decoded: list[tuple[Lease, DecodedPicture]] = []
        failed: list[tuple[Lease, Exception]] = []
        done: list[EncodedImage] = []
        with span("decode"), self._metrics.time_step("decode"):
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
        failed = self._judged(failed)
        with span("encode"), self._metrics.time_step("encode"):
            encoded = self._encode(decoded, failed)
        if decoded and not encoded:
            self._prove()
        done += encoded
        with span("commit"), self._metrics.time_step("commit"):
            self._database.write(lambda c: self._record(c, done, failed))
        self._count(done, failed)
        self._library.delete_unused_files(
            claimed.lease.image.sha256 for claimed in batch
        )  # a thumbnail of what was deleted
        if any(isinstance(error, SightlineError) and error.retryable for _, error in failed):
            self._stopping.wait(PAUSE_SECONDS)

    def _judged(self, failed: list[tuple[Lease, Exception]]) -> list[tuple[Lease, Exception]]:
        """What failed, with Unreadable for a fault of the machine that other pictures do not meet.

        Otherwise such a picture would be tried for ever. A full disk is nobody's fault, however small what still fits.
        """

        def doubtful(error: Exception) -> bool:
            return isinstance(error, SightlineError) and error.retryable and not isinstance(error, StorageFull)

        if not any(doubtful(error) for _, error in failed) or self._stopping.is_set() or not self._decodes():
            return failed
        return [(lease, DecoderFault(str(error)) if doubtful(error) else error) for lease, error in failed]

    def _decodes(self) -> bool:
        """Whether a picture can be decoded, and its thumbnail written."""
        folder = self._library.incoming()
        thumbnail = self._media.thumbnails / f".{self._owner.id}.webp"
        try:
            (folder / "probe").write_bytes(PROBE_PNG)
            self._submit_decode(folder / "probe", thumbnail).result()
        except (SightlineError, OSError):
            return False
        finally:
            self._library.discard(folder)
            self._library.discard(thumbnail)
        return True

    def _encode(
        self, decoded: list[tuple[Lease, DecodedPicture]], failed: list[tuple[Lease, Exception]]
    ) -> list[EncodedImage]:
        """One forward pass; if it fails, one for each, so that one bad picture never takes its neighbours."""
        if not decoded:
            return []
        try:
            vectors = self._encoder.encode_images(np.stack([picture.pixels for _, picture in decoded]))
            check_vectors(vectors)
        except Exception as error:
            if len(decoded) == 1:
                failed.append((decoded[0][0], error))
                return []
            log.warning("a batch of %d failed (%s); trying one by one", len(decoded), error)
            return [one for pair in decoded for one in self._encode([pair], failed)]
        return [
            EncodedImage(lease, picture, vector.astype("<f4").tobytes())
            for (lease, picture), vector in zip(decoded, vectors, strict=True)
        ]

    def _prove(self) -> None:
        """Raise RuntimeError when the encoder fails at plain grey, too: after a fault of its GPU, say, it is of no use
        any more, and no picture's attempt may count. A new worker begins anew."""
        size = self._encoder.preprocessing.size
        try:
            check_vectors(self._encoder.encode_images(np.full((1, size, size, 3), 128, dtype=np.uint8)))
        except Exception as error:
            raise RuntimeError("the encoder can encode nothing any more") from error

    def _count(self, encoded: list[EncodedImage], failed: list[tuple[Lease, Exception]]) -> None:
        """For the metrics, once it is committed."""
        self._metrics.count_outcome("ready", len(encoded))
        for one in encoded:
            log.debug("ready", extra=log_fields(one.lease))
        for lease, error in failed:
            fate = self._fate(lease, error)
            self._metrics.count_outcome(fate)
            log.log(logging.INFO if fate == "failed" else logging.DEBUG, "%s: %s", fate, error, extra=log_fields(lease))
            if fate == "failed" and not isinstance(error, Rejected | BlobMissing):
                self._metrics.count_quarantined()

    def _fate(self, lease: Lease, error: Exception) -> str:
        """What becomes of a picture that could not be encoded."""
        if isinstance(error, SightlineError) and error.retryable:  # a full disk, a stopping pool: not its fault
            return "released"
        if isinstance(error, Rejected | BlobMissing) or lease.attempts >= self._options.max_attempts:
            return "failed"
        return "retried"

    def _record(self, c: apsw.Connection, encoded: list[EncodedImage], failed: list[tuple[Lease, Exception]]) -> None:
        space = self._encoder.space.fingerprint
        for one in encoded:
            picture = one.decoded
            leases.finish_image(c, one.lease, space, one.vector, picture.width, picture.height, picture.animated)
        for lease, error in failed:
            fate = self._fate(lease, error)
            if fate == "released":
                leases.release_images(c, self._owner.id, [lease.image.key])
            elif fate == "retried":
                leases.requeue_image(c, lease)
            elif isinstance(error, Rejected | BlobMissing):
                leases.fail_image(c, lease, ItemError(error.code, error.detail))
            else:
                log.error("failed %d times: %r", lease.attempts, error, extra=log_fields(lease))
                unread = isinstance(error, DecoderFault)
                reason = UNREAD if unread else "the model could not encode this picture"
                leases.fail_image(c, lease, ItemError("image_corrupt", reason))

    def _wait(self) -> None:
        """Until somebody commits, or it is time to look for dead workers."""
        deadline = time.monotonic() + RECLAIM_SECONDS
        while time.monotonic() < deadline and not self._stopping.wait(POLL_SECONDS):
            if self._changed() != self._seen:
                return

    def _renew(self) -> None:
        while not self._stopping.wait(self._options.lease_seconds / 3):
            until = time.monotonic() + self._options.lease_seconds
            try:
                self._database.write(partial(leases.renew_leases, owner=self._owner.id, until=until))
            except SightlineError as error:
                log.warning("leases not renewed: %s", error.detail)

    def _release(self) -> None:
        """Give back every picture that is leased to us, those of a failed commit or claim too."""
        for claimed in self._claimed:
            claimed.decoding.cancel()
        self._claimed.clear()
        self._database.write(lambda c: leases.release_all_images(c, self._owner.id))
        self._unsure = False


def log_fields(lease: Lease) -> dict[str, str | None]:
    """What a record says of the picture that it is about."""
    return {"picture": lease.image.id, "collection": lease.image.collection, "job": lease.image.job_id}
