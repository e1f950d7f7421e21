from __future__ import annotations

import pytest

from app.search.fusion import DEPTH, Described, Weights, find_highlights, fuse
from app.storage.keywords import split_query

Picture = tuple[int, Described]


def picture(key: int, caption: str | None = None, tags: tuple[str, ...] = (), source: str | None = None) -> Picture:
    return key, (caption, tags, source)


def order(
    query: str, pictures: list[Picture], by_vectors: list[int], trust: float, weights: Weights | None = None
) -> list[int]:
    """The keys in the fused order; the words rank the pictures with words in the order of the list."""
    described = {key: one for key, one in pictures if one != (None, (), None)}
    fused = fuse(split_query(query), described, by_vectors, list(described), weights or Weights(), trust)
    return [place.key for place in fused]


def test_a_picture_with_every_word_comes_before_one_that_only_looks_right() -> None:
    pictures = [picture(1), picture(2, "a green frog"), picture(3, "a green door")]
    for trust in (0.0, 0.5, 1.0):
        assert order("green frog", pictures, [1, 3, 2], trust)[0] == 2


def test_a_model_that_knows_the_pictures_decides_between_equal_words() -> None:
    pictures = [picture(n, f"frog number {word}") for n, word in enumerate(("one", "two", "three"), 1)]
    assert order("frog", pictures, [3, 2, 1], trust=1.0) == [3, 2, 1]
    assert order("frog", pictures, [3, 2, 1], trust=0.0) == [1, 2, 3]


def test_a_weak_model_does_not_drag_words_down() -> None:
    pictures = [*(picture(n) for n in range(1, 11)), picture(20, source="pond.png")]
    assert order("frog pond at night", pictures, list(range(1, 11)), trust=0.0)[0] == 20
    assert order("frog pond at night", pictures, list(range(1, 11)), trust=1.0)[0] == 1


def test_weights_switch_a_ranking_off() -> None:
    pictures = [picture(1), picture(2, "frog")]
    assert order("frog", pictures, [1, 2], 1.0, Weights(keyword=0)) == [1, 2]
    assert order("frog", pictures, [1, 2], 1.0, Weights(vector=0)) == [2, 1]


@pytest.mark.parametrize(
    "named",
    [
        picture(9, source="trip/beach house.jpg"),
        picture(9, "The beach house"),
        picture(9, tags=("sea", "Beach House")),
    ],
)
def test_a_picture_of_exactly_this_name_is_first(named: Picture) -> None:
    others = [picture(n, f"a beach house at dusk with people {n}") for n in range(1, 9)]
    assert order("beach house", [*others, named], list(range(1, 9)), trust=1.0)[0] == 9


def test_highlights_are_the_words_as_they_are_written() -> None:
    image = ("Frogs of Zürich", ("green frog",), "Bullfrog_1.jpg")
    found = find_highlights(split_query("a frog zurich"), image)
    assert found == {"caption": ["Frogs", "Zürich"], "tags": ["frog"], "name": ["Bullfrog"]}
    assert find_highlights(split_query("青蛙"), ("一只青蛙", (), None)) == {"caption": ["青蛙"]}
    assert find_highlights(split_query("trip"), (None, (), "my trips/x.jpg")) == {"name": ["trips"]}
    assert find_highlights(split_query("frog"), (None, (), None)) == {}
    assert find_highlights(split_query("frog"), (None, (), "https://frog.org/a/b.png?x=frog")) == {}


def test_ranks_are_told_for_the_rankings_that_have_the_picture() -> None:
    first, second = fuse(split_query("frog"), {2: ("frog", (), None)}, [1], [2], Weights(), 1.0)
    assert (first.key, dict(first.ranks)) == (2, {"keyword": 1})
    assert (second.key, dict(second.ranks)) == (1, {"vector": 1})


def test_the_first_places_do_not_depend_on_how_many_are_asked_for() -> None:
    described: dict[int, Described] = {n: (f"frog {n}", (), None) for n in range(0, 400, 7)}
    by_vectors = list(range(300))
    whole = list(fuse(split_query("frog"), described, by_vectors, list(described)[:DEPTH], Weights(), 0.7))
    for count in (DEPTH, 100, 200):
        part = list(fuse(split_query("frog"), described, by_vectors[:count], list(described)[:DEPTH], Weights(), 0.7))
        assert [place.key for place in part[:count]] == [place.key for place in whole[:count]]
    assert [place.key for place in whole[-3:]] == [297, 298, 299]
