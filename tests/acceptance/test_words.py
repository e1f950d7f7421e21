"""What the starter says about words that it does not know, and about texts that it does not read to the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.servers import RunningServer

K = 10
OVERLAP = 5  # of K, of the same question in two languages
LONG = "a house with a tree and a cloud and a bird " * 15


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the starter model and the demo gallery."""
    with RunningServer(tmp_path_factory.mktemp("demo"), model="starter") as server:
        server.wait_job(server.http.post("/v1/demo").json()["id"], seconds=500)
        yield server


def ask(server: RunningServer, words: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The ids of the hits, and the warnings."""
    answer = server.http.get("/v1/search", params={"q": words, "k": K}).json()
    return [hit["id"] for hit in answer["hits"]], answer["warnings"]


def test_a_language_that_it_reads_finds_the_same_and_another_is_told(demo: RunningServer) -> None:
    english, none = ask(demo, "red car")
    assert none == []
    chinese, none = ask(demo, "红色的汽车")
    assert none == []
    assert len({*english} & {*chinese}) >= OVERLAP
    others = ("красная машина", "سيارة حمراء", "rotes Auto", "voiture rouge", "赤い車", "빨간 차", "carro vermelho")
    for words in others:
        (warning,) = ask(demo, words)[1]
        assert (warning["code"], warning["field"]) == ("language_unknown", "q")


def test_nonsense_and_signs_are_told(demo: RunningServer) -> None:
    assert [warning["code"] for warning in ask(demo, "qqqzzz xxyyzz")[1]] == ["words_unknown"]
    assert [warning["code"] for warning in ask(demo, '"')[1]] == ["no_words"]


def test_emoji_find_what_they_show(demo: RunningServer) -> None:
    for emoji, name in (("🐈", "cat"), ("🚗🔴", "automobile red circle")):
        found, (warning,) = ask(demo, emoji)
        assert warning["code"] == "emoji_named"
        assert found == ask(demo, name)[0]
    assert ask(demo, "🐈")[0] != ask(demo, "🚗🔴")[0]


@pytest.mark.parametrize("end", ["", "red car", "blue whale"])
def test_a_long_description_is_told_to_be_cut_and_a_short_one_is_not(end: str, demo: RunningServer) -> None:
    (warning,) = ask(demo, f"{LONG} {end}")[1]
    assert warning["code"] == "text_truncated"
    assert "the first 38 of" in warning["detail"]
    assert ask(demo, end or "a house with a tree")[1] == []


def test_a_stored_text_says_whether_it_was_cut(demo: RunningServer) -> None:
    body = {
        "texts": [{"id": "long", "text": "a house with a tree " * 40 + "red car"}, {"id": "short", "text": "a tree"}]
    }
    answer = demo.http.post("/v1/texts", json=body).json()
    assert [text["truncated"] for text in answer["texts"]] == [True, False]
    assert [(one["code"], one["field"]) for one in answer["warnings"]] == [("text_truncated", "texts.0.text")]
    assert demo.http.get("/v1/texts/long").json()["truncated"] is True
    demo.http.delete("/v1/texts/long")
    demo.http.delete("/v1/texts/short")


def test_the_server_says_what_the_starter_knows(demo: RunningServer) -> None:
    model = demo.http.get("/v1/stats").json()["model"]
    assert (model["name"], model["knows"], model["languages"], model["max_tokens"]) == (
        *("starter", "drawings", ["en", "zh"], 40),
    )
    assert "--model photos" in model["hint"]
