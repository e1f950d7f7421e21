"""Heads in a service: taught by a task, put to use, and what searches make of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from app.core.errors import HeadRefused, NotFound, Validation
from app.core.settings import Settings
from app.core.types import EmbeddingSpace, Job, JobState
from app.encoder.protocol import normalise
from app.search import head_training
from app.search.query import SearchQuery, SearchResult
from app.search.query_encoder import QueryPart
from app.service.heads import TEACH, make_lesson, save_head
from app.service.pair_sets import pack_parameters
from app.service.service import Service, open_service
from app.sources.pairs import PairSet, StoredPairs, read_captions
from app.storage.tables import collections, embeddings, heads
from tests.support.lessons import ENCODER, NAMES, PERMUTED, fill_data_dir, make_captions, make_vectors
from tests.support.servers import wait_until

COUNT = 150
CAPTIONS = make_captions(COUNT)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of pictures whose captions swap colours; nothing of it is used up by a test."""
    folder = tmp_path_factory.mktemp("data")
    fill_data_dir(folder, CAPTIONS, make_vectors(CAPTIONS))
    service = open_service(Settings(data_dir=folder, model="colours", decoders=1))
    service.start()
    wait_until(lambda: not service.search.reasons_not_ready(), 20.0, service.search.reasons_not_ready)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_training, "MAX_STEPS", 200)  # few and long ones are enough for twelve colours
        patch.setattr(head_training, "RATE", 5e-3)
        yield service
    service.close()


@pytest.fixture(scope="module")
def taught(service: Service) -> str:
    """The id of the head that the captions teach."""
    job = run_task(service)
    assert job.state is JobState.SUCCEEDED, job.error
    assert service.library.get_collection("default").head == (job.result or {})["head"]
    return str((job.result or {})["head"])


@pytest.fixture
def head(service: Service, taught: str) -> Iterator[str]:
    """That head, in use."""
    service.heads.use("default", taught)
    yield taught
    service.heads.use("default", None)


def run_task(service: Service, pairs: PairSet | None = None, *, dry_run: bool = False, take_on: bool = True) -> Job:
    """The ended job of teaching."""
    given = pack_parameters(pairs) if pairs is not None else {"source": "captions"}
    made = service.jobs.add_task("default", TEACH, {**given, "dry_run": dry_run, "take_on": take_on})
    ended = (JobState.SUCCEEDED, JobState.FAILED)
    wait_until(lambda: service.jobs.get(made.id).state in ended, 60.0, lambda: service.jobs.get(made.id))
    return service.jobs.get(made.id)


def search(service: Service, words: str, **options: Any) -> SearchResult:
    return service.search.searcher.search(SearchQuery([QueryPart(text=words)], mode="vector", **options))


def name_as_shown(caption: str) -> str:
    """The colours of the picture, in the encoder's own words."""
    return " ".join(NAMES[PERMUTED[NAMES.index(name)]] for name in caption.split())


def test_a_taught_collection_finds_what_its_captions_mean(service: Service, head: str) -> None:
    (used,) = service.heads.list_all("default")
    assert (used.id, used.is_used, used.space) == (head, True, ENCODER.space.fingerprint)
    assert service.library.get_collection("default").head == head
    before = search(service, CAPTIONS[0], exact=True)
    after = search(service, CAPTIONS[0])
    assert (before.head, after.head) == (None, head)
    assert "p0" not in [hit.id for hit in before.hits]
    assert "p0" in [hit.id for hit in after.hits]
    assert search(service, name_as_shown(CAPTIONS[0]), exact=True).hits[0].id == "p0"
    figures = service.heads.get(head).figures
    assert figures["text_to_image"]["after"]["R@10"] > figures["text_to_image"]["before"]["R@10"]


def test_only_words_that_look_for_pictures_go_through_a_head(service: Service, head: str) -> None:
    searcher = service.search.searcher
    plain = ENCODER.encode_texts([CAPTIONS[0]])[0]
    assert np.allclose(searcher.embed("default", [QueryPart(text=CAPTIONS[0])]), plain)
    for part in (QueryPart(image_id="p0"), QueryPart(vector=plain.tolist())):
        found = searcher.search(SearchQuery([part]))
        assert found.head is None
    assert searcher.search(SearchQuery([QueryPart(text="red")], "texts")).head is None
    assert searcher.search(SearchQuery([QueryPart(image_id="p0")], "texts")).head == head
    both = [QueryPart(text=CAPTIONS[0]), QueryPart(image_id="p1")]
    found = searcher.search(SearchQuery(both))
    assert found.head == head
    used = searcher.heads.get("default")
    assert used is not None
    picture = searcher.embed("default", [QueryPart(image_id="p1")])
    mixed = normalise(used.map_texts(plain[None]) + picture)[0]
    assert {hit.id: hit.score for hit in found.hits}["p1"] == pytest.approx(float(mixed @ picture), abs=1e-4)


def test_a_classification_goes_through_the_head(service: Service, head: str) -> None:
    labels = CAPTIONS[:5]
    with_head = service.search.searcher.zero_shot.classify("default", QueryPart(image_id="p3"), labels, "{}")
    service.heads.use("default", None)
    without = service.search.searcher.zero_shot.classify("default", QueryPart(image_id="p3"), labels, "{}")
    assert with_head[0][0] == CAPTIONS[3]
    assert dict(with_head)[CAPTIONS[3]] > dict(without)[CAPTIONS[3]]


def test_taking_a_head_off_gives_the_plain_search_back(service: Service, head: str) -> None:
    plain = search(service, CAPTIONS[1], exact=True)
    service.heads.use("default", None)
    now = search(service, CAPTIONS[1])
    assert now.head is None
    assert [(hit.id, hit.score) for hit in now.hits] == [(hit.id, hit.score) for hit in plain.hits]
    service.heads.use("default", head)
    assert "p1" in [hit.id for hit in search(service, CAPTIONS[1]).hits]


def test_a_head_may_be_kept_without_use_or_not_at_all(service: Service, taught: str) -> None:
    service.heads.delete(taught)
    tried = run_task(service, dry_run=True)
    assert tried.result
    assert (tried.state, tried.result.get("head"), tried.result["gain"] > 0) == (JobState.SUCCEEDED, None, True)
    assert service.heads.list_all() == []
    kept = run_task(service, take_on=False)
    assert kept.result
    assert kept.result["head"] == taught  # the same pairs teach the same
    assert service.library.get_collection("default").head is None
    assert [one.is_used for one in service.heads.list_all()] == [False]


def test_pairs_of_other_pictures_are_refused_with_their_figures(service: Service) -> None:
    mixed = np.random.default_rng(2).permutation(COUNT)
    pairs = PairSet.of((f"p{n}", [CAPTIONS[other]]) for n, other in enumerate(mixed))
    job = run_task(service, pairs)
    assert job.state is JobState.FAILED
    assert job.error
    assert job.error.code == "head_refused"
    assert "% of" in job.error.detail or "held-out texts" in job.error.detail
    assert job.result
    assert job.result["text_to_image"]["after"]["n"] > 30
    assert "head" not in job.result
    assert service.library.get_collection("default").head is None


@pytest.mark.parametrize(
    ("pairs", "detail"),
    [
        ([(f"p{n}", [CAPTIONS[n]]) for n in range(3)], "3 distinct texts are too few to teach with: 100 are needed"),
        ([(f"p{n}", ["a thing"]) for n in range(COUNT)], "0 distinct texts (150 more belong to many pictures each)"),
        ([(f"p{n}", ["nan"]) for n in range(COUNT)], "0 distinct texts (150 more"),
        ([("none.jpg", ["red"])], "none of the pictures of the set is one of the collection 'default'"),
    ],
)
def test_sets_that_teach_nothing_are_refused(service: Service, pairs: list[Any], detail: str) -> None:
    job = run_task(service, PairSet.of(pairs))
    assert job.state is JobState.FAILED
    assert job.error
    assert (job.error.code, detail in job.error.detail) == ("head_refused", True), job.error.detail


def test_a_set_tells_what_it_does_not_find(service: Service) -> None:
    pairs = PairSet.of([*((f"p{n}", [CAPTIONS[n]]) for n in range(COUNT)), ("gone.png", ["red"])])
    job = run_task(service, pairs, dry_run=True)
    assert job.result
    assert job.result["unknown"] == {"count": 1, "names": ["gone.png"]}
    assert job.result["texts"] == job.result["pictures"] == COUNT


def test_a_collection_uses_only_its_own_heads_of_its_own_space(service: Service, head: str) -> None:
    service.library.create_collection("birds", "")
    with pytest.raises(Validation, match="is one of the collection 'default'"):
        service.heads.use("birds", head)
    for call in (service.heads.get, service.heads.delete, lambda id: service.heads.use("default", id)):
        with pytest.raises(NotFound):
            call("0" * 16)
    with pytest.raises(NotFound):
        service.heads.use("none", None)
    with pytest.raises(NotFound):
        service.heads.list_all("none")


def test_a_head_of_another_model_counts_for_nothing_and_answers_say_so(service: Service) -> None:
    other = EmbeddingSpace("other", "0" * 64, 60, "1" * 64)
    database, matrix = service.library.database, np.eye(60, dtype="<f4").tobytes()
    database.write(lambda c: embeddings.save_space(c, other))
    id = database.write(lambda c: heads.save(c, "default", other.fingerprint, matrix, {}, maps_pictures=True))
    with pytest.raises(Validation, match="was taught for other; the vectors of the collection are of colours"):
        service.heads.use("default", id)
    database.write(lambda c: heads.use(c, "default", id))  # as after a change of the model
    found = search(service, "red")
    assert (found.head, [one.code for one in found.warnings]) == (None, ["head_inactive"])
    assert not search(service, "red", exact=True).warnings
    service.heads.delete(id)
    assert not search(service, "red").warnings


def test_a_collection_that_changes_meanwhile_gets_no_head(service: Service) -> None:
    database = service.library.database
    service.library.create_collection("changing", "")
    collection = database.read(lambda c: collections.require(c, "changing"))
    stored = read_captions(database, "default")
    vectors = database.read(lambda c: embeddings.get_vectors(c, "images", stored.keys))
    lesson = make_lesson(collection, stored, vectors)
    service.library.begin_deletion("changing")
    with pytest.raises(HeadRefused, match="was changed while"):
        database.write(lambda c: save_head(c, lesson, b"0000", {}, maps_pictures=True, take_on=True))


def test_pictures_without_a_vector_are_left_out(service: Service) -> None:
    database = service.library.database
    collection = database.read(lambda c: collections.require(c, "default"))
    stored = StoredPairs(PairSet.of([("a", ["x"]), ("b", ["y"])]), [1, 2], ["a", "b"])
    vector = ENCODER.encode_texts(["red"])[0].tobytes()
    assert make_lesson(collection, stored, {2: vector}).ids == ["b"]


def test_a_collection_without_vectors_of_the_model_is_refused(service: Service) -> None:
    made = service.library.create_collection("empty", "")
    job = service.jobs.add_task(made.name, TEACH, pack_parameters(PairSet.of([("a", ["b"])])))
    wait_until(lambda: service.jobs.get(job.id).state is JobState.FAILED, 20.0)
    error = service.jobs.get(job.id).error
    assert error
    assert (error.code, "has no vectors of the model colours" in error.detail) == ("head_refused", True)
    job = service.jobs.add_task(made.name, TEACH, {"source": "captions"})
    wait_until(lambda: service.jobs.get(job.id).state is JobState.FAILED, 20.0)
    error = service.jobs.get(job.id).error
    assert error
    assert error.code == "validation"
    assert "no picture of the collection 'empty' has a caption" in error.detail
