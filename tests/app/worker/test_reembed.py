from __future__ import annotations

import io
import json
import threading
from concurrent.futures import Future
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.errors import Overloaded, StartupError
from app.core.settings import Settings
from app.decode.limits import ArchiveLimits
from app.decode.pool import DecodePool
from app.encoder.dummy import PALETTE, DummyEncoder
from app.encoder.protocol import Embeddings, Encoder
from app.service.reembed import FillOrder
from app.storage.library import Library
from app.storage.tables import collections, embeddings, job_control, jobs, next_space
from app.storage.tables.next_space import Superseded
from app.worker import reembed
from app.worker.embed import EmbeddingWorker, ModelChanged, WorkerOptions
from app.worker.importer import Importer
from app.worker.reembed import SpaceFiller, run_order
from tests.support.makers import FINGERPRINT, SPACE, VECTOR, FaultyEncoder, add, claim, finish, image_of
from tests.support.pictures import picture
from tests.support.servers import wait_until

NEW = DummyEncoder().space
RED = [names[0] for names in PALETTE].index("red")


@pytest.fixture
def filled_library(library: Library) -> Library:
    """Three pictures and a text of the model `small`."""
    for colour in ("red", "blue", "green"):
        add(library, picture(colour), id=colour)
    for lease in claim(library.database):
        finish(library.database, lease)
    library.put_texts("default", FINGERPRINT, [("t", "something blue 🚗", {})], [VECTOR])
    return library


def new_job(library: Library, *, begin: bool = True) -> str:
    def work(c: Any) -> str:
        id = jobs.create(c, "default", "reembed")
        if begin:
            next_space.begin(c, id, NEW, None)
        return id

    return library.database.write(work)


def cancel(library: Library, job: str) -> None:
    library.database.write(lambda c: job_control.cancel(c, job))
    library.drop_ended_space()


@pytest.fixture
def filler(filled_library: Library, pool: DecodePool) -> SpaceFiller:
    return make_filler(filled_library, pool)


def make_filler(library: Library, pool: DecodePool, encoder: Encoder | None = None) -> SpaceFiller:
    return SpaceFiller(library, encoder or DummyEncoder(), pool, new_job(library), batch_size=2)


def vector(library: Library, id: str) -> Embeddings | None:
    key = image_of(library.database, id).key
    packed = library.database.read(lambda c: embeddings.get_vectors(c, "images", [key], NEW.fingerprint)).get(key)
    return None if packed is None else np.frombuffer(packed, "<f4")


def row(library: Library) -> Any:
    return library.database.read(next_space.get)


def test_everything_is_encoded_by_the_new_model(filled_library: Library, filler: SpaceFiller) -> None:
    filler.fill()
    words = DummyEncoder().encode_texts(["red", "blue", "green"])
    for id, word in zip(("red", "blue", "green"), words, strict=True):
        found = vector(filled_library, id)
        assert found is not None
        assert float(found @ word) > 0.9
    assert (row(filled_library).done, row(filled_library).failed, row(filled_library).total) == (4, 0, 4)
    seq = row(filled_library).seq
    filler.fill()  # its own vectors are nothing new
    assert row(filled_library).done == 4
    assert row(filled_library).seq > seq
    assert filled_library.get_collection("default").space == SPACE


def test_a_picture_that_cannot_be_read_or_encoded_fails_alone(filled_library: Library, pool: DecodePool) -> None:
    gone = image_of(filled_library.database, "blue")
    filled_library.blobs.path(gone.sha256).unlink()
    torn = image_of(filled_library.database, "green")
    filled_library.blobs.path(torn.sha256).write_bytes(b"nothing")
    add(filled_library, picture("white"), id="white")
    finish(filled_library.database, claim(filled_library.database)[0])
    make_filler(filled_library, pool, FaultyEncoder(RED)).fill()
    assert [vector(filled_library, id) is not None for id in ("red", "blue", "green", "white")] == [
        False,
        False,
        False,
        True,
    ]
    assert (row(filled_library).done, row(filled_library).failed) == (2, 3)


class FaultyPool:
    """A pool that cannot decode at first."""

    def __init__(self, pool: DecodePool, faults: int) -> None:
        self.picture_limits = pool.picture_limits
        self._pool = pool
        self._faults = faults

    def submit(self, *task: Any) -> Future[Any]:
        if self._faults == 0:
            return self._pool.submit(*task)
        self._faults -= 1
        failed: Future[Any] = Future()
        failed.set_exception(Overloaded("no decoder can be started"))
        return failed


@pytest.mark.parametrize(("faults", "failed"), [(2, 0), (9, 3)])
def test_a_fault_of_the_machine_is_waited_out_for_a_while(
    filled_library: Library, pool: DecodePool, monkeypatch: pytest.MonkeyPatch, faults: int, failed: int
) -> None:
    monkeypatch.setattr(reembed, "FIRST_PAUSE", 0.0)
    make_filler(filled_library, FaultyPool(pool, faults)).fill()  # type: ignore[arg-type]
    assert row(filled_library).failed == failed


def test_it_follows_what_comes_in_until_its_job_ends(filled_library: Library, filler: SpaceFiller) -> None:
    ended: list[BaseException] = []

    def run() -> None:
        try:
            filler.run()
        except Superseded as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: row(filled_library).done == 4, 20)
    add(filled_library, picture("white"), id="white")
    finish(filled_library.database, claim(filled_library.database)[0])
    wait_until(lambda: vector(filled_library, "white") is not None, 20)
    cancel(filled_library, row(filled_library).job_id)
    filled_library.put_texts("default", FINGERPRINT, [("u", "another", {})], [VECTOR])
    thread.join(20)
    assert len(ended) == 1


def settings_of(library: Library) -> Settings:
    return Settings(data_dir=Path(library.database.address).parent, model="small", decoders=1)


def test_a_dry_run_measures_and_writes_nothing(filled_library: Library) -> None:
    said: list[dict[str, Any]] = []
    run_order(
        FillOrder(new_job(filled_library, begin=False), "colours", dry_run=True),
        settings_of(filled_library),
        said.append,
    )
    ((only),) = said
    assert (only["model"], only["space"], only["d"]) == ("colours", NEW.fingerprint, 60)
    assert only["rate"] > 0
    assert row(filled_library) is None
    assert vector(filled_library, "red") is None


def test_the_model_that_serves_is_refused(filled_library: Library) -> None:
    filled_library.database.write(lambda c: embeddings.save_space(c, NEW))
    filled_library.database.write(lambda c: c.execute("UPDATE collections SET space = ?", (NEW.fingerprint,)) and None)
    with pytest.raises(StartupError, match="belongs to the model colours already"):
        run_order(FillOrder("job", "colours"), settings_of(filled_library), print)


def test_the_process_says_why_it_ends(filled_library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings_of(filled_library).environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.nice", lambda _: 0)
    monkeypatch.setattr(reembed, "die_with_parent", lambda _: None)
    monkeypatch.setattr(reembed, "configure", lambda *_, **__: None)
    out = io.StringIO()
    with redirect_stdout(out):
        assert reembed.main(FillOrder("no job", "colours").to_json(), 1) == 0
        assert reembed.main(FillOrder("no job", "local-dir:/nowhere").to_json(), 1) == 1
        assert reembed.main(FillOrder(new_job(filled_library, begin=False), "colours", dry_run=True).to_json(), 1) == 0
    failed, measured = map(json.loads, out.getvalue().splitlines())
    assert "is missing" in failed["error"]
    assert measured["d"] == 60


@pytest.fixture
def worker(filled_library: Library, pool: DecodePool, tmp_path: Path) -> EmbeddingWorker:
    """A worker of the model that serves."""
    encoder = DummyEncoder()
    filled_library.database.write(lambda c: embeddings.delete_all(c))
    filled_library.database.write(lambda c: embeddings.mark_served(c, encoder.space))
    filled_library.database.write(lambda c: embeddings.save_golden(c, encoder.space.fingerprint, b"golden"))
    importer = Importer(filled_library, pool, ArchiveLimits(), 60.0, 60.0, 3)
    return EmbeddingWorker(filled_library, encoder, pool, importer, tmp_path / "workers", WorkerOptions(2, 60.0, 3, 32))


def test_a_worker_begins_nothing_while_it_is_held_and_ends_after_the_change(
    filled_library: Library, worker: EmbeddingWorker
) -> None:
    job = new_job(filled_library, begin=False)
    filled_library.database.write(lambda c: next_space.begin(c, job, SPACE, None))
    filled_library.database.write(lambda c: next_space.hold_workers(c, job, held=True))
    ended: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except ModelChanged as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    held = add(filled_library, picture("white"), id="white").image
    filled_library.database.write(lambda c: next_space.finish_round(c, job, 0))
    thread.join(1.0)
    assert image_of(filled_library.database, held.id).status.value == "queued"
    changed = filled_library.database.write(lambda c: next_space.change_places(c, job, b"golden", (), lambda _: [], 1))
    assert changed == 0
    thread.join(20)
    assert len(ended) == 1
    assert filled_library.database.read(collections.list_all)[0].space is None
