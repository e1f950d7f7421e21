from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import Overloaded, Validation
from app.core.settings import Settings
from app.core.types import JobState
from app.decode.pool import DecodePool
from app.encoder.dummy import DummyEncoder
from app.service import evaluation, pair_sets
from app.service.evaluation import PairEncoder, choose_texts, prepare_files, retry_while_busy, validate_ks
from app.service.service import Service, open_service
from app.sources.pairs import LeftOutNames, PairSet, read_captions, read_pairs
from app.storage.tables import embeddings
from tests.support.makers import SPACE, claim, finish, insert
from tests.support.pictures import picture
from tests.support.servers import wait_until


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = open_service(Settings(data_dir=tmp_path / "data", model="colours", decoders=1, folders=str(tmp_path)))
    yield service
    service.close()


@pytest.fixture
def encoder(pool: DecodePool) -> PairEncoder:
    dummy = DummyEncoder()
    return PairEncoder(dummy, pool, dummy.encode_texts, dummy.encode_images)


def test_files_that_cannot_be_read_are_named(encoder: PairEncoder, tmp_path: Path) -> None:
    pairs = PairSet.of((name, ["red"]) for name in ("a.png", "b.png", "c.png", "d.png"))
    (tmp_path / "a.png").write_bytes(picture("red"))
    (tmp_path / "b.png").write_bytes(b"no picture")
    steps: list[int] = []
    files = {0: tmp_path / "a.png", 1: tmp_path / "b.png", 3: tmp_path / "gone.png"}
    found = prepare_files(pairs, files, LeftOutNames(1, ["c.png"]), encoder, steps.append)
    assert (found.pairs.pictures, found.unreadable.names, found.unknown.names) == (
        ["a.png"],
        ["b.png", "d.png"],
        ["c.png"],
    )
    assert (found.images.shape, sum(steps)) == ((1, 60), 3)
    with pytest.raises(Validation, match=r"none of the 4 pictures of the set can be read, such as b\.png"):
        prepare_files(pairs, {1: tmp_path / "b.png"}, LeftOutNames(), encoder, steps.append)


def test_a_pool_that_stops_is_no_fault_of_the_pictures(tmp_path: Path) -> None:
    dummy = DummyEncoder()
    with DecodePool(1) as pool:
        encoder = PairEncoder(dummy, pool, dummy.encode_texts, dummy.encode_images)
    with pytest.raises(Overloaded):
        encoder.embed_pictures({0: tmp_path / "a.png"}, lambda _: None)


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BUSY_SECONDS", 0.0)
    refused = iter([True, True, False])
    steps: list[int] = []

    def call() -> str:
        if next(refused, True):
            raise Overloaded("busy")
        return "found"

    assert retry_while_busy(call, steps.append) == "found"
    assert steps == [0, 0]
    with pytest.raises(Overloaded):
        retry_while_busy(call, steps.append)
    assert len(steps) == 2 + evaluation.BUSY_TRIES


def test_many_texts_are_a_sample_that_stays() -> None:
    pairs = PairSet.of((str(n), [f"text {n}"]) for n in range(3_000))
    chosen = choose_texts(pairs)
    assert len(set(chosen)) == evaluation.SEARCHED_TEXTS
    assert chosen == sorted(choose_texts(pairs))
    assert choose_texts(PairSet.of([("a", ["b", "c"])])) == [0, 1]


def test_only_k_of_a_search_are_taken() -> None:
    assert validate_ks([5, 1, 5]) == [1, 5]
    assert validate_ks(None) == [1, 5, 10]
    for wrong in ([0], [101], list(range(1, 12))):
        with pytest.raises(Validation):
            validate_ks(wrong)


def test_pictures_without_vectors_are_left_out(service: Service) -> None:
    database = service.library.database
    for n in range(3):
        insert(database, n, f"p{n}", caption=f"red {n}")
    for lease in claim(database):
        finish(database, lease)
    database.write(lambda c: embeddings.remove(c, "images", 1))
    task = evaluation.EvaluationTask(database, service.pool, service.search, service.source_policy)
    stored = read_captions(database, "default")
    prepared = task._with_vectors(stored, lambda: None)
    assert (prepared.ids, prepared.unknown.names) == (["p1", "p2"], ["p0"])
    assert prepared.images.shape == (2, SPACE.d)


def test_a_cancelled_evaluation_ends(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set.csv").write_text("id,text\np1,red\n")
    said = {"source": f"pairs:{tmp_path / 'set.csv'}", "split": "test", "k": [1]}
    job = service.jobs.add_task("default", evaluation.EVALUATE, said)
    read = read_pairs

    def cancel_and_read(*args: object) -> PairSet:
        service.jobs.cancel(job.id)
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(pair_sets, "read_pairs", cancel_and_read)
    service.start()
    wait_until(lambda: service.jobs.get(job.id).state is JobState.CANCELLED, 30.0)
    assert service.jobs.get(job.id).result is None
