"""Labels in a service: pictures are tagged as they come and on request, by what the collection tells of nearness."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from app.core.errors import NotFound
from app.core.types import Image, Label
from app.service.labels import KIND
from app.service.service import Service
from app.storage.attributes import ImageAttributes
from app.storage.filters.model import Field
from app.storage.filters.parser import parse_filter
from app.storage.tables import collections, heads, images, label_sets
from tests.support.arrivals import arrive, clear, picture_of, running_service, tags_of, wait_job
from tests.support.lessons import ENCODER, make_captions, make_vectors
from tests.support.makers import new
from tests.support.servers import wait_until

COLOURS = ("red", "green", "blue", "white")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("labels") / "data") as one:
        yield one


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    """A service without a picture, and without labels."""
    yield shared
    clear(shared)


def make(*names: str, threshold: float = 0.5) -> list[Label]:
    return [Label(name, (name,), threshold) for name in names]


def wait_tags(service: Service, ids: list[str], wanted: list[list[str]]) -> None:
    wait_until(lambda: tags_of(service, ids) == wanted, 10.0, lambda: (tags_of(service, ids), service.faults()))


def set_labels(service: Service, labels: list[Label]) -> None:
    """Set the labels, and wait until what is there is tagged by them."""
    service.labels.set("default", labels)
    wait_until(
        lambda: not [job for job in service.jobs.list_recent(50) if job.is_task and job.finished_at is None], 20.0
    )


def reject(service: Service, id: str, tags: list[str]) -> Image:
    def keep(image: Image) -> ImageAttributes:
        return ImageAttributes(caption=image.caption, tags=image.tags, metadata=image.metadata)

    return service.library.update("default", id, keep, rejected=tags)


def test_new_pictures_get_the_labels_that_fit_with_their_probability(service: Service) -> None:
    set_labels(service, make(*COLOURS))
    ids = arrive(service, ["red", "a green thing", "blue"])
    wait_tags(service, ids, [["red"], ["green"], ["blue"]])
    image = picture_of(service, ids[0])
    assert 0.5 <= image.auto_tags["red"] <= 1
    assert image.tags == ()
    state = service.labels.get("default")
    assert state.tagged == {"red": 1, "green": 1, "blue": 1}
    assert state.way is not None
    assert state.way[2] == "shares"  # of a few pictures nothing else is known


def test_what_is_there_is_tagged_by_a_job_which_takes_off_what_is_no_label_any_more(service: Service) -> None:
    ids = arrive(service, ["red", "green"])
    state = service.labels.set("default", make("red", "green"))
    assert state.job_id is not None
    assert wait_job(service, state.job_id) == {
        "pictures": 2,
        "changed": 2,
        "tagged": 2,
        "labels": 2,
        "basis": "shares",
    }
    assert tags_of(service, ids) == [["red"], ["green"]]
    state = service.labels.set("default", make("green", "blue"))
    assert state.job_id is not None
    wait_job(service, state.job_id)
    # of green and blue, red is as near to both
    assert tags_of(service, ids)[1] == ["green"]
    assert "red" not in tags_of(service, ids)[0]
    state = service.labels.set("default", [])
    assert state.job_id is not None
    wait_job(service, state.job_id)
    assert tags_of(service, ids) == [[], []]
    assert service.labels.get("default").set is None
    assert wait_job(service, service.labels.apply("default").id) == {"pictures": 0, "changed": 0, "tagged": 0}


def test_labels_in_place_of_labels_that_were_taken_away_are_their_own(service: Service) -> None:
    set_labels(service, make("red", "green"))
    ids = arrive(service, ["red", "blue"])
    wait_until(lambda: tags_of(service, ids)[0] == ["red"], 10.0, service.faults)
    set_labels(service, [])
    assert tags_of(service, ids) == [[], []]
    set_labels(service, make("blue", "white"))
    assert "blue" in tags_of(service, ids)[1]
    assert "red" not in tags_of(service, ids)[0]


def test_a_rejected_tag_stays_away(service: Service) -> None:
    set_labels(service, make("red", "green"))
    (id,) = arrive(service, ["red"])
    wait_tags(service, [id], [["red"]])
    assert reject(service, id, ["red"]).auto_tags == {}
    wait_job(service, service.labels.apply("default").id)
    image = picture_of(service, id)
    assert (image.auto_tags, image.rejected_tags) == ({}, ("red",))
    reject(service, id, [])
    wait_job(service, service.labels.apply("default").id)
    assert tags_of(service, [id]) == [["red"]]
    with pytest.raises(NotFound):
        reject(service, "nobody", ["red"])


def test_filters_and_facets_know_auto_tags(service: Service) -> None:
    set_labels(service, make("red", "green"))
    ids = arrive(service, ["red", "green", "red"])
    red = parse_filter({"must": [{"key": "auto_tags", "match": {"value": "red"}}]}, "images")
    service.search.facets.filters.allowed_ids("default", red)  # before the pictures are tagged
    wait_tags(service, ids, [["red"], ["green"], ["red"]])
    keys = np.array([picture_of(service, id).key for id in ids], np.int64)
    found = service.search.facets.filters.allowed_ids("default", red)
    assert found.contains(keys).tolist() == [True, False, True]
    counted = service.search.facets.count("default", "images", [Field("auto_tags")], 5)
    assert counted == {"auto_tags": [("red", 2), ("green", 1)]}


def test_one_label_alone_tags_nothing_until_the_collection_is_measured(service: Service) -> None:
    set_labels(service, make("red"))
    ids = arrive(service, ["red", "green"])
    wait_until(lambda: service.labels.get("default").way is not None, 10.0)
    set_seq = partial(label_sets.get, collection="default")
    last = picture_of(service, ids[1]).embedded_seq or 0
    wait_until(lambda: (held := service.library.database.read(set_seq)) is not None and held.seq >= last, 10.0)
    assert tags_of(service, ids) == [[], []]
    way = service.labels.get("default").way
    assert way is not None
    assert way[2] == "none"


def test_a_calibrated_collection_judges_each_label_and_is_tagged_again_by_that(service: Service) -> None:
    set_labels(service, make("red", "green"))
    captions = make_captions(130)
    first = arrive(service, ["red"])
    wait_tags(service, first, [["red"]])
    vectors = make_vectors(captions, swapped=False)
    for n, caption in enumerate(captions):
        arrive(service, [caption], vectors[n : n + 1], caption=caption)
    wait_until(lambda: (way := service.labels.get("default").way) is not None and way[2] == "pairs", 30.0)
    wait_until(lambda: any(job.kind == KIND and job.state == "succeeded" for job in service.jobs.list_recent(5)), 20.0)
    held = service.library.database.read(partial(label_sets.get, collection="default"))
    assert held is not None
    wait_until(
        lambda: (
            (now := service.library.database.read(partial(label_sets.get, collection="default"))) is not None
            and now.applied is not None
            and now.applied["basis"] == "pairs"
        ),
        20.0,
    )


def test_a_head_makes_the_labels_anew(service: Service) -> None:
    set_labels(service, make("red", "green"))
    ids = arrive(service, ["red", "green"])
    wait_tags(service, ids, [["red"], ["green"]])
    swap = [*range(ENCODER.space.d)]
    red, green = 0, 3
    swap[red], swap[green] = green, red
    matrix = np.eye(ENCODER.space.d, dtype="<f4")[swap].tobytes()
    database = service.library.database
    head = database.write(
        lambda c: heads.save(
            c,
            collections.require(c, "default").label,
            ENCODER.space.fingerprint,
            matrix,
            {},
            maps_pictures=True,
        )
    )
    service.heads.use("default", head)
    wait_tags(service, ids, [["green"], ["red"]])


def test_other_bytes_lose_their_tags_and_get_new_ones(service: Service) -> None:
    set_labels(service, make("red", "green"))
    (id,) = arrive(service, ["red"])
    wait_tags(service, [id], [["red"]])
    reject(service, id, ["blue"])
    service.library.database.write(lambda c: images.add(c, "default", new(987_654, id), None, True))
    image = picture_of(service, id)
    assert (image.auto_tags, image.rejected_tags) == ({}, ())


def test_labels_go_with_their_collection(service: Service) -> None:
    service.library.create_collection("birds", "")
    service.labels.set("birds", make("red"))
    service.deleter.delete("birds")
    wait_until(lambda: not service.library.list_deletions(), 10.0)
    with pytest.raises(NotFound):
        service.labels.get("birds")
