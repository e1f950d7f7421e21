from __future__ import annotations

import unicodedata
from itertools import islice
from typing import Literal

import pytest

from app.core.types import Status
from app.storage import keywords
from app.storage.database import Database
from app.storage.tables import collections, images
from tests.support.makers import image_of, insert, new


def put(database: Database, n: int, id: str, collection: str = "default", **said: object) -> None:
    """A ready picture with these attributes."""

    def work(c: object) -> None:
        image = images.add(c, collection, new(n, id, **said), None, False).image  # type: ignore[arg-type]
        c.execute("UPDATE images SET status = 'ready' WHERE key = ?", (image.key,))  # type: ignore[attr-defined]

    database.write(work)


def find(database: Database, query: str, collection: str = "default") -> list[str]:
    """The ids that a query finds, each once."""
    terms = keywords.split_query(query)
    keys = database.read(lambda c: list(dict.fromkeys(islice(keywords.find(c, collection, terms), 100))))
    rows = database.read(lambda c: images.get_by_keys(c, keys))
    return [rows[key].id for key in keys]


def test_words_of_captions_tags_and_names_are_found(database: Database) -> None:
    put(database, 1, "caption", caption="Three frogs near a pond")
    put(database, 2, "tag", tags=("tree frog", "green"))
    put(database, 3, "name", source="trips/2019/greenFrog_01.JPG")
    put(database, 4, "url", source="https://example.org/animals/frog-two.png?size=frog")
    put(database, 5, "other", caption="a pond", source="https://frog.example/pond.jpg")
    assert sorted(find(database, "frog")) == ["caption", "name", "tag", "url"]
    assert sorted(find(database, "a FROG")) == ["caption", "name", "tag", "url"]
    assert find(database, "trips") == ["name"]
    assert find(database, "greenFrog_01.JPG")[0] == "name"
    assert find(database, "green frog")[:2] in (["name", "tag"], ["tag", "name"])
    assert find(database, "the of") == []


def test_chinese_and_japanese_are_found_without_spaces(database: Database) -> None:
    put(database, 1, "beach", caption="去年夏天的海边照片")
    put(database, 2, "frog", tags=("青蛙",))
    put(database, 3, "cat", caption="ねこが寝ている")
    put(database, 4, "kitchen", caption="厨房")
    assert find(database, "夏天") == ["beach"]
    assert find(database, "夏天的海边") == ["beach"]
    assert find(database, "青蛙") == ["frog"]
    assert find(database, "蛙") == ["frog"]
    assert find(database, "ねこ") == ["cat"]
    assert find(database, "蛙青") == []


def test_a_part_of_a_word_is_found_after_whole_words(database: Database) -> None:
    put(database, 1, "umbrella", caption="a blue umbrella")
    put(database, 2, "bulldog", source="bulldog.png")
    put(database, 3, "dog", caption="a dog")
    assert find(database, "umbrel") == ["umbrella"]
    assert find(database, "bull") == ["bulldog"]
    assert find(database, "dog") == ["dog"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_and_forms_of_unicode_make_no_difference(form: Literal["NFC", "NFD"], database: Database) -> None:
    put(database, 1, "cafe", caption=unicodedata.normalize(form, "Ein Café in Zürich"))
    put(database, 2, "wide", caption="ＦＯＸ")
    for query in ("café", "cafe", unicodedata.normalize("NFD", "café zürich"), "ZURICH"):
        assert find(database, query) == ["cafe"]
    assert find(database, "fox") == ["wide"]


@pytest.mark.parametrize(
    "query",
    [
        '"',
        '""',
        "*",
        "NEAR",
        "NEAR(a b)",
        "a AND b",
        "NOT",
        "-x",
        "caption:x",
        "^x",
        "x + y",
        "(",
        "'; DROP",
        "\0",
        "😀",
    ],
)
def test_operators_of_fts5_are_words(query: str, database: Database) -> None:
    put(database, 1, "plain", caption="a kind word")
    assert find(database, query) == []
    put(database, 2, "near", caption="NEAR the NOT sign AND a * star")
    assert find(database, "NEAR NOT AND") == ["near"]


def test_a_long_query_is_looked_up_as_far_as_it_is_read(database: Database) -> None:
    put(database, 1, "frog", caption="frog")
    assert find(database, "frog " + " ".join(f"word{n}" for n in range(500))) == ["frog"]
    assert len(keywords.split_query("蛙" * 1_000)) == 1
    assert len(keywords.split_query(" ".join(f"word{n}" for n in range(500)))) == keywords.MAX_TERMS


def test_the_index_follows_every_change_of_a_row(database: Database) -> None:
    put(database, 1, "one", caption="frog")
    key = image_of(database, "one").key
    database.write(lambda c: images.update(c, key, "toad", ["pond"], {}))
    assert (find(database, "frog"), find(database, "toad"), find(database, "pond")) == ([], ["one"], ["one"])
    database.write(lambda c: images.add(c, "default", new(2, "one", caption="newt"), None, replace=True))
    database.write(lambda c: c.execute("UPDATE images SET status = 'ready'"))
    assert (find(database, "toad"), find(database, "newt")) == ([], ["one"])
    database.write(lambda c: images.delete(c, key))
    assert find(database, "newt") == []


def test_a_failed_change_leaves_the_index_as_it_was(database: Database) -> None:
    put(database, 1, "one", caption="frog")
    key = image_of(database, "one").key

    def fail(c: object) -> None:
        images.update(c, key, "toad", [], {})  # type: ignore[arg-type]
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        database.write(fail)
    assert (find(database, "frog"), find(database, "toad")) == (["one"], [])


def test_collections_and_pictures_that_are_not_ready_are_left_out(database: Database) -> None:
    database.write(lambda c: collections.create(c, "other", ""))
    put(database, 1, "here", caption="frog")
    put(database, 1, "there", collection="other", caption="frog")
    assert insert(database, 2, "queued", caption="frog").status is Status.QUEUED
    assert find(database, "frog") == ["here"]
    assert find(database, "frog", "other") == ["there"]


def test_a_word_that_most_pictures_have_gives_the_newest(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keywords, "MAX_MATCHES", 5)
    for n in range(8):
        put(database, n, f"p{n}", caption="photo frog" if n == 0 else "photo")
    assert find(database, "photo")[:3] == ["p7", "p6", "p5"]
    assert find(database, "photo frog") == ["p0"]
    assert find(database, "photo frog toad") == ["p0"]


def test_what_is_named_so_comes_before_the_many_that_have_the_words(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keywords, "MAX_MATCHES", 5)
    monkeypatch.setattr(keywords, "MANY", 3)
    put(database, 0, "tag", tags=("summer", "red frog"), caption="a picture of a pond")
    put(database, 1, "name", source="holiday/red_frog.jpg")
    put(database, 2, "caption", caption="Red frog!")
    for n in range(3, 15):
        put(database, n, f"p{n}", caption="a frog on something red")
    assert sorted(find(database, "red frog")[:3]) == ["caption", "name", "tag"]
    assert find(database, "red frog")[3] == "p14"
