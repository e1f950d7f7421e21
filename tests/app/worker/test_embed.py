from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import apsw
import numpy as np
import pytest

from app.core.errors import Overloaded, StartupError
from app.core.locks import LeaseOwner
from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.core.types import Image, ItemStatus, JobState, Status
from app.decode.limits import ArchiveLimits
from app.decode.pool import DecodePool
from app.encoder.dummy import PALETTE, DummyEncoder
from app.encoder.protocol import Embeddings, Encoder, Pixels, normalise
from app.sources.stop_signal import ShouldStop
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.sql import fetch_all
from app.storage.tables import embeddings, images, precomputed_vectors, work_queue
from app.worker.embed import EmbeddingWorker, WorkerOptions
from app.worker.importer import Importer
from app.worker.main import needs_supervisor
from tests.support.makers import FaultyEncoder, add, add_bulk, count_waiting, image_of, job_of
from tests.support.pictures import picture
from tests.support.servers import wait_until

WAIT = 20.0
DECODES = "sightline_decode_seconds_count"
RED = [names[0] for names in PALETTE].index("red")
Made = Callable[..., EmbeddingWorker]


@pytest.fixture
def make_worker(library: Library, pool: DecodePool, tmp_path: Path) -> Made:
    def make(
        encoder: Encoder | None = None, *, batch: int = 4, lease: float = 60.0, attempts: int = 3
    ) -> EmbeddingWorker:
        importer = Importer(library, pool, ArchiveLimits(), 60.0, lease, attempts)
        options = WorkerOptions(batch, lease, attempts, thumbnail_size=32)
        return EmbeddingWorker(library, encoder or DummyEncoder(), pool, importer, tmp_path / "workers", options)

    return make


@contextmanager
def running(worker: EmbeddingWorker) -> Iterator[EmbeddingWorker]:
    """The worker at work; whatever it dies of is raised here."""
    died: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            died.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(WAIT)
    assert not thread.is_alive()
    if died:
        raise died[0]


def every(library: Library) -> list[Image]:
    return library.list_images("default", 1000, None)


def wait_until_settled(library: Library) -> list[Image]:
    """All pictures once none is waiting."""
    wait_until(lambda: count_waiting(library.database) == 0, WAIT, lambda: str(every(library)))
    return every(library)


def vector(library: Library, image: Image) -> Embeddings | None:
    packed = library.database.read(lambda c: embeddings.get_vectors(c, "images", [image.key])).get(image.key)
    return None if packed is None else np.frombuffer(packed, "<f4")


def test_pictures_become_ready_with_vector_thumbnail_and_stamp(library: Library, make_worker: Made) -> None:
    encoder = DummyEncoder()
    for n, colour in enumerate(("red", "blue", "green")):
        add(library, picture(colour, n), id=colour)
    with running(make_worker(encoder)):
        ready = wait_until_settled(library)
    words = encoder.encode_texts([image.id for image in ready])
    for image, word in zip(ready, words, strict=True):
        assert image.status is Status.READY
        found = vector(library, image)
        assert found is not None
        assert float(found @ word) > 0.9
        assert library.blobs.thumbnail_path(image.sha256, image.format).is_file()
    assert library.get_collection("default").space == encoder.space


def test_a_picture_that_came_with_its_vector_is_decoded_but_not_encoded(library: Library, make_worker: Made) -> None:
    encoder = FaultyEncoder(RED)  # fails at red pictures
    space = encoder.space.fingerprint
    vectors = np.eye(encoder.space.d, dtype="<f4")
    rows = [add(library, picture("red", n), id=f"{n}").image for n in range(3)]
    torn = add(library, picture("red", 3)[:60], id="torn").image
    for n, image in enumerate([*rows, torn]):
        of = space if n != 2 else "another space"
        packed = vectors[n].tobytes()
        library.database.write(partial(precomputed_vectors.store, key=image.key, space=of, vector=packed))
    with running(make_worker(encoder)):
        found = {image.id: image for image in wait_until_settled(library)}
    assert [found[id].status.value for id in ("0", "1", "2", "torn")] == ["ready", "ready", "failed", "failed"]
    for n in range(2):
        stored = vector(library, found[str(n)])
        assert stored is not None
        assert np.array_equal(stored, vectors[n])
        assert found[str(n)].width is not None
        assert library.blobs.thumbnail_path(found[str(n)].sha256, "png").is_file()
    assert library.get_collection("default").space == encoder.space


def test_a_worker_that_waits_processes_new_uploads(library: Library, make_worker: Made) -> None:
    with running(make_worker()):
        for n in range(3):
            add(library, picture("red", n), id=f"i{n}")
            wait_until(lambda n=n: image_of(library.database, f"i{n}").status is Status.READY, WAIT)


class Counting(DummyEncoder):
    """Keeps how many pictures each call brought."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def encode_images(self, pixels: Pixels) -> Embeddings:
        self.counts.append(len(pixels))
        return super().encode_images(pixels)


def test_warming_up_starts_the_decoders_and_encodes(library: Library, tmp_path: Path) -> None:
    metrics, encoder = ProcessMetrics("worker"), Counting()
    with DecodePool(1, metrics=metrics) as pool:
        importer = Importer(library, pool, ArchiveLimits(), 60.0, 60.0, 3)
        options = WorkerOptions(4, 60.0, 3, thumbnail_size=32)
        worker = EmbeddingWorker(library, encoder, pool, importer, tmp_path / "workers", options)
        worker.warm_up()
        assert encoder.counts == [2]
        wait_until(lambda: metrics.registry.get_sample_value(DECODES, {"process": "worker"}) == 1, WAIT)
        worker.stop()
        worker.run()  # gives back the lock of its leases


def test_a_bulk_is_imported_and_encoded_to_its_end(library: Library, make_worker: Made) -> None:
    job = add_bulk(library, [(f"{n}.png", picture("blue", n)) for n in range(10)] + [("bad.png", b"words")])
    with running(make_worker()):
        wait_until(lambda: job_of(library.database, job.id).state == "succeeded", WAIT)
    ended = job_of(library.database, job.id)
    assert (ended.total, ended.done, ended.failed, ended.duplicates) == (11, 10, 1, 0)


def test_one_bad_picture_of_a_batch_fails_alone(library: Library, make_worker: Made) -> None:
    for n in range(3):
        add(library, picture("blue", n), id=f"good{n}")
    add(library, picture("red"), id="bad")
    with running(make_worker(FaultyEncoder(RED), batch=4)):
        status = {image.id: image.status for image in wait_until_settled(library)}
    assert status == {"good0": "ready", "good1": "ready", "good2": "ready", "bad": "failed"}


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_picture_that_the_model_cannot_encode_is_tried_again_and_then_fails(
    library: Library, make_worker: Made, attempts: int
) -> None:
    add(library, picture("red"), id="bad")
    encoder = FaultyEncoder(RED)
    with running(make_worker(encoder, attempts=attempts)):
        (image,) = wait_until_settled(library)
    assert image.error is not None
    assert (image.error.code, image.error.detail) == ("image_corrupt", "the model could not encode this picture")
    assert encoder.calls == [1, 1] * attempts  # each time, that other pictures can be encoded is seen to


class BrokenEncoder(DummyEncoder):
    """Encodes nothing, as after a fault of a GPU, or NaN for everything."""

    def __init__(self, *, raises: bool) -> None:
        super().__init__()
        self.raises = raises

    def encode_images(self, pixels: Pixels) -> Embeddings:
        if self.raises:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().encode_images(pixels) * np.float32(np.nan)


@pytest.mark.parametrize("raises", [True, False])
def test_an_encoder_that_can_encode_nothing_ends_the_worker_and_fails_no_picture(
    library: Library, make_worker: Made, raises: bool
) -> None:
    for n in range(3):
        add(library, picture("blue", n), id=f"i{n}")
    with pytest.raises(RuntimeError, match="can encode nothing any more"):
        make_worker(BrokenEncoder(raises=raises), attempts=1).run()
    assert {image.status for image in every(library)} == {Status.QUEUED}
    with running(make_worker(attempts=1)):
        assert {image.status for image in wait_until_settled(library)} == {Status.READY}


class HalfEncoder(DummyEncoder):
    """A tower in 16 bits that red is too much for, as it happens to real ones: it overflows, and inf / inf is NaN."""

    def encode_images(self, pixels: Pixels) -> Embeddings:
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = (super().encode_images(pixels) * np.where(np.arange(self.space.d) == RED, 7e4, 1)).astype("<f2")
            return normalise(narrow)


@pytest.mark.parametrize(
    "encoder",
    [HalfEncoder(), *(FaultyEncoder(RED, gives=value) for value in (np.nan, np.inf, 0.0))],
    ids=["overflow", "nan", "inf", "zero"],
)
def test_an_invalid_vector_never_reaches_the_log_and_its_neighbours_do(
    encoder: Encoder, library: Library, make_worker: Made
) -> None:
    add(library, picture("red"), id="bad")
    for n in range(3):
        add(library, picture("blue", n), id=f"good{n}")
    with running(make_worker(encoder, batch=4)):
        found = {image.id: image for image in wait_until_settled(library)}
    bad = found.pop("bad")
    assert (bad.status, vector(library, bad)) == (Status.FAILED, None)
    assert bad.error is not None
    assert bad.error.detail == "the model could not encode this picture"
    for image in found.values():
        good = vector(library, image)
        assert image.status is Status.READY
        assert good is not None
        assert np.isfinite(good).all()


def test_a_picture_that_cannot_be_decoded_fails_at_once_and_its_neighbours_do_not(
    library: Library, make_worker: Made
) -> None:
    whole = picture("red", size=(300, 300))
    add(library, whole[: len(whole) // 2], id="cut")
    add(library, picture("blue"), id="good")
    encoder = DummyEncoder()
    with running(make_worker(encoder)):
        found = {image.id: image for image in wait_until_settled(library)}
    assert found["good"].status is Status.READY
    error = found["cut"].error
    assert error is not None
    assert error.code == "image_corrupt"


def test_a_picture_whose_file_is_gone_fails_with_that_reason(library: Library, make_worker: Made) -> None:
    image = add(library, picture("red")).image
    library.blobs.path(image.sha256).unlink()
    with running(make_worker()):
        (image,) = wait_until_settled(library)
    assert image.error is not None
    assert image.error.code == "blob_missing"


class RefusingPool(DecodePool):
    """Says of some files, or of all, that no decoder could be started."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(1)
        self.path, self.healthy = path, threading.Event()

    def submit(self, function: Callable[..., Any], *args: Any, seconds: float | None = None) -> Future[Any]:
        if self.healthy.is_set() or (self.path is not None and args[0] != self.path):
            return super().submit(function, *args, seconds=seconds)
        refused: Future[Any] = Future()
        refused.set_exception(Overloaded("no decoder could be started; try again"))
        return refused


def test_a_picture_that_brings_every_decoder_down_is_given_up_and_its_neighbours_are_not(
    library: Library, make_worker: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = add(library, picture("red"), id="bad").image
    for n in range(5):
        add(library, picture("blue", n), id=f"good{n}")
    monkeypatch.setattr("app.worker.embed.FIRST_PAUSE", 0.01)
    worker = make_worker()
    with RefusingPool(library.blobs.path(bad.sha256)) as pool:
        worker._pool = pool
        with running(worker):
            found = {image.id: image for image in wait_until_settled(library)}
    error = found.pop("bad").error
    assert error is not None
    assert (error.code, "could not be read" in error.detail) == ("image_corrupt", True)
    assert {image.status for image in found.values()} == {Status.READY}


def test_a_worker_waits_until_decoders_can_be_started(
    library: Library, make_worker: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(library, picture("red"), id="one")
    monkeypatch.setattr("app.worker.embed.FIRST_PAUSE", 0.01)
    worker = make_worker(attempts=1)
    rounds: list[int] = []
    with RefusingPool(None) as pool:
        worker._pool = pool
        can_decode = worker._can_decode

        def probe() -> bool:
            """Decoders can be started again after a probe, not between the picture and its probe: that blames it."""
            could = can_decode()
            rounds.append(1)
            if len(rounds) > 5:
                pool.healthy.set()
            return could

        worker._can_decode = probe  # type: ignore[method-assign]
        with running(worker):
            (image,) = wait_until_settled(library)
    assert image.status is Status.READY
    assert list(library.blobs.incoming.iterdir()) == []
    assert not list(library.blobs.thumbnails.glob(".*"))


def test_a_file_in_place_of_a_thumbnail_folder_fails_its_picture_alone(
    library: Library, make_worker: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = add(library, picture("red"), id="bad").image
    add(library, picture("blue"), id="good")
    monkeypatch.setattr("app.worker.embed.FIRST_PAUSE", 0.01)
    library.blobs.thumbnail_path(bad.sha256, bad.format).parent.parent.write_bytes(b"in the way")
    with running(make_worker()):
        status = {image.id: image.status for image in wait_until_settled(library)}
    assert status == {"bad": Status.FAILED, "good": Status.READY}


class Killed(BaseException):
    """As by a signal: nothing is given back."""


class Doomed(EmbeddingWorker):
    """Gives nothing back when it ends."""

    def _release_all(self) -> None:
        pass


class Poisoned(DummyEncoder):
    """Red kills the process that encodes it."""

    def encode_images(self, pixels: Pixels) -> Embeddings:
        vectors = super().encode_images(pixels)
        if (vectors[:, : self.space.d - 48].argmax(axis=1) == RED).any():
            raise Killed
        return vectors


def test_one_poison_of_a_hundred_is_given_up_after_three_deaths_and_the_others_are_done(
    library: Library, pool: DecodePool, tmp_path: Path
) -> None:
    job = add_bulk(library, [(f"{n}.png", picture("red" if n == 40 else "blue", n)) for n in range(100)])
    importer = Importer(library, pool, ArchiveLimits(), 60.0, 60.0, 3)
    deaths = 0

    def has_succeeded() -> bool:
        return job_of(library.database, job.id).state is JobState.SUCCEEDED

    while not has_succeeded():
        worker = Doomed(library, Poisoned(), pool, importer, tmp_path / "workers", WorkerOptions(32, 60.0, 3, 32))
        try:
            with running(worker):
                wait_until(lambda worker=worker: has_succeeded() or worker._stopping.is_set(), WAIT)
        except Killed:
            deaths += 1
    assert deaths == 3
    after = job_of(library.database, job.id)
    assert (after.total, after.done, after.failed) == (100, 99, 1)
    ((_, item),) = JobService(library).list_items(job.id, ItemStatus.FAILED, 0, 10)
    assert item.error is not None
    assert (item.name, item.error.detail) == ("40.png", "the worker died 3 times over this picture")


class SlowEncoder(DummyEncoder):
    """Encodes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.gate = threading.Event(), threading.Event()

    def encode_images(self, pixels: Pixels) -> Embeddings:
        self.began.set()
        assert self.gate.wait(WAIT)
        return super().encode_images(pixels)


def test_stop_finishes_the_batch_and_releases_the_rest_without_counting_an_attempt(
    library: Library, make_worker: Made
) -> None:
    for n in range(10):
        add(library, picture("red", n))
    encoder = SlowEncoder()
    with running(make_worker(encoder, batch=2)) as worker:
        assert encoder.began.wait(WAIT)
        worker.stop()
        encoder.gate.set()
    status = [image.status for image in every(library)]
    assert (status.count(Status.READY), status.count(Status.QUEUED)) == (2, 8)
    claimed = library.database.write(lambda c: work_queue.claim_images(c, "next", 1e12, 100))
    assert {lease.attempts for lease in claimed} == {1}


def test_the_pictures_of_a_dead_worker_are_taken_over(library: Library, make_worker: Made, tmp_path: Path) -> None:
    add(library, picture("red"), id="one")
    gone = LeaseOwner(tmp_path / "workers")
    library.database.write(lambda c: work_queue.claim_images(c, gone.id, time.monotonic() + 1e6, 10))
    gone.close()
    with running(make_worker()):
        (image,) = wait_until_settled(library)
    assert image.status is Status.READY


def test_the_pictures_of_a_living_worker_are_left_alone(library: Library, make_worker: Made, tmp_path: Path) -> None:
    add(library, picture("red"), id="theirs")
    other = LeaseOwner(tmp_path / "workers")
    library.database.write(lambda c: work_queue.claim_images(c, other.id, time.monotonic() + 1e6, 10))
    with running(make_worker()):
        add(library, picture("blue"), id="ours")
        wait_until(lambda: image_of(library.database, "ours").status is Status.READY, WAIT)
        assert image_of(library.database, "theirs").status is Status.PROCESSING
    other.close()


def test_long_work_keeps_its_lease_by_renewing_it(library: Library, make_worker: Made) -> None:
    add(library, picture("red"), id="one")
    encoder = SlowEncoder()

    def until_when() -> float:
        sql = "SELECT lease_until FROM images"
        return float(library.database.read(lambda c: next(iter(c.execute(sql)))[0]))

    with running(make_worker(encoder, lease=0.3)):
        assert encoder.began.wait(WAIT)
        first = until_when()
        wait_until(lambda: until_when() > first + 0.3, WAIT)
        encoder.gate.set()
        (image,) = wait_until_settled(library)
    assert image.status is Status.READY


def test_a_picture_replaced_while_it_is_encoded_gets_the_vector_of_its_new_bytes(
    library: Library, make_worker: Made
) -> None:
    add(library, picture("red"), id="one")
    encoder = SlowEncoder()
    with running(make_worker(encoder)):
        assert encoder.began.wait(WAIT)
        add(library, picture("blue"), id="one", replace=True)
        encoder.gate.set()
        (image,) = wait_until_settled(library)
    found = vector(library, image)
    assert found is not None
    assert float(found @ encoder.encode_texts(["blue"])[0]) > 0.9


def test_a_picture_deleted_while_it_is_encoded_stays_deleted(library: Library, make_worker: Made) -> None:
    image = add(library, picture("red"), id="one").image
    encoder = SlowEncoder()
    with running(make_worker(encoder)):
        assert encoder.began.wait(WAIT)
        library.delete("default", "one")
        encoder.gate.set()
    assert every(library) == []
    assert vector(library, image) is None


def test_two_workers_share_the_work_and_double_nothing(library: Library, make_worker: Made) -> None:
    for n in range(40):
        add(library, picture("red", n))
    one, two = make_worker(), make_worker()
    with running(one), running(two):
        assert {image.status for image in wait_until_settled(library)} == {Status.READY}
    sql = "SELECT count(*) FROM embeddings"
    assert library.database.read(lambda c: next(iter(c.execute(sql)))[0]) == 40


@pytest.mark.sqlite
def test_a_worker_waits_out_a_full_disk_and_blames_no_picture(
    library: Library, make_worker: Made, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(40):
        add(library, picture("red", n))
    encoder = SlowEncoder()

    def limit_pages(pages: int) -> None:
        library.database.write(lambda c: cast(apsw.Connection, c).pragma("max_page_count", pages))

    with running(make_worker(encoder, batch=40)):
        assert encoder.began.wait(WAIT)
        limit_pages(1)  # SQLite makes that as many as there are: it is full, as it would be on a full disk
        encoder.gate.set()
        wait_until(lambda: "waiting: the disk is full" in caplog.text, WAIT)
        assert (
            library.database.read(lambda c: images.count_by_status(c, "default"))["ready"] < 40
        )  # the first few may fit into free pages
        limit_pages(1 << 30)
        assert {image.status for image in wait_until_settled(library)} == {Status.READY}
    attempts = library.database.read(lambda c: fetch_all(c, "SELECT DISTINCT attempts FROM images"))
    assert attempts == [(1,)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_of_the_worker_that_dies_ends_the_worker(library: Library, make_worker: Made) -> None:
    def exit_process(owner: str, should_stop: ShouldStop) -> float:
        raise SystemExit

    worker = make_worker()
    worker._lanes[worker.owner].import_next = exit_process  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a thread of the worker has died"), running(worker):
        wait_until(lambda: worker._stopping.is_set(), WAIT)


def test_what_sightline_worker_runs_depends_on_the_settings() -> None:
    assert not needs_supervisor(Settings(workers=1, captioner="http://localhost:1/v1"))
    assert needs_supervisor(Settings(workers=2))
    url = "postgresql://owner@db/pictures"
    assert not needs_supervisor(Settings(workers=1, database=url))
    assert needs_supervisor(Settings(workers=1, database=url, captioner="http://localhost:1/v1"))
    with pytest.raises(StartupError):
        needs_supervisor(Settings(workers=0))
