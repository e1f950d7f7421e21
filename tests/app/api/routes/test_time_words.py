"""Words of time in queries over HTTP: which pictures they let through, and when they are words like others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.api.asking import check_refusal, make_picture
from tests.support.servers import RunningServer, set_taken_at

TAKEN = {
    "red-july": "2023-07-04T12:00:00.000",
    "red-end": "2023-07-31T23:59:59.000",
    "red-august": "2023-08-01T00:00:00.000",
    "blue-july": "2023-07-10T08:00:00.000",
    "blue-2019": "2019-12-25T20:00:00.000",
}
ALL_OF_JULY = ["red-end", "blue-july", "red-july"]  # the newest first


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Pictures by their colours and times; one has none, and in the collection `undated` none has one."""
    with RunningServer(tmp_path_factory.mktemp("album")) as server:
        for id in (*TAKEN, "red-undated"):
            server.upload(make_picture(id.partition("-")[0]), id=id, tags=["all"], wait=20)
        server.http.post("/v1/collections", json={"name": "undated"})
        server.upload(make_picture("red"), id="red", wait=20, collection="undated")
        set_taken_at(server, TAKEN)
        yield server


def search(server: RunningServer, q: str, **params: Any) -> dict[str, Any]:
    response = server.http.get("/v1/search", params={"q": q, **params})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def post(server: RunningServer, *texts: str | dict[str, Any], **body: Any) -> dict[str, Any]:
    query = [{"text": text} if isinstance(text, str) else text for text in texts]
    response = server.http.post("/v1/search", json={"query": query, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


@pytest.mark.parametrize("q", ["red July 2023", "2023年7月的 red", "RED  ２０２３－０７"])
def test_words_of_time_are_a_condition(q: str, album: RunningServer) -> None:
    answer = search(album, q)
    assert sorted(ids(answer)) == sorted(ALL_OF_JULY)
    assert set(ids(answer)[:2]) == {"red-july", "red-end"}
    time = answer["applied"]["time"]
    assert (time["from"], time["to"]) == ("2023-07-01", "2023-07-31")
    assert ids(post(album, q)) == ids(answer)


def test_words_of_time_alone_ask_for_a_list(album: RunningServer) -> None:
    answer = search(album, "photos of July 2023")
    assert ids(answer) == ALL_OF_JULY
    applied = answer["applied"]
    assert applied["time"] == {"text": "July 2023", "from": "2023-07-01", "to": "2023-07-31"}
    assert (applied["order_by"], applied["mode"], answer["verdict"], answer["searched"]) == (
        "-taken_at",
        "vector",
        None,
        3,
    )
    assert all(-1 <= hit["score"] <= 1 and hit["ranks"] == {"vector": None, "keyword": None} for hit in answer["hits"])
    assert answer["warnings"] == []
    pages = [ids(search(album, "July 2023", k=1, offset=n)) for n in range(4)]
    assert pages == [["red-end"], ["blue-july"], ["red-july"], []]
    assert ids(search(album, "July 2023", order_by="taken_at", k=2)) == ["red-july", "blue-july"]
    assert ids(search(album, "since 2020", order_by="score", mode="keyword", k=1)) == ["red-august"]
    grouped = search(album, "2023", group_by="month", facets="tags")
    assert ids(grouped) == ["red-august", "red-end"]
    assert grouped["facets"]["tags"] == [{"value": "all", "count": 4}]
    assert ids(search(album, "july 1999")) == []


def test_open_periods_have_one_end(album: RunningServer) -> None:
    assert search(album, "before 2020")["applied"]["time"] == {"text": "before 2020", "from": None, "to": "2019-12-31"}
    assert ids(search(album, "before 2020")) == ["blue-2019"]
    assert ids(search(album, "since August 2023")) == ["red-august"]


def test_the_filter_of_the_request_holds_too(album: RunningServer) -> None:
    deep: dict[str, Any] = {"must_not": [{"has_id": ["red-end"]}]}
    for _ in range(6):  # as deep as a filter may be
        deep = {"must": [deep]}
    assert sorted(ids(post(album, "red July 2023", filter=deep))) == ["blue-july", "red-july"]
    assert ids(post(album, "July 2023", filter=deep)) == ["blue-july", "red-july"]


def test_relative_words_go_by_the_day_of_the_caller(album: RunningServer) -> None:
    assert ids(search(album, "yesterday", today="2023-07-05")) == ["red-july"]
    assert ids(post(album, "red last month", today="2023-09-01"))[0] == "red-august"
    for day in ("2023-7-5", "2023-02-30", "1969-12-31", "now"):
        response = album.http.get("/v1/search", params={"q": "yesterday", "today": day})
        assert "2026-01-31" in check_refusal(response, 422, "validation")["detail"]


def test_words_of_time_can_stay_words(album: RunningServer) -> None:
    for off in ({"time_words": "false"}, {"exact": "true"}):
        answer = search(album, "red July 2023", **off)
        assert len(answer["hits"]) == 6
        assert "time" not in answer["applied"]
    for q in ('red "july 2023"', "red -2023"):
        assert "time" not in search(album, q)["applied"]
    assert "time" not in search(album, "red July 2023", target="texts")["applied"]


def test_without_pictures_that_have_a_time_the_words_stay(album: RunningServer) -> None:
    answer = search(album, "red July 2023", collection="undated")
    assert (ids(answer), answer["applied"].get("time")) == (["red"], None)
    asked_for = search(album, "red July 2023", collection="undated", time_words="true")
    assert (ids(asked_for), asked_for["applied"]["time"]["text"]) == ([], "July 2023")


@pytest.mark.parametrize("other", [{"exact": True}, {"target": "texts"}])
def test_where_there_is_no_time_the_words_are_not_asked_for(other: dict[str, Any], album: RunningServer) -> None:
    body = {"query": [{"text": "red July 2023"}], "time_words": True, **other}
    assert "time_words" in check_refusal(album.http.post("/v1/search", json=body), 422, "validation")["detail"]


def test_other_parts_of_the_query_are_searched(album: RunningServer) -> None:
    avoiding = search(album, "July 2023 -red")
    assert (ids(avoiding)[0], avoiding["applied"]["mode"]) == ("blue-july", "vector")
    assert ids(post(album, "July 2023", {"image_id": "blue-2019"}))[0] == "blue-july"
    liked = post(album, "July 2023", like=["blue-2019"])
    assert (ids(liked)[0], liked["applied"].get("order_by")) == ("blue-july", None)
    assert "time" not in post(album, "red July 2023", "blue 2019")["applied"]  # two texts


def test_each_search_of_a_batch_has_its_time(album: RunningServer) -> None:
    searches = [{"query": [{"text": text}]} for text in ("July 2023", "red", "blue 2019")]
    answers = album.http.post("/v1/search/batch", json={"searches": searches}).json()["answers"]
    assert [answer["applied"].get("time", {}).get("from") for answer in answers] == ["2023-07-01", None, "2019-01-01"]
    assert [len(answer["hits"]) for answer in answers] == [3, 6, 1]
