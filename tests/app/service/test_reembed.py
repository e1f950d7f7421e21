from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.core.errors import ModelUnavailable, Overloaded, StorageFull, Validation
from app.core.settings import Settings
from app.core.types import EmbeddingSpace, Job, JobState, Lease
from app.search.query import SearchQuery
from app.search.query_encoder import QueryPart
from app.service import reembed
from app.service.reembed import FillingChild, FillOrder, check_stored_formats, estimate_minutes, estimate_vector_bytes
from app.service.service import Service, open_service
from app.storage.address import open_database
from app.storage.tables import embeddings, next_space, work_queue
from app.storage.tables.tasks import REEMBED
from tests.app.encoder.small import make_model
from tests.support.makers import add, claim
from tests.support.pictures import picture
from tests.support.servers import wait_until

WAIT = 60.0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def service(tmp_path: Path, small: str) -> Iterator[Service]:
    """A service with the small model, run in torch as that need not be converted, and three pictures and a text."""
    service = start(Settings(data_dir=tmp_path, model=small, runtime="torch", decoders=1))
    model = service.search.model
    space = model.encoder.space.fingerprint
    vector = model.searcher.encode_texts(["red"])[0]
    for colour in ("red", "blue", "green"):
        add(service.library, picture(colour), id=colour)
    for lease in claim(service.library.database):
        service.library.database.write(partial(finish_image, lease=lease, space=space, vector=vector))
    service.library.put_texts("default", space, [("t", "something blue", {})], [vector], truncated=[True])
    yield service
    service.close()


def finish_image(c: Any, lease: Lease, space: str, vector: bytes) -> None:
    work_queue.finish_image(c, lease, space, vector, 64, 48, False)


def start(settings: Settings) -> Service:
    service = open_service(settings)
    service.start()
    wait_until(lambda: not service.search.reasons_not_ready(), WAIT, service.search.reasons_not_ready)
    return service


def begin(service: Service, model: str = "colours", **said: Any) -> Job:
    return service.jobs.add_task("default", REEMBED, {"model": model, **said})


def wait_for_end(service: Service, job: Job) -> Job:
    wait_until(lambda: service.jobs.get(job.id).finished_at, WAIT, lambda: service.jobs.get(job.id))
    return service.jobs.get(job.id)


def search(service: Service) -> str:
    """The model that answers, and its first hit."""
    query = SearchQuery([QueryPart(text="red")], k=3, mode="vector")
    found = service.search.searcher.search(query)
    return f"{found.model} {found.hits[0].id if len(found.hits) == 3 else found.hits}"


def test_searches_change_to_the_new_model_and_a_restart_keeps_it(
    service: Service, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.search_service.RETIRE_SECONDS", 0.0)
    assert search(service).startswith(small)
    former = service.search.model
    ended = wait_for_end(service, begin(service))
    assert (ended.state, ended.error) == (JobState.SUCCEEDED, None)
    assert ended.result is not None
    assert (ended.result["pictures"], ended.result["texts"], ended.result["d"]) == (3, 1, 60)
    wait_until(lambda: search(service) == "colours red", WAIT)
    service.search.wait_for_other_model(former)
    assert [one["model"] for one in service.search.describe_spaces()] == ["colours"]
    database = service.library.database
    wait_until(lambda: not database.read(next_space.has_unused), WAIT)
    wait_until(lambda: service.library.get_text("default", "t").truncated is False, WAIT)
    service.close()
    again = start(service.settings)
    try:
        assert search(again) == "colours red"
    finally:
        again.close()


def test_a_dry_run_tells_what_it_costs(service: Service, small: str) -> None:
    ended = wait_for_end(service, begin(service, dry_run=True))
    assert ended.state is JobState.SUCCEEDED
    assert ended.result is not None
    assert ended.result["pictures_per_second"] > 0
    assert ended.result["minutes"] == pytest.approx(0, abs=1)
    assert ended.result["present_model"] == small
    assert search(service).startswith(small)
    assert service.library.database.read(next_space.get) is None


def test_a_dry_run_downloads_nothing(service: Service) -> None:
    ended = wait_for_end(service, begin(service, "hf-hub:nobody/nothing", dry_run=True))
    assert ended.state is JobState.SUCCEEDED
    assert ended.result is not None
    assert (ended.result["pictures"], ended.result["minutes"]) == (3, None)


def test_a_job_that_is_cancelled_leaves_the_former_space(
    service: Service, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.changer, "_finish", lambda context, *_: wait_for_ever(context))
    job = begin(service)
    database = service.library.database
    wait_until(lambda: (found := database.read(next_space.get)) and found.done == 4, WAIT)
    assert [one["state"] for one in service.search.describe_spaces()] == ["serving", "filling"]
    service.jobs.cancel(job.id)
    wait_until(lambda: database.read(next_space.get) is None, WAIT)
    wait_until(lambda: not database.read(next_space.has_unused), WAIT)
    assert search(service).startswith(small)


def wait_for_ever(context: Any) -> None:
    while True:
        context.check()


def test_a_change_is_refused_while_pictures_of_formats_that_are_off_are_stored(service: Service, small: str) -> None:
    service.library.database.write(lambda c: c.execute("UPDATE images SET format = 'heic' WHERE id = 'red'"))
    check_stored_formats(service.library.database, service.settings)
    without = service.settings.model_copy(update={"formats": "-heic"})
    with pytest.raises(Validation, match=r"1 HEIC; allow these formats \(SIGHTLINE_FORMATS\)"):
        check_stored_formats(service.library.database, without)


def test_a_model_whose_weights_are_damaged_is_refused(service: Service, small: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small.removeprefix("local-dir:"), broken)
    (broken / "open_clip_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(Validation, match="is no safetensors file"):
        service.changer.plan(f"local-dir:{broken}")
    ended = wait_for_end(service, begin(service, f"local-dir:{broken}"))
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.code == "validation"
    assert search(service).startswith(small)


def test_a_plan_is_refused_where_disk_or_memory_does_not_suffice(service: Service, small: str) -> None:
    plan = service.changer.plan("colours")
    plan.check(service.settings)
    assert (plan.pictures, plan.texts, plan.precomputed, plan.memory_bytes) == (3, 1, 0, 0)
    full = replace(plan, free_bytes=1)
    with pytest.raises(StorageFull, match="are free"):
        full.check(service.settings)
    large = replace(plan, memory_bytes=2 << 40, free_memory_bytes=1 << 30)
    with pytest.raises(Overloaded, match="SIGHTLINE_IGNORE_MEMORY"):
        large.check(service.settings)
    large.check(service.settings.model_copy(update={"ignore_memory": True}))
    assert service.changer.plan(small).memory_bytes  # a local file may have other weights now
    away = service.changer.plan("hf-hub:nobody/nothing")  # to be downloaded: nothing is known of it
    assert (away.d, away.memory_bytes, away.model_bytes) == (24, None, 0)
    with pytest.raises(Validation, match="unknown model"):
        service.changer.plan("nothing like it")


@pytest.mark.parametrize("d", [60, 512, 1152])
def test_the_log_grows_by_about_what_is_estimated(tmp_path: Path, d: int) -> None:
    space, count = EmbeddingSpace("model", "0" * 64, d, "1" * 64), 500
    vector = bytes(4 * d)

    def work(c: Any) -> None:
        embeddings.save_space(c, space)
        for key in range(count):
            embeddings.add(c, "default", space.fingerprint, "images", key, vector)

    sizes = []
    for change in (lambda _: None, work):
        with closing(open_database(tmp_path / "sightline.db")) as database:
            database.write(change)
        sizes.append((tmp_path / "sightline.db").stat().st_size)
    indexes = 4 * d * count
    assert sizes[1] - sizes[0] == pytest.approx(estimate_vector_bytes(count, d) - indexes, rel=0.1)


def test_minutes_are_known_where_a_rate_was_measured() -> None:
    plan = SimpleNamespace(pictures=1200)
    assert estimate_minutes(plan, 10.0) == 2.0  # type: ignore[arg-type]
    assert estimate_minutes(plan, None) is None  # type: ignore[arg-type]


def test_a_child_that_dies_again_and_again_fails_the_job(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "nothing", model="colours")
    with reembed.run_child(FillOrder("job", "local-dir:/nowhere"), settings) as child:
        assert isinstance(child, FillingChild)
        with pytest.raises(ModelUnavailable, match="is missing"):
            child.wait_ready(lambda: None)
    with reembed.run_child(FillOrder("job", "colours"), settings) as child:
        for _ in range(reembed.MAX_DEATHS):
            child.kill()
            child.require_alive()
        child.kill()
        with pytest.raises(ModelUnavailable, match="memory may have run out"):
            child.require_alive()


def test_the_vectors_of_a_former_space_are_deleted_when_nobody_searches_it(service: Service) -> None:
    database = service.library.database
    other = replace(service.search.model.encoder.space, weights="f" * 64)

    def work(c: Any) -> None:
        embeddings.save_space(c, other)
        embeddings.add(c, "default", other.fingerprint, "images", 1, b"")

    database.write(work)
    service.search._is_retiring.set()
    service.deleter.wake()
    assert database.read(next_space.has_unused)
    service.search._is_retiring.clear()
    service.deleter.wake()
    wait_until(lambda: not database.read(next_space.has_unused), WAIT)
