from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.errors import ImageCorrupt, Overloaded
from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.core.types import Image
from app.decode.pool import DecodePool
from app.decode.syscall_filter import is_supported
from app.service.data_dir import open_library
from app.storage.library import Library
from app.storage.tables import enrichments
from app.storage.tables.enrichments import Enrichment, EnrichmentCounts
from app.worker import enrich
from app.worker.enrich import EnrichmentWorker, run_enricher
from app.worker.pixels import read_pixels
from tests.support.makers import add, claim, finish, image_of, insert
from tests.support.object_stores import Store
from tests.support.pictures import picture
from tests.support.postgresql import PostgresqlServer
from tests.support.servers import wait_until

WAIT = 20.0


class NameReader:
    """Reads the id of a picture, and raises what it is told to."""

    kind = "ocr"
    seconds = 30.0
    memory: int | None = None

    def __init__(self, *faults: Exception, before: Callable[[], object] = lambda: None) -> None:
        self.faults = list(faults)
        self.seen: list[str] = []
        self.before = before

    def enrich(self, image: Image, path: Path) -> Enrichment:
        assert path.read_bytes()
        self.seen.append(image.id)
        self.before()
        if self.faults:
            raise self.faults.pop(0)
        return Enrichment({"ocr_text": f"it is {image.id}"}, {"lines": []})


def make_worker(library: Library, reader: NameReader, attempts: int = 3) -> EnrichmentWorker:
    return EnrichmentWorker(library, reader, "a", attempts, ProcessMetrics("worker"))


def make_ready(library: Library, *colours: str) -> None:
    library.database.write(lambda c: enrichments.switch(c, ["ocr"]))
    for colour in colours:
        add(library, picture(colour), id=colour)
    for lease in claim(library.database):
        finish(library.database, lease)


def counts(library: Library) -> EnrichmentCounts:
    return library.database.read(enrichments.count_all)["ocr"]


def run_until(worker: EnrichmentWorker, is_done: Callable[[], bool]) -> None:
    """Run the worker here, as its process does, until that is so."""

    def stop() -> None:
        try:
            wait_until(is_done, WAIT)
        finally:
            worker.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    worker.run()
    thread.join()


def test_pictures_are_enriched_newest_first_with_those_that_were_there_before(library: Library) -> None:
    add(library, picture("red"), id="old")
    for lease in claim(library.database):
        finish(library.database, lease)
    make_ready(library, "blue", "green")
    reader = NameReader()
    run_until(make_worker(library, reader), lambda: counts(library).done == 3)
    assert reader.seen == ["green", "blue", "old"]
    assert image_of(library.database, "old").ocr_text == "it is old"


def test_a_new_picture_wakes_the_process(library: Library) -> None:
    make_ready(library)
    reader = NameReader()
    adding = threading.Timer(0.3, make_ready, (library, "red"))
    adding.start()
    run_until(make_worker(library, reader), lambda: bool(reader.seen))
    adding.join()


def test_a_picture_that_fails_is_tried_again_and_given_up(library: Library) -> None:
    make_ready(library, "red", "blue")
    reader = NameReader(ValueError("odd"), ValueError("odd"))
    worker = make_worker(library, reader, attempts=2)
    run_until(worker, lambda: counts(library).waiting == 0)
    assert reader.seen == ["blue", "red", "red", "blue"] or reader.seen == ["blue", "red", "blue", "red"]
    assert counts(library) == EnrichmentCounts(0, 2, 0)
    reader.faults = [ValueError("odd"), ValueError("odd")]
    key = image_of(library.database, "red").key
    library.database.write(lambda c: enrichments.request(c, "ocr", [key]))
    while worker.step():
        pass
    state = library.database.read(lambda c: enrichments.get_states(c, key))["ocr"]
    assert (state.state, state.detail) == ("failed", "ValueError")
    assert image_of(library.database, "red").ocr_text == "it is red"  # what was found before


def test_a_corrupt_or_missing_file_is_given_up_at_once(library: Library) -> None:
    make_ready(library, "red", "blue")
    library.blobs.path(image_of(library.database, "red").sha256).unlink()
    reader = NameReader(ImageCorrupt("the picture is damaged"))
    worker = make_worker(library, reader)
    while worker.step():
        pass
    assert counts(library) == EnrichmentCounts(0, 0, 2)
    assert reader.seen == ["blue"]


def test_a_fault_of_the_machine_counts_no_attempt(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrich, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(enrich, "LAST_PAUSE", 0.01)
    make_ready(library, "red")
    reader = NameReader(*[Overloaded("not now")] * 4)
    run_until(make_worker(library, reader, attempts=1), lambda: counts(library).done == 1)
    assert len(reader.seen) == 5


def test_a_picture_that_is_replaced_meanwhile_does_not_get_the_text(library: Library) -> None:
    make_ready(library, "red")
    reader = NameReader(before=lambda: add(library, picture("blue"), id="red", replace=True))
    worker = make_worker(library, reader)
    assert worker.step()
    assert image_of(library.database, "red").ocr_text is None
    for lease in claim(library.database):
        finish(library.database, lease)
    reader.before = lambda: None
    assert worker.step()
    assert image_of(library.database, "red").ocr_text == "it is red"


def test_it_works_a_part_of_the_time_while_pictures_wait_for_a_worker(library: Library) -> None:
    make_ready(library, "red", "blue")
    insert(library.database, 9)
    worker = make_worker(library, NameReader(before=lambda: time.sleep(0.05)))
    began = time.monotonic()
    worker.step()
    assert time.monotonic() - began >= 0.05 * enrich.SHARE
    leases = claim(library.database)
    finishing = threading.Timer(0.3, lambda: [finish(library.database, one) for one in leases])
    finishing.start()
    began = time.monotonic()
    worker._yield_to_ingest(3600.0)
    assert time.monotonic() - began < WAIT
    finishing.join()
    insert(library.database, 10)
    worker.stop()
    worker._yield_to_ingest(3600.0)


def test_the_pixels_are_upright_and_without_padding(library: Library, pool: DecodePool) -> None:
    add(library, picture("red", size=(300, 100)), id="wide")
    image = image_of(library.database, "wide")
    path = library.blobs.path(image.sha256)
    for side, shape in ((600, (100, 300, 3)), (150, (50, 150, 3)), (300, (100, 300, 3))):
        pixels = read_pixels(pool, image, path, side)
        assert pixels.shape == shape
        assert np.median(pixels[[0, -1]], axis=(0, 1)).tolist() == [220, 30, 30]  # no white border


def test_what_a_process_does_from_its_start_to_its_end(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    library = open_library(settings)
    make_ready(library, "red")

    def begin(worker: EnrichmentWorker) -> None:
        def stop_when_done() -> None:
            wait_until(lambda: counts(library).done == 1, WAIT)
            worker.stop()

        threading.Thread(target=stop_when_done).start()

    run_enricher("ocr", settings, begin, lambda *_: NameReader())
    assert image_of(library.database, "red").ocr_text == "it is red"
    written = "".join(path.read_text() for path in (settings.data_dir / "workers").glob(".enrich-ocr-*.prom"))
    assert 'sightline_enrichments_total{kind="ocr",outcome="done"} 1.0' in written
    library.close()


WITHOUT_SOCKETS = """
import os, socket, sys, threading, time
from app.core.settings import Settings
from app.decode.syscall_filter import refuse_sockets
from app.storage.tables import enrichments
from app.storage.tables.enrichments import Enrichment
from app.worker.enrich import run_enricher
class Reader:
    kind, seconds, memory = "ocr", 30.0, None
    def enrich(self, image, path):
        try:
            socket.socket()
        except PermissionError:
            assert path.read_bytes()
            return Enrichment({"ocr_text": "no socket"}, {"lines": []})
def open_reader(*_):
    refuse_sockets()
    return Reader()
began = time.monotonic()
def begin(worker):
    def stop():
        while worker._database.read(enrichments.count_all)["ocr"].done < 2 and time.monotonic() < began + 60:
            time.sleep(0.02)
        worker.stop()
    threading.Thread(target=stop).start()
run_enricher("ocr", Settings(), begin, open_reader)
"""


@pytest.mark.slow
def test_a_process_without_sockets_has_a_database_and_a_bucket(tmp_path: Path, postgresql: PostgresqlServer) -> None:
    if not is_supported():
        pytest.skip("this kernel has no filters of calls")
    with postgresql.database() as address, closing(Store("photos")) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.who.items():
            patch.setenv(name, value)
        chosen: dict[str, Any] = {"database": address, "media": "s3://photos/p", "s3_endpoint": store.url}
        settings = Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", **chosen)
        with closing(open_library(settings)) as library:
            make_ready(library, "red", "green")
            for name, given in {**chosen, "data_dir": tmp_path / "other", "cache_dir": tmp_path / "another"}.items():
                patch.setenv(f"SIGHTLINE_{name.upper()}", str(given))
            ended = subprocess.run([sys.executable, "-c", WITHOUT_SOCKETS], check=False, timeout=120)
            assert ended.returncode == 0
            assert {image_of(library.database, id).ocr_text for id in ("red", "green")} == {"no socket"}


def test_a_process_that_hangs_over_a_picture_is_killed() -> None:
    code = "import time; from app.worker.enrich import limit_seconds\nwith limit_seconds(0.2): time.sleep(60)"
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=WAIT)
    assert ended.returncode == -signal.SIGALRM
