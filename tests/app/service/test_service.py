from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.errors import ModelUnavailable, NotFound, Overloaded, StartupError
from app.core.settings import Settings
from app.core.types import Image, KeyScope, Lease, Status
from app.encoder.dummy import DummyEncoder
from app.search.query import SearchQuery
from app.search.query_encoder import QueryPart
from app.service.data_dir import open_library, picture_limits
from app.service.factory import archive_limits
from app.service.service import Service, open_service
from app.storage.database import Database
from app.storage.library import Library
from app.storage.model_check import check_space
from app.storage.tables import embeddings, work_queue
from index.milvus_client import MilvusClient
from index.sealed_segment import Depth
from index.segmented import SegmentedIndex
from tests.app.storage.test_model_check import stamp
from tests.index.deadline import shorten_timeouts
from tests.index.proxy import Proxy
from tests.index.sealed import sealed
from tests.support.makers import SPACE, add, add_bulk, claim
from tests.support.pictures import picture
from tests.support.servers import wait_until

WAIT = 20.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, model="colours", decoders=1)


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    service = open_service(settings)
    yield service
    service.close()


def start(service: Service) -> Service:
    service.start()
    search = service.search
    wait_until(lambda: not search.reasons_not_ready() or search.fatal, WAIT, search.reasons_not_ready)
    return service


def is_confirmed(service: Service, image: Image) -> bool:
    """Whether the service says that a search finds this ready picture."""
    return service.search.confirm_image(image) == image


def count_texts(service: Service) -> int:
    """How many texts the open index holds."""
    with service.search.model.indexes.use("default", "texts") as index:
        return index.ntotal


def test_a_worker_with_another_model_is_refused_while_the_directory_is_still_empty(service: Service) -> None:
    check_space(service.library.database, SPACE)
    start(service)
    check_space(service.library.database, DummyEncoder().space)
    with pytest.raises(StartupError, match="belongs to model colours"):
        check_space(service.library.database, SPACE)


def test_before_the_model_is_there_ready_says_so_and_pictures_are_taken_in(service: Service) -> None:
    assert service.search.reasons_not_ready() == ["the model colours is still loading"]
    with pytest.raises(ModelUnavailable, match="still loading"):
        _ = service.search.searcher
    with pytest.raises(ModelUnavailable):
        _ = service.search.model
    image = add(service.library, picture()).image
    assert image.status is Status.QUEUED
    assert service.search.describe_model() is None
    assert service.search.wait_until_applied("default", "images", 5)
    assert service.stats("default")["index"] is None


def test_when_the_model_is_there_it_is_ready_and_searches(service: Service) -> None:
    start(service)
    assert service.search.reasons_not_ready() == []
    assert service.search.searcher.search(SearchQuery([QueryPart(text="red")], k=3)).hits == []
    model = service.search.describe_model()
    assert model is not None
    assert (model["name"], model["d"], model["image_size"]) == ("colours", 60, 32)
    assert (model["knows"], model["languages"], model["max_tokens"]) == ("unknown", ["en", "zh"], None)
    assert "sees colours only" in str(model["hint"])
    assert service.stats("default")["model"] == model
    with pytest.raises(NotFound):
        service.stats("other")
    with pytest.raises(NotFound):
        service.search.searcher.search(SearchQuery([QueryPart(text="red")], collection="other"))


def test_a_choice_is_served_by_the_model_that_it_meant_here(settings: Settings) -> None:
    with closing(start(open_service(settings))) as first:  # as if an older version had meant this model
        space = first.search.model.encoder.space
        first.library.database.write(lambda c: embeddings.mark_served(c, space, "photos"))
    with closing(start(open_service(settings.model_copy(update={"model": "photos"})))) as second:
        model = second.search.describe_model()
        assert model is not None
        assert model["name"] == "colours"
        assert second.library.database.read(lambda c: embeddings.get_chosen_model(c, "photos")) == "colours"


def test_settle_waits_until_the_index_holds_the_entry(service: Service) -> None:
    start(service)
    encoder = DummyEncoder()
    packed = encoder.encode_texts(["red"])[0].tobytes()
    for n in range(20):
        _, seq = service.library.put_texts("default", encoder.space.fingerprint, [(f"t{n}", "red", {})], [packed])
        assert service.search.wait_until_applied("default", "texts", seq)
        assert count_texts(service) == n + 1
    assert service.search.wait_until_applied("default", "images", None)


def test_a_ready_picture_is_settled_when_a_search_finds_it(service: Service) -> None:
    start(service)
    image = add(service.library, picture("red"), id="one").image
    assert is_confirmed(service, image)  # queued, and nothing else
    encoder = DummyEncoder()
    packed = encoder.encode_texts(["red"])[0].tobytes()
    (lease,) = claim(service.library.database)
    fingerprint = encoder.space.fingerprint
    service.library.database.write(lambda c: work_queue.finish_image(c, lease, fingerprint, packed, 64, 48, False))
    ready = service.library.get("default", "one")
    assert is_confirmed(service, ready)
    assert [hit.id for hit in service.search.searcher.search(SearchQuery([QueryPart(text="red")], k=3)).hits] == ["one"]


def test_a_dead_encoder_thread_turns_it_red(service: Service) -> None:
    start(service)
    service.search.model.batcher.close()
    assert service.search.reasons_not_ready() == ["the encoder has stopped"]
    with pytest.raises(ModelUnavailable, match="the encoder has stopped"):
        _ = service.search.searcher


def test_an_index_that_stopped_following_turns_it_red(service: Service) -> None:
    start(service)
    service.search.model.indexes.close()
    assert service.search.reasons_not_ready() == ["the indexes have stopped following"]


def test_a_model_that_does_not_fit_the_directory_is_fatal(settings: Settings, database: Database) -> None:
    stamp(database, SPACE)
    service = open_service(settings)
    service.start()
    wait_until(lambda: service.search.fatal, WAIT)
    assert service.search.fatal is not None
    assert service.search.reasons_not_ready() == [service.search.fatal.detail]
    assert "sightline reembed" in service.search.fatal.detail
    service.close()


def test_a_directory_of_another_model_is_told_before_the_model_hub_is_asked(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: Any) -> Any:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("app.encoder.hub._download", ask)
    stamp(database, SPACE)
    service = open_service(settings.model_copy(update={"model": "hf-hub:org/other"}))
    service.start()
    wait_until(lambda: service.search.fatal, WAIT)
    assert service.search.fatal is not None
    assert f"belongs to model {SPACE.model}, not hf-hub:org/other" in service.search.fatal.detail
    service.close()


@pytest.mark.parametrize("held", ["nothing", "a key", "a download"])
def test_a_refused_start_leaves_no_new_directory_unless_something_is_in_it(held: str, tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    service = open_service(Settings(data_dir=data, model="colours", decoders=1))
    if held == "a key":
        service.api_keys.create("me", KeyScope.SEARCH)
    elif held == "a download":
        (data / "models").mkdir()
    service.close(refused=True)
    assert (tmp_path / "new").exists() is (held != "nothing")


def test_a_refused_start_leaves_a_directory_that_was_there(tmp_path: Path) -> None:
    service = open_service(Settings(data_dir=tmp_path, model="colours", decoders=1))
    service.close(refused=True)
    assert (tmp_path / "sightline.db").exists()


def test_a_second_service_on_one_directory_is_refused(service: Service, settings: Settings) -> None:
    with pytest.raises(StartupError, match="is in use by process"):
        open_service(settings)


def test_a_service_that_could_not_open_leaves_the_directory_free(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "sightline.db").write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(StartupError, match="is damaged"):
            open_service(settings)


def test_a_data_directory_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    for data_dir in (tmp_path / "data", tmp_path / "data" / "below"):
        with pytest.raises(StartupError) as refused:
            open_service(Settings(data_dir=data_dir, model="colours"))
        told = f"the data directory {data_dir} cannot be made: {tmp_path / 'data'} is there, and is no folder"
        assert refused.value.detail == told


def test_what_fails_in_the_background_is_told_beside_readiness(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("at /secret/place")

    monkeypatch.setattr(service.library, "collect_garbage", fail)
    start(service)
    wait_until(service.faults, WAIT)
    assert service.faults() == ["files that nothing uses are not removed: RuntimeError"]
    with service.search.model.indexes.use("default", "images"):
        pass
    broken = property(lambda _: OSError("/secret/place"), lambda *_: None)
    monkeypatch.setattr("index.follower.Follower.error", broken, raising=False)
    assert "the index of images of default does not follow its log: OSError" in service.faults()
    assert service.search.reasons_not_ready() == []


def test_start_sweeps_what_was_abandoned_and_keeps_what_still_waits(settings: Settings) -> None:
    service = open_service(settings)
    job = add_bulk(service.library, [("a.png", picture())])
    abandoned = service.library.create_upload_dir()
    for path in service.library.blobs.incoming.iterdir():
        os.utime(path, (0, 0))
    start(service)
    assert [path.name for path in service.library.blobs.incoming.iterdir()] == [f"{job.id}-0"]
    assert not abandoned.exists()
    service.close()


def test_after_a_restart_the_index_holds_what_it_held(settings: Settings) -> None:
    encoder = DummyEncoder()
    packed = encoder.encode_texts(["red"])[0].tobytes()
    others = set(threading.enumerate())
    for expected in (0, 1):
        service = start(open_service(settings))
        assert count_texts(service) == expected
        service.library.put_texts("default", encoder.space.fingerprint, [("t", "red", {})], [packed])
        service.close()
    left = set(threading.enumerate()) - others
    assert not any(thread.name in ("batcher", "sqlite-write") for thread in left)


def test_an_engine_that_is_away_stops_searches_and_nothing_else(
    settings: Settings, lite: MilvusClient, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_timeouts(monkeypatch)
    monkeypatch.setattr("app.service.search_service.MILVUS_RETRY_SECONDS", 0.1)
    proxy.mode = "silence"
    there = settings.model_copy(update={"index": f"milvus://127.0.0.1:{proxy.port}?index=FLAT"})
    service = open_service(there)
    service.start()
    wait_until(lambda: "does not answer" in service.search.reasons_not_ready()[0], WAIT)
    with pytest.raises(Overloaded, match="does not answer"):
        _ = service.search.searcher
    one = add(service.library, picture("red"), id="one").image
    assert one.status is Status.QUEUED
    proxy.mode = "pass"
    wait_until(lambda: not service.search.reasons_not_ready(), WAIT)
    finish_as_worker(service)
    wait_until(lambda: is_confirmed(service, service.library.get("default", "one")), WAIT)
    assert search_red(service) == ["one"]
    proxy.mode = "reset"
    add(service.library, picture("blue"), id="two")
    finish_as_worker(service)
    two = service.library.get("default", "two")
    wait_until(lambda: service.search.reasons_not_ready(), WAIT)
    assert (two.status, is_confirmed(service, two)) == (Status.READY, False)  # so that the API says processing
    with pytest.raises(Overloaded):
        search_red(service)
    proxy.mode = "pass"
    wait_until(lambda: not service.search.reasons_not_ready() and is_confirmed(service, two), WAIT)
    assert sorted(search_red(service)) == ["one", "two"]
    service.close()


def test_what_an_engine_has_and_no_row_knows_is_never_a_hit(
    settings: Settings, lite: MilvusClient, tmp_path: Path
) -> None:
    service = start(open_service(settings.model_copy(update={"index": f"milvus:{tmp_path / 'engine.db'}"})))
    add(service.library, picture("red"), id="one")
    finish_as_worker(service)
    wait_until(lambda: is_confirmed(service, service.library.get("default", "one")), WAIT)
    with service.search.model.indexes.use("default", "images") as index:
        vectors = DummyEncoder().encode_texts(["red"])
        for n in range(40):
            index.add(np.array([1000 + n], np.int64), vectors)
    assert search_red(service) == ["one"]
    service.close()


def finish_as_worker(service: Service) -> None:
    """What a worker does with the pictures that wait."""
    encoder = DummyEncoder()
    packed = encoder.encode_texts(["red"])[0].tobytes()

    def work(c: Any, lease: Lease) -> object:
        return work_queue.finish_image(c, lease, encoder.space.fingerprint, packed, 64, 48, False)

    for lease in claim(service.library.database):
        service.library.database.write(partial(work, lease=lease))


def search_red(service: Service) -> list[str]:
    return [hit.id for hit in service.search.searcher.search(SearchQuery([QueryPart(text="red")], k=3)).hits]


def test_limits_are_those_of_the_settings() -> None:
    settings = Settings(
        max_image_bytes=1, max_image_pixels=2, max_image_side=3, max_archive_bytes=4, max_archive_members=5
    )
    assert (picture_limits(settings).max_bytes, picture_limits(settings).max_pixels) == (1, 2)
    assert picture_limits(settings).max_side == 3
    limits = archive_limits(settings)
    assert (limits.max_bytes, limits.max_members, limits.max_member_bytes) == (4, 5, 1)


def test_pictures_without_their_database_are_not_taken_for_an_empty_directory(
    settings: Settings, library: Library
) -> None:
    add(library, picture())
    library.database.close()
    for file in settings.data_dir.glob("sightline.db*"):
        file.unlink()
    with pytest.raises(StartupError, match=r"is missing, but .* holds pictures"):
        open_library(settings)
    assert not (settings.data_dir / "sightline.db").exists()


def test_an_approximate_index_is_measured_and_ids_without_a_row_are_counted(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.search.recall.MIN_PAUSE", 0.01)
    monkeypatch.setattr("app.search.recall.MAX_TIME_SHARE", 0.9)  # of the time: this test has little of it
    start(service)
    rows = np.random.default_rng(1).normal(size=(3_000, 60)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    base = sealed(tmp_path / "base", np.arange(len(rows)), rows)
    base.params = replace(base.params, normal=Depth(1, 10, 0.99))  # as if calibrated on other queries than are asked
    opened = service.search.model.indexes._open
    opened["default", "images"] = replace(opened["default", "images"], index=SegmentedIndex(60, base))

    def recall() -> dict[str, Any]:
        told: Any = service.stats("default")
        assert told["index"]["texts"]["recall"] is None
        return told["index"]["images"]["recall"] or {"queries": 0}

    assert recall() == {"queries": 0}
    for row in rows[:24]:
        query = SearchQuery([QueryPart(vector=row.tolist())])
        assert service.search.searcher.search(query).hits == []  # no id has a row
    wait_until(lambda: recall()["queries"] > 0 and recall()["effort"] > 0, WAIT, recall)
    assert set(recall()) == {"at_10", "queries", "target", "effort", "updated_at"}
    assert recall()["target"] == 0.99
    assert (
        service.metrics.registry.get_sample_value("sightline_ghost_hits_total", {"target": "images"}) or 0
    ) >= 24 * 10
