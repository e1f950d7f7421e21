"""The search for duplicates in the process of the test: what it stores, and what a stop or a new model does to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.core.errors import ImageCorrupt, InProgress, NotFound, Overloaded
from app.core.settings import Settings
from app.core.types import Job, JobState, NewImage
from app.decode.perceptual_hash import compute_perceptual_hash
from app.service import duplicates as module
from app.service.service import Service, open_service
from app.storage.database import Work
from app.storage.tables import collections, duplicates, embeddings, images, work_queue
from tests.support.sample_pictures import encode_image
from tests.support.servers import wait_until

WAIT = 30.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service without workers; its model is loaded."""
    with closing(open_service(Settings(data_dir=tmp_path / "data", model="colours", decoders=1))) as opened:
        opened.start()
        wait_until(lambda: opened.search.loaded, WAIT, lambda: opened.search.fatal)
        yield opened


def draw(seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8)
    return Image.fromarray(levels).resize((100, 80), Image.Resampling.BICUBIC)


def add(service: Service, n: int, seed: int, *, hashed: bytes | None = None, pixels: int = 1) -> str:
    """A ready picture whose hash and vector are those of `draw(seed)`, unless it has another hash; returns its id."""
    vector = np.random.default_rng(seed).standard_normal(service.search.model.encoder.space.d).astype("<f4")
    packed = (vector / np.linalg.norm(vector)).tobytes()
    hashed = compute_perceptual_hash(draw(seed)) if hashed is None else hashed or None
    database, space = service.library.database, service.search.model.encoder.space

    def work(c: Any) -> str:
        embeddings.save_space(c, space)
        new = NewImage(f"{n:064x}", "png", 10, 4, 3, id=f"p{n}")
        images.add(c, "default", new, None, False)
        (lease,) = work_queue.claim_images(c, "me", 1e12, 1)
        work_queue.finish_image(c, lease, space.fingerprint, packed, 4 * pixels, 3, False, hashed)
        return new.id or ""

    return database.write(work)


def scan(service: Service) -> Job:
    job = service.duplicates.start("default")
    wait_until(lambda: service.jobs.get(job.id).finished_at, WAIT)
    ended = service.jobs.get(job.id)
    assert ended.state is JobState.SUCCEEDED, ended.error
    return ended


def list_groups(service: Service, kind: Any = "exact", most: int = 100) -> list[list[str]]:
    page = service.duplicates.list_groups("default", kind, 10 if kind == "exact" else 0.2, 100, None, most)
    return [[image.id for image, _ in group.images] for group in page.groups]


def test_groups_begin_with_the_picture_of_most_pixels(service: Service) -> None:
    for n, (seed, pixels) in enumerate([(1, 1), (2, 1), (1, 3), (1, 2), (2, 1), (3, 9)]):
        add(service, n, seed, pixels=pixels)
    result = scan(service).result or {}
    assert result == {"pictures": 6, "compared": 6, "pairs": 4, "groups": {"exact": 2, "near": 2}}
    for kind in ("exact", "near"):
        assert list_groups(service, kind) == [["p2", "p0", "p3"], ["p1", "p4"]]
    assert list_groups(service, most=2) == [["p2", "p0"], ["p1", "p4"]]
    page = service.duplicates.list_groups("default", "near", 0.2, 1, None, 2)
    assert [(len(group.images), group.size) for group in page.groups] == [(2, 3)]
    assert (page.total, page.extra) == (2, 3)


def test_a_search_that_was_stopped_goes_on_where_it_was(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 2)
    for n in range(6):
        add(service, n, n // 2)

    class Stopped(Exception):
        pass

    class Context:
        collection = "default"
        reports: list[tuple[int, int]] = []  # noqa: RUF012

        def check(self) -> None:
            if len(self.reports) == 2:
                raise Stopped

        def report(self, done: int, total: int) -> None:
            self.reports.append((done, total))

        def write(self, work: Work[Any]) -> Any:
            return service.library.database.write(work)

    with pytest.raises(Stopped):
        service.duplicates.scan(Context())  # type: ignore[arg-type]
    page = service.duplicates.list_groups("default", "exact", 10, 100, None, 100)
    assert (page.scan.compared, page.scan.waiting, page.scan.finished_at) == (4, 2, None)
    assert Context.reports == [(2, 6), (4, 6)]
    assert (scan(service).result or {})["compared"] == 2
    assert len(list_groups(service)) == 3


def test_pictures_of_an_older_version_get_their_hash_from_thumbnails(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HASHED_AT_ONCE", 2)
    blobs = service.library.blobs
    for n in range(5):
        add(service, n, 7, hashed=b"")
        thumbnail = blobs.thumbnail_path(f"{n:064x}", "png")
        thumbnail.parent.mkdir(parents=True, exist_ok=True)
        if n < 3:
            thumbnail.write_bytes(encode_image(draw(7), "webp", quality=80))
    blobs.thumbnail_path(f"{3:064x}", "png").write_bytes(b"damaged")  # and the last one has no file at all
    scan(service)
    assert list_groups(service) == [["p0", "p1", "p2"]]
    rows = service.library.database.read(lambda c: list(c.execute("SELECT perceptual_hash FROM images ORDER BY key")))
    assert [len(hashed) for (hashed,) in rows] == [56, 56, 56, 0, 0]


def test_what_was_found_in_another_space_is_forgotten(service: Service) -> None:
    add(service, 0, 1)
    add(service, 1, 1)
    scan(service)
    database = service.library.database
    database.write(lambda c: c.execute("UPDATE duplicate_scans SET space = 'another'"))
    page = service.duplicates.list_groups("default", "exact", 10, 100, None, 100)
    assert (page.groups, page.scan.compared, page.scan.waiting) == ([], 0, 2)
    assert (scan(service).result or {})["compared"] == 2
    assert list_groups(service) == [["p0", "p1"]]


def test_a_collection_that_goes_takes_its_pairs_along(service: Service) -> None:
    add(service, 0, 1)
    add(service, 1, 1)
    scan(service)
    database = service.library.database
    for id in ("p0", "p1"):
        service.library.delete("default", id)
    assert database.read(lambda c: list(c.execute("SELECT * FROM duplicate_pairs"))) == []
    service.library.create_collection("gone", "")
    label = database.read(lambda c: collections.require(c, "gone").label)
    database.write(lambda c: c.execute("INSERT INTO duplicate_scans (collection, space) VALUES (?, 'x')", (label,)))
    service.deleter.delete("gone")
    wait_until(lambda: database.read(lambda c: len(list(c.execute("SELECT * FROM duplicate_scans")))) == 1, WAIT)


def test_a_search_whose_collection_goes_meanwhile_ends(service: Service) -> None:
    add(service, 0, 1)
    database = service.library.database
    recorded = database.write(lambda c: duplicates.record_pairs(c, "default", "none", 1, []))
    assert recorded is False
    with pytest.raises(NotFound):
        service.duplicates.start("none")


def test_one_search_of_a_collection_runs_at_a_time(service: Service) -> None:
    service.tasks.close()
    job = service.duplicates.start("default")
    with pytest.raises(InProgress, match="already"):
        service.duplicates.start("default")
    page = service.duplicates.list_groups("default", "near", 0.2, 10, None, 10)
    assert page.scan.job_id == job.id


@pytest.mark.parametrize("answer", ["", "00", "no hash", None, 5])
def test_what_a_child_says_is_no_hash_unless_it_has_its_form(answer: Any) -> None:
    said: Future[str] = Future()
    said.set_result(answer)
    assert module.read_hash(said) == b""


def test_a_fault_of_the_machine_leaves_a_picture_without_a_hash() -> None:
    for error, is_raised in ((Overloaded("no decoder"), True), (ImageCorrupt("damaged"), False)):
        failed: Future[str] = Future()
        failed.set_exception(error)
        with pytest.raises(Overloaded) if is_raised else nullcontext():
            assert module.read_hash(failed) == b""
