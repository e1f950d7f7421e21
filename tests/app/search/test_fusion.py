from __future__ import annotations

import random

import pytest

from app.core.types import Description
from app.search.fusion import DEPTH, Weights, find_highlights, fuse, prepare_terms, rate_matches
from app.storage.keywords import drop_stop_words, split_query, split_source, split_words

Picture = tuple[int, Description]


def picture(key: int, caption: str | None = None, tags: tuple[str, ...] = (), source: str | None = None) -> Picture:
    return key, Description(caption, tags, source)


def order(
    query: str, pictures: list[Picture], by_vectors: list[int], trust: float, weights: Weights | None = None
) -> list[int]:
    """The keys in the fused order; the words rank the pictures with words in the order of the list."""
    described = {key: one for key, one in pictures if one != Description()}
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
    image = Description("Frogs of Zürich", ("green frog",), "Bullfrog_1.jpg", "FROG POND", "two frogs on a leaf")
    found = find_highlights(prepare_terms(split_query("a frog zurich")), image)
    assert found == {
        "caption": ["Frogs", "Zürich"],
        "tags": ["frog"],
        "name": ["Bullfrog"],
        "ocr": ["FROG"],
        "generated": ["frogs"],
    }
    assert find_highlights(prepare_terms(split_query("青蛙")), Description("一只青蛙")) == {"caption": ["青蛙"]}
    assert find_highlights(prepare_terms(split_query("trip")), Description(source="my trips/x.jpg")) == {
        "name": ["trips"]
    }
    assert find_highlights(prepare_terms(split_query("frog")), Description()) == {}
    assert (
        find_highlights(prepare_terms(split_query("frog")), Description(source="https://frog.org/a/b.png?x=frog")) == {}
    )


def test_ranks_are_told_for_the_rankings_that_have_the_picture() -> None:
    first, second = fuse(split_query("frog"), {2: Description("frog")}, [1], [2], Weights(), 1.0)
    assert (first.key, dict(first.ranks)) == (2, {"keyword": 1})
    assert (second.key, dict(second.ranks)) == (1, {"vector": 1})


def test_the_first_places_do_not_depend_on_how_many_are_asked_for() -> None:
    described: dict[int, Description] = {n: Description(f"frog {n}") for n in range(0, 400, 7)}
    by_vectors = list(range(300))
    whole = list(fuse(split_query("frog"), described, by_vectors, list(described)[:DEPTH], Weights(), 0.7))
    for count in (DEPTH, 100, 200):
        part = list(fuse(split_query("frog"), described, by_vectors[:count], list(described)[:DEPTH], Weights(), 0.7))
        assert [place.key for place in part[:count]] == [place.key for place in whole[:count]]
    assert [place.key for place in whole[-3:]] == [297, 298, 299]


def rate_plainly(query: str, described: dict[int, Description]) -> dict[int, float]:
    """`rate_matches`, computed word by word."""
    terms = [[stem for stem, _ in term] for term in split_query(query)]
    written = [term[0][1].casefold() if len(term) == 1 else "" for term in split_query(query)]
    shares: dict[int, list[float]] = {}
    for key, (caption, tags, source, *_) in described.items():
        folder, name = split_source(source)
        texts = [text for text in (caption, *tags, name) if text]
        shares[key] = []
        for term, part in zip(terms, written, strict=True):
            share = 0.0
            if len(part) >= 3 and any(part in text.casefold() for text in texts):
                share = 0.5
            if has_run(term, folder):
                share = 0.7
            if any(has_run(term, text) for text in texts):
                share = 1.0
            shares[key].append(share)
    weights = [1.0 if any(shares[key][n] for key in shares) else 0.5 for n in range(len(terms))]
    sure = {key: sum(share * weight for share, weight in zip(one, weights, strict=True)) for key, one in shares.items()}
    sure = {key: value / sum(weights) for key, value in sure.items()}
    words = [stem for term in terms for stem in term]
    for key, (caption, tags, source, *_) in described.items():
        name = split_source(source)[1]
        for text in (caption or "", name, name.rpartition(".")[0], *tags):
            telling = [stem for stem, _ in drop_stop_words(split_words(text))]
            if text and telling == words and sure[key] == 1.0:
                sure[key] = 1.25
    return {key: value for key, value in sure.items() if any(shares[key])}


def has_run(stems: list[str], text: str) -> bool:
    """Whether the words of a text have these stems one after the other."""
    there = [stem for stem, _ in split_words(text)]
    return any(there[n : n + len(stems)] == stems for n in range(len(there)))


def test_matches_are_rated_as_word_by_word() -> None:
    rng = random.Random(0)
    words = "frog frogs toad the Bullfrog green_01 greenFrog café CAFE 青蛙 夏天的海 ran running 2 x".split()  # noqa: SIM905

    def some(most: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(0, most)))

    seen = set()
    for _ in range(400):
        query = some(4)
        described: dict[int, Description] = {
            n: Description(some(4) or None, tuple(filter(None, (some(2), some(1)))), f"{some(1)}/{some(2)}.png")
            for n in range(6)
        }
        terms = split_query(query)
        found = rate_matches(terms, described) if terms else {}
        assert found == pytest.approx(rate_plainly(query, described) if terms else {})
        seen |= {round(value, 2) for value in found.values()}
    assert {1.25, 1.0, 0.7, 0.5} <= seen
