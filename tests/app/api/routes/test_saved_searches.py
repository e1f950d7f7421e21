"""Saved searches over HTTP: kept, counted, followed, sent; and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.app.api.asking import check_refusal, make_picture
from tests.app.api.guarded import Guarded
from tests.support.receivers import Receiver
from tests.support.servers import RunningServer, wait_until

SAVED = "/v1/saved-searches"
INTO = {"collection": "watched"}
RED = {"query": [{"text": "red"}], "score_threshold": 0.8}


@pytest.fixture
def watched(server: RunningServer) -> Iterator[None]:
    """A collection of a test's own."""
    assert server.http.post("/v1/collections", json={"name": "watched"}).status_code == 201
    yield
    server.http.delete("/v1/collections/watched")


def save(server: RunningServer, query: dict[str, Any] = RED, **more: Any) -> dict[str, Any]:
    answer = server.http.post(SAVED, json={"name": "Red ones", "query": query, "collection": "watched", **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def upload(server: RunningServer, colour: str) -> str:
    answer = server.upload(make_picture(colour), collection="watched")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def wait_found(server: RunningServer, id: str, total: int, new: int) -> dict[str, Any]:
    def has_found() -> dict[str, Any] | None:
        now: dict[str, Any] = server.http.get(f"{SAVED}/{id}").json()
        return now if (now["total"], now["new"], now["is_complete"]) == (total, new, True) else None

    found: dict[str, Any] = wait_until(has_found, 20.0, lambda: server.http.get(f"{SAVED}/{id}").text)
    return found


def test_a_saved_search_counts_what_is_there_and_what_is_new(server: RunningServer, watched: None) -> None:
    old = upload(server, "red")
    made = save(server)
    assert (made["name"], made["collection"], made["query"], made["match"]) == ("Red ones", "watched", RED, None)
    wait_found(server, made["id"], 1, 0)
    new = upload(server, "red")
    upload(server, "green")
    found = wait_found(server, made["id"], 2, 1)
    page = server.http.get(f"{SAVED}/{made['id']}/matches", params={"limit": 1}).json()
    assert [(one["image"]["id"], one["is_new"]) for one in page["matches"]] == [(new, True)]
    rest = server.http.get(f"{SAVED}/{made['id']}/matches", params={"cursor": page["next_cursor"]}).json()
    assert [one["image"]["id"] for one in rest["matches"]] == [old]
    assert rest["next_cursor"] is None
    seen = server.http.patch(f"{SAVED}/{made['id']}", json={"seen": found["last"], "name": "Seen"}).json()
    assert (seen["new"], seen["total"], seen["name"]) == (0, 2, "Seen")
    (listed,) = server.http.get(SAVED, params=INTO).json()["saved_searches"]
    assert listed == seen
    assert server.http.delete(f"{SAVED}/{made['id']}", params={"dry_run": True}).json()["matched"] == 1
    assert server.http.delete(f"{SAVED}/{made['id']}").status_code == 204
    check_refusal(server.http.get(f"{SAVED}/{made['id']}"), 404, "not_found")


def test_another_query_begins_anew(server: RunningServer, watched: None) -> None:
    upload(server, "green")
    made = save(server)
    wait_found(server, made["id"], 0, 0)
    changed = server.http.patch(f"{SAVED}/{made['id']}", json={"query": {**RED, "query": [{"text": "green"}]}})
    assert changed.status_code == 200, changed.text
    wait_found(server, made["id"], 1, 0)


def test_match_good_warns_where_nothing_can_be_good(server: RunningServer, watched: None) -> None:
    upload(server, "red")
    made = save(server, {"query": [{"text": "red"}]}, match="good")
    wait_until(lambda: server.http.get(f"{SAVED}/{made['id']}").json()["warnings"], 20.0)
    kept = server.http.patch(f"{SAVED}/{made['id']}", json={"match": None})
    check_refusal(kept, 422, "validation")  # no threshold would be left


def read_events(server: RunningServer, id: str, count: int, after: str | None = None) -> list[tuple[str, Any]]:
    """The id and data of the first events of a stream."""
    headers = {} if after is None else {"Last-Event-ID": after}
    found: list[tuple[str, Any]] = []
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:  # noqa: SIM117
        with http.stream("GET", f"{SAVED}/{id}/events", headers=headers) as response:
            assert response.status_code == 200
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    found.append((fields["id"], json.loads(fields["data"])))
                    fields = {}
                if len(found) == count:
                    return found
    return found


def test_events_tell_each_new_match_and_go_on_after_the_last_one(server: RunningServer, watched: None) -> None:
    made = save(server)
    upload(server, "red")
    found = wait_found(server, made["id"], 1, 1)
    events: list[Any] = []
    reader = threading.Thread(target=lambda: events.extend(read_events(server, made["id"], 2, "0")))
    reader.start()
    upload(server, "red")
    reader.join(30)
    assert [one["n"] for _, one in events] == sorted(one["n"] for _, one in events)
    assert events[0][1]["n"] == found["last"]
    ((_, again),) = read_events(server, made["id"], 1, str(events[0][1]["n"]))
    assert again["image"]["id"] == events[1][1]["image"]["id"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"query": {"query": [{"text": "red"}]}}, "score_threshold"),
        ({"query": {"query": []}}, "at least 1"),
        ({"query": {**RED, "target": "texts"}}, "looks for pictures"),
        ({"query": {**RED, "time_words": True}}, "put days into query.filter"),
        ({"query": {"query": [{"image": "aGk="}], "score_threshold": 0.5}}, "image_id"),
        ({"query": {**RED, "collection": "elsewhere"}}, "send it once"),
        ({"query": {**RED, "filter": {"must": [{"key": "colour", "match": {"value": 1}}]}}}, "filter"),
        ({"query": {"query": [{"image_id": "a"}], "score_threshold": 0.5}, "match": "good"}, "by words"),
        ({"query": {"query": [{"text": "x" * 2_000}], "score_threshold": 0.5}}, "characters"),
        ({"query": RED, "name": ""}, "at least 1"),
        ({"query": RED, "name": "x" * 201}, "at most 200"),
        ({"query": RED, "webhook": {"url": "https://example.org/"}}, "SIGHTLINE_WEBHOOKS"),
        ({"query": RED, "webhook": {}}, "webhook.url"),
        ({"query": RED, "hook": "https://example.org/"}, "hook"),
        ({}, "query"),
    ],
)
def test_bad_saved_searches_are_refused(server: RunningServer, body: dict[str, Any], detail: str) -> None:
    refused = check_refusal(server.http.post(SAVED, json={"name": "a", **body}), 422, "validation")
    assert detail in refused["detail"]
    assert server.http.get(SAVED, params={"collection": "default"}).json()["saved_searches"] == []


def test_a_key_that_only_searches_does_not_see_where_a_webhook_leads(guarded: Guarded) -> None:
    path = f"{SAVED}/{guarded.saved}"
    assert guarded.ask("search", "GET", path).json()["webhook"] is None
    assert guarded.ask("search", "PATCH", path, json={"seen": True}).status_code == 403
    assert guarded.ask("write", "PATCH", path, json={"seen": True}).status_code == 200


@pytest.mark.slow
def test_a_kill_loses_no_match_and_no_message(tmp_path: Path) -> None:
    """The receiver takes nothing until the server was killed twice; then each picture comes once by number."""
    settings: dict[str, Any] = {"webhooks": True, "fetch_also": "127.0.0.1"}
    with Receiver(503) as receiver:
        server = RunningServer(tmp_path / "data", **settings)
        server.http.post("/v1/collections", json={"name": "watched"})
        made = save(server, webhook={"url": receiver.url})
        receiver.secret = made["webhook"]["secret"]
        ids = []
        for _ in range(2):
            ids += [upload(server, "red") for _ in range(2)]
            server.kill()
            server = RunningServer(tmp_path / "data", **settings)
        with server:
            wait_found(server, made["id"], 4, 4)
            receiver.answers = [200]
            changed = server.http.patch(f"{SAVED}/{made['id']}", json={"webhook": {"enabled": True}})
            assert changed.json()["webhook"]["url"] == receiver.url
            assert "secret" not in changed.json()["webhook"]
            wait_until(lambda: set(receiver.pictures()) == set(ids), 60.0, receiver.pictures)
            by_number = {number: message["data"]["matches"] for number, message in receiver.messages}
            delivered = [match["image_id"] for matches in by_number.values() for match in matches]
            assert sorted(delivered) == sorted(ids)
