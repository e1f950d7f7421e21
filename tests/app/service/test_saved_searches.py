"""Saved searches in a service: what they find, count, tell and send; also over a restart and with bad receivers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import NotFound, UrlNotAllowed, Validation
from app.service import webhooks
from app.service.saved_searches import MAX_SEARCHES, Changes, Counted
from app.service.service import Service
from app.service.webhooks import MAX_FAILURES, WebhookLoop, choose_pause
from app.storage.tables import images, saved_searches
from tests.support.arrivals import arrive, clear, delete, running_service
from tests.support.lessons import make_captions, make_vectors
from tests.support.makers import new
from tests.support.receivers import Receiver
from tests.support.servers import wait_until

RED = {"query": [{"text": "red"}], "score_threshold": 0.8}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that sends webhooks to this machine, and repeats them soon."""
    folder = tmp_path_factory.mktemp("saved") / "data"
    with running_service(folder, webhooks=True, fetch_also="127.0.0.1") as one:
        assert one.webhooks is not None
        one.webhooks._choose_pause = lambda failures, wait=0.0: 0.05
        yield one


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    """That service, without a picture and without a saved search."""
    yield shared
    clear(shared)


def save(service: Service, query: Mapping[str, Any] = RED, match: str | None = None, url: str | None = None) -> str:
    return service.saved_searches.add("default", "mine", query, match, url).search.id


def wait_found(service: Service, id: str, total: int, new: int) -> Counted:
    """The saved search once it has found so many pictures, of which so many are new."""

    def has_found() -> bool:
        count = service.saved_searches.get(id).count
        return (count.total, count.new, count.is_complete) == (total, new, True)

    wait_until(has_found, 10.0, lambda: (service.saved_searches.get(id), service.faults()))
    return service.saved_searches.get(id)


def found_ids(service: Service, id: str) -> list[str]:
    return [image.id for _, image in service.saved_searches.list_matches(id, 100, None)]


def test_what_is_there_counts_and_what_comes_later_is_new(service: Service) -> None:
    old = arrive(service, ["red", "green"])
    id = save(service)
    wait_found(service, id, 1, 0)
    new = arrive(service, ["blue", "red"])
    counted = wait_found(service, id, 2, 1)
    assert found_ids(service, id) == [new[1], old[0]]
    ((match, image),) = service.saved_searches.list_news(id, 10, 0)
    assert (image.id, match.matched, match.n) == (new[1], ("vector",), counted.count.last)
    assert match.score is not None
    assert match.score >= 0.8
    assert service.saved_searches.get_last_match(id) == counted.count.last
    assert service.saved_searches.change(id, Changes(seen=True)).count.new == 0
    delete(service, new[1])
    wait_found(service, id, 1, 0)


def test_a_picture_with_other_bytes_is_no_match_any_more(service: Service) -> None:
    id = save(service)
    (found,) = arrive(service, ["red"])
    wait_found(service, id, 1, 1)
    service.library.database.write(lambda c: images.add(c, "default", new(999_999, found), None, True))
    assert found_ids(service, id) == []
    wait_found(service, id, 0, 0)
    delete(service, found)  # which waits for a worker


def test_a_picture_of_the_query_that_is_deleted_later_is_an_error(service: Service) -> None:
    (asked,) = arrive(service, ["red"])
    id = save(service, {"query": [{"image_id": asked}], "score_threshold": 0.8})
    wait_found(service, id, 1, 0)
    delete(service, asked)
    arrive(service, ["red"])
    wait_until(lambda: service.saved_searches.get(id).search.error, 10.0, service.faults)


def test_words_match_too_and_a_filter_must_let_the_picture_through(service: Service) -> None:
    said = {"query": [{"text": "old harbour"}], "score_threshold": 1.0}
    words = save(service, said)
    narrow = save(service, {**said, "filter": {"must": [{"key": "tags", "match": {"value": "night"}}]}})
    only = save(service, {"query": [{"text": "old harbour"}], "mode": "keyword"})
    day = arrive(service, ["red"], caption="The harbour of the old town")
    night = arrive(service, ["red"], caption="the old harbours", tags=("night",))
    arrive(service, ["red"], caption="an old town")
    wait_found(service, words, 2, 2)
    assert found_ids(service, words) == [*night, *day]
    wait_found(service, narrow, 1, 1)
    assert found_ids(service, narrow) == night
    wait_found(service, only, 2, 2)
    ((match, _), *_) = service.saved_searches.list_matches(only, 1, None)
    assert (match.score, match.matched) == (None, ("keyword",))


def test_good_means_what_the_verdict_means(service: Service) -> None:
    captions = make_captions(130)
    vectors = make_vectors(captions, swapped=False)
    for n, caption in enumerate(captions):
        arrive(service, [caption], vectors[n : n + 1], caption=caption)
    wanted = "red green blue"
    id = save(service, {"query": [{"text": wanted}], "mode": "vector"}, "good")
    wait_until(lambda: service.saved_searches.get(id).count.is_complete, 30.0)
    before = service.saved_searches.get(id).count.total
    assert before < len(captions)
    profiles = service.search.searcher.profiles
    assert profiles.is_calibrated("default")
    arrive(service, [wanted, "purple pink"])
    wait_found(service, id, before + 1, 1)
    unknown = save(service, {"query": [{"text": wanted}], "mode": "vector", "score_threshold": 0.999}, "good")
    wait_until(lambda: service.saved_searches.get(unknown).count.is_complete, 30.0)
    assert service.saved_searches.get(unknown).count.total <= before + 1


def test_of_a_collection_that_is_not_calibrated_nothing_is_good(service: Service) -> None:
    id = save(service, {"query": [{"text": "red"}], "mode": "vector"}, "good")
    arrive(service, ["red"])
    wait_until(lambda: service.saved_searches.get(id).count.is_complete, 20.0)
    assert service.saved_searches.get(id).count.total == 0


def test_a_picture_in_the_query_that_is_deleted_is_told(service: Service) -> None:
    (liked,) = arrive(service, ["red"])
    id = save(service, {"query": [{"image_id": liked}], "score_threshold": 0.9})
    wait_found(service, id, 1, 0)
    delete(service, liked)
    service.arrivals._prepared.clear()  # as after a restart
    arrive(service, ["red"])
    wait_until(lambda: service.saved_searches.get(id).search.error is not None, 10.0)
    assert "there is no image" in (service.saved_searches.get(id).search.error or "")
    service.saved_searches.change(id, Changes(query=RED))
    assert service.saved_searches.get(id).search.error is None
    wait_found(service, id, 1, 0)


def test_limits_and_what_is_not_there(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(MAX_SEARCHES):
        save(service)
    with pytest.raises(Validation, match="delete one"):
        save(service)
    assert len(service.saved_searches.list_all("default")) == MAX_SEARCHES
    for call in (service.saved_searches.get, service.saved_searches.delete, service.saved_searches.get_last_match):
        with pytest.raises(NotFound):
            call("0" * 16)
    with pytest.raises(NotFound):
        service.saved_searches.list_all("nowhere")
    monkeypatch.setattr(saved_searches, "MAX_MATCHES", 3)
    (last, *_) = service.saved_searches.list_all("default")
    arrive(service, ["red"] * 5)
    wait_found(service, last.search.id, 3, 3)


# Webhooks


def test_a_match_is_sent_signed_and_once(service: Service) -> None:
    with Receiver() as receiver:
        made = service.saved_searches.add("default", "red things", RED, None, receiver.url)
        receiver.secret = made.secret or ""
        assert receiver.secret.startswith("whsec_")
        assert service.saved_searches.get(made.search.id).secret is None
        ids = arrive(service, ["red", "blue"], caption="a door", tags=("x",))
        wait_until(lambda: receiver.messages, 10.0, service.faults)
        ((id, message),) = receiver.messages
        assert message["type"] == "saved_search.matched"
        saved = {"id": made.search.id, "name": "red things", "collection": "default"}
        assert message["data"]["saved_search"] == saved
        (match,) = message["data"]["matches"]
        assert (match["image_id"], match["caption"], match["tags"]) == (ids[0], "a door", ["x"])
        assert id.startswith(f"msg_{made.search.id}_")
        assert receiver.headers["content-type"] == "application/json"
        wait_until(lambda: sent_up_to(service, made.search.id) == match["n"], 10.0)
        assert len(receiver.messages) == 1


def sent_up_to(service: Service, id: str) -> int | None:
    """The last match that is delivered; None while a message is under way."""
    webhook = service.saved_searches.get(id).search.webhook
    return None if webhook is None or webhook.sending is not None else webhook.sent


def test_a_message_that_was_not_taken_comes_again_with_its_number(service: Service) -> None:
    with Receiver(500, 302, 204) as receiver:
        id = save(service, url=receiver.url)
        arrive(service, ["red"])
        wait_until(lambda: len(receiver.messages) == 3, 10.0, lambda: receiver.messages)
        assert len({number for number, _ in receiver.messages}) == 1
        wait_until(lambda: sent_up_to(service, id), 10.0)
        webhook = service.saved_searches.get(id).search.webhook
        assert webhook is not None
        assert (webhook.failures, webhook.last_error, webhook.disabled_at) == (0, None, None)


def test_a_receiver_that_fails_too_often_or_is_gone_is_switched_off(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_FAILURES", 3)
    with Receiver(500) as receiver, Receiver(410) as gone:
        ids = [save(service, url=one.url) for one in (receiver, gone)]
        arrive(service, ["red"])
        for id in ids:
            wait_until(lambda id=id: webhook_of(service, id).disabled_at is not None, 10.0)
        assert [len(one.messages) for one in (receiver, gone)] == [3, 1]
        assert "500" in (webhook_of(service, ids[0]).last_error or "")
        receiver.answers = [204]
        service.saved_searches.change(ids[0], Changes(enable=True))
        wait_until(lambda: sent_up_to(service, ids[0]), 10.0)
        assert len({number for number, _ in receiver.messages}) == 1


def webhook_of(service: Service, id: str) -> Any:
    return service.saved_searches.get(id).search.webhook


def test_webhooks_are_moved_signed_anew_and_taken_away(service: Service) -> None:
    with Receiver() as first, Receiver() as second:
        id = save(service, url=first.url)
        moved = service.saved_searches.change(id, Changes(url=second.url, new_secret=True))
        second.secret = moved.secret or ""
        assert second.secret
        assert service.saved_searches.change(id, Changes(new_secret=True)).secret not in (None, second.secret)
        second.secret = service.saved_searches.change(id, Changes(new_secret=True)).secret or ""
        arrive(service, ["red"])
        wait_until(lambda: sent_up_to(service, id), 10.0)
        assert (len(first.messages), len(second.messages)) == (0, 1)
        assert service.saved_searches.change(id, Changes(url=first.url)).secret is None
        assert service.saved_searches.change(id, Changes(url="")).search.webhook is None
        with pytest.raises(Validation, match="no webhook"):
            service.saved_searches.change(id, Changes(enable=True))


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://10.1.2.3/hook", UrlNotAllowed),
        ("http://[::1]/hook", UrlNotAllowed),
        ("http://169.254.169.254/latest", UrlNotAllowed),
        ("ftp://example.org/", UrlNotAllowed),
        ("http://me:secret@example.org/", UrlNotAllowed),
        ("http://", Validation),
    ],
)
def test_a_private_address_is_refused_when_it_is_given(service: Service, url: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        save(service, url=url)
    assert service.saved_searches.list_all(None) == []


def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_used(tmp_path: Path) -> None:
    with Receiver() as receiver, running_service(tmp_path / "data", webhooks=True) as service:
        port = receiver.url.split(":")[2]
        id = save(service, url=f"http://localhost:{port}")
        arrive(service, ["red"])
        wait_until(lambda: webhook_of(service, id).last_error is not None, 10.0)
        assert "does not connect to that address" in webhook_of(service, id).last_error
        assert receiver.messages == []


def test_a_server_that_sends_none_takes_none_and_keeps_what_it_has(tmp_path: Path) -> None:
    with Receiver() as receiver:
        with running_service(tmp_path / "data", webhooks=True, fetch_also="127.0.0.1") as service:
            id = save(service, url=receiver.url)
        with running_service(tmp_path / "data") as service:
            with pytest.raises(Validation, match="SIGHTLINE_WEBHOOKS"):
                save(service, url=receiver.url)
            ids = arrive(service, ["red"])
            wait_found(service, id, 1, 1)
            service.saved_searches.wake_webhooks()
        assert receiver.messages == []
        with running_service(tmp_path / "data", webhooks=True, fetch_also="127.0.0.1") as service:
            wait_until(lambda: receiver.pictures() == ids, 10.0)
            wait_until(lambda: sent_up_to(service, id), 10.0)


def test_what_comes_while_the_server_is_away_is_found_once_it_is_back(tmp_path: Path) -> None:
    with running_service(tmp_path / "data") as service:
        id = save(service)
        arrive(service, ["red"])
        wait_found(service, id, 1, 1)
        service.arrivals.close()
        arrive(service, ["red", "green"])
    with running_service(tmp_path / "data") as service:
        wait_found(service, id, 2, 2)


def test_pauses_grow_up_to_an_hour_and_a_server_may_ask_for_longer() -> None:
    pauses = [choose_pause(n) for n in range(1, MAX_FAILURES)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (5.0, 3600.0)
    assert sum(pauses) > 10 * 3600
    assert choose_pause(1, 90.0) == 90.0
    assert choose_pause(1, 1e9) == 3600.0


def test_a_deleted_picture_leaves_nothing_to_send(service: Service) -> None:
    with Receiver() as receiver:
        loop = service.webhooks
        assert isinstance(loop, WebhookLoop)
        id = save(service, url="http://127.0.0.1:9/")  # nobody listens there
        ids = arrive(service, ["red"])
        wait_until(lambda: webhook_of(service, id).failures > 0, 10.0)
        delete(service, ids[0])
        wait_until(lambda: sent_up_to(service, id), 10.0)
        assert receiver.messages == []
