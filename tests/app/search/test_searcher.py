from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.errors import ImageCorrupt, ModelUnavailable, NotFound, SightlineError, UnsupportedMediaType, Validation
from app.core.types import Target
from app.decode.pool import DecodePool
from app.encoder.batcher import Batcher
from app.encoder.dummy import DummyEncoder
from app.encoder.protocol import Embeddings
from app.search import searcher as searcher_module
from app.search.arrange import Arrangement
from app.search.collection_profile import DEFAULT_TRUST, Profile
from app.search.fusion import EQUAL_WEIGHTS, fuse
from app.search.hubs import HubBiases
from app.search.query import SearchQuery, SearchResult
from app.search.query_encoder import QueryPart
from app.search.searcher import EXTRA_HITS, Searcher
from app.search.templates import PLAIN
from app.storage import keywords
from app.storage.database import Database
from app.storage.filters.model import Field, Filter
from app.storage.filters.parser import parse_filter
from app.storage.tables import collections, embeddings, images, texts, work_queue
from index.flat import FlatIndex
from index.protocol import SearchParams
from index.types import Ids, Scores
from tests.support.makers import claim, insert
from tests.support.pictures import picture

ENCODER = DummyEncoder()
COLOURS = ("red", "green", "blue", "yellow", "black")


class World:
    """Pictures and texts by colour in a database and two indexes, and a searcher over them."""

    def __init__(self, database: Database, pool: DecodePool) -> None:
        self.database = database
        self.indexes: dict[Target, FlatIndex] = {"images": FlatIndex(60), "texts": FlatIndex(60)}
        self.batcher = Batcher(ENCODER)
        self.searcher = Searcher(
            database, ENCODER, self.batcher, pool, lambda _, target: nullcontext(self.indexes[target])
        )
        database.write(lambda c: embeddings.save_space(c, ENCODER.space))

    def picture(self, n: int, id: str, words: str) -> int:
        key = insert(self.database, n, id).key
        (lease,) = claim(self.database)
        vector = ENCODER.encode_texts([words])
        packed = vector[0].tobytes()
        self.database.write(lambda c: work_queue.finish_image(c, lease, ENCODER.space.fingerprint, packed, 4, 3, False))
        self.indexes["images"].add(np.array([key]), vector)
        return key

    def text(self, id: str, words: str) -> None:
        vector = ENCODER.encode_texts([words])

        def work(c: Any) -> int:
            key = texts.put(c, "default", id, words, {}).key
            embeddings.add(c, "default", ENCODER.space.fingerprint, "texts", key, vector[0].tobytes())
            return key

        self.indexes["texts"].add(np.array([self.database.write(work)]), vector)

    def ids(self, *parts: QueryPart, k: int = 3, target: Target = "images") -> list[str]:
        return [hit.id for hit in self.searcher.search(SearchQuery(parts, target, k)).hits]

    def search_filtered(self, only: Filter, words: str, k: int = 3, target: Target = "images") -> list[str]:
        return [
            hit.id for hit in self.searcher.search(SearchQuery([QueryPart(text=words)], target, k, filter=only)).hits
        ]

    def key(self, id: str) -> int:
        image = self.database.read(lambda c: images.get(c, "default", id))
        assert image is not None
        return image.key

    def describe(self, id: str, caption: str) -> None:
        key = self.key(id)
        self.database.write(lambda c: images.update(c, key, caption, [], {}))


@pytest.fixture
def world(database: Database, pool: DecodePool) -> Iterator[World]:
    world = World(database, pool)
    for n, colour in enumerate(COLOURS):
        world.picture(n, colour, colour)
        world.text(f"text-{colour}", f"something {colour}")
    yield world
    world.batcher.close()


def test_words_find_pictures_and_texts_best_first(world: World) -> None:
    found = world.searcher.search(SearchQuery([QueryPart(text="a blue thing")], k=3))
    assert found.hits[0].id == "blue"
    assert found.hits[0].image is not None
    assert found.hits[0].score == pytest.approx(1.0, abs=1e-5)
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert found.searched == 5
    assert set(found.took_ms) == {"encode", "search", "fetch", "total"}
    (hit,) = world.searcher.search(SearchQuery([QueryPart(text="blue")], "texts", 1)).hits
    assert hit.text is not None
    assert (hit.id, hit.text.text, hit.image) == ("text-blue", "something blue", None)


def test_parts_are_added_up_by_their_weights(world: World) -> None:
    assert world.ids(QueryPart(text="red", weight=2), QueryPart(text="blue"), k=2) == ["red", "blue"]
    assert world.ids(QueryPart(text="red"), QueryPart(text="blue", weight=2), k=2) == ["blue", "red"]


def test_a_negative_part_pushes_away(world: World) -> None:
    assert world.ids(QueryPart(text="red and blue"), QueryPart(text="red", weight=-1), k=1) == ["blue"]
    assert world.ids(QueryPart(text="red", weight=-1), k=5)[-1] == "red"


def test_parts_that_cancel_each_other_out_are_refused(world: World) -> None:
    with pytest.raises(Validation, match="cancel each other out"):
        world.ids(QueryPart(text="red"), QueryPart(text="red", weight=-1))
    with pytest.raises(Validation, match="cancel each other out"):
        world.ids(QueryPart(text="red", weight=0))
    with pytest.raises(Validation, match="empty"):
        world.ids()


def test_a_picture_that_is_here_finds_itself_and_a_text_its_pictures(world: World) -> None:
    assert world.ids(QueryPart(image_id="green"), k=1) == ["green"]
    assert world.ids(QueryPart(text_id="text-yellow"), k=1) == ["yellow"]
    assert world.ids(QueryPart(image_id="black"), k=1, target="texts") == ["text-black"]


def test_a_picture_sent_along_finds_its_like(world: World, tmp_path: Path) -> None:
    path = tmp_path / "query"
    path.write_bytes(picture("yellow", seed=5))
    assert world.ids(QueryPart(picture=path), k=1) == ["yellow"]


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"words", UnsupportedMediaType), (picture("red")[:60], ImageCorrupt)],
)
def test_a_picture_sent_along_that_is_none_is_refused(
    world: World, tmp_path: Path, content: bytes, error: type[SightlineError]
) -> None:
    path = tmp_path / "query"
    path.write_bytes(content)
    with pytest.raises(error):
        world.ids(QueryPart(picture=path))


def test_what_is_not_here_or_has_no_vector_is_told(world: World) -> None:
    insert(world.database, 99, "queued")
    with pytest.raises(NotFound, match="no image 'unknown'"):
        world.ids(QueryPart(image_id="unknown"))
    with pytest.raises(NotFound, match="no text 'unknown'"):
        world.ids(QueryPart(text_id="unknown"))
    with pytest.raises(Validation, match="image 'queued' has no vector"):
        world.ids(QueryPart(image_id="queued"))


def test_a_vector_is_scaled_to_length_1_and_searched(world: World) -> None:
    blue = ENCODER.encode_texts(["blue"])[0]
    for factor in (1.0, 1e-3, 1e30):  # the squares of the last are beyond float32
        scaled = QueryPart(vector=[float(x) * factor for x in blue])
        (hit,) = world.searcher.search(SearchQuery([scaled], k=1)).hits
        assert hit.id == "blue"
        assert hit.score == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("vector", "why"),
    [
        ([1.0] * 59, "has 60 numbers, not 59"),
        ([], "has 60 numbers, not 0"),
        ([0.0] * 60, "finite and not zero"),
        ([float("nan")] + [1.0] * 59, "finite and not zero"),
        ([float("inf")] + [1.0] * 59, "finite and not zero"),
    ],
)
def test_a_vector_that_cannot_be_searched_is_refused(world: World, vector: Sequence[float], why: str) -> None:
    with pytest.raises(Validation, match=why):
        world.ids(QueryPart(vector=vector))


def test_deleted_rows_are_dropped_and_k_is_still_filled(database: Database, pool: DecodePool) -> None:
    world = World(database, pool)
    keys = [world.picture(n, f"i{n:03}", "red") for n in range(EXTRA_HITS + 40)]
    for key in keys[: EXTRA_HITS + 30]:  # more than the spare: the index has not followed yet
        database.write(lambda c, key=key: images.delete(c, key))  # type: ignore[misc]
    assert world.ids(QueryPart(text="red"), k=5) == [f"i{n:03}" for n in range(EXTRA_HITS + 30, EXTRA_HITS + 35)]
    assert len(world.ids(QueryPart(text="red"), k=50)) == 10
    world.batcher.close()


def test_pictures_that_are_not_ready_any_more_are_dropped(world: World) -> None:
    world.database.write(lambda c: images.requeue(c, images.get(c, "default", "red").key, None))  # type: ignore[union-attr]
    assert "red" not in world.ids(QueryPart(text="red"), k=5)


def test_k_beyond_what_there_is_gives_what_there_is(world: World) -> None:
    assert len(world.ids(QueryPart(text="red"), k=1000)) == 5


def test_an_empty_index_gives_no_hits(database: Database, pool: DecodePool) -> None:
    world = World(database, pool)
    found = world.searcher.search(SearchQuery([QueryPart(text="red")]))
    assert (found.hits, found.searched) == ([], 0)
    world.batcher.close()


class Counting(FlatIndex):
    """Remembers how it was searched."""

    def __init__(self, d: int) -> None:
        super().__init__(d)
        self.searches: list[tuple[int, int, SearchParams | None]] = []

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        self.searches.append((len(queries), k, params))
        return super().search(queries, k, params)


def test_many_questions_are_answered_in_order_each_as_if_alone(world: World, tmp_path: Path) -> None:
    path = tmp_path / "query"
    path.write_bytes(picture("green", seed=6))
    questions = [
        SearchQuery([QueryPart(text="red")], k=2),
        SearchQuery([QueryPart(text="red")], "texts", 3),
        SearchQuery([QueryPart(picture=path), QueryPart(text="red", weight=0.1)], k=1),
        SearchQuery([QueryPart(image_id="blue")], k=100),
        SearchQuery([QueryPart(text="yellow", weight=-1)], k=5, exact=True),
    ]
    for question, found in zip(questions, world.searcher.search_all(questions), strict=True):
        assert isinstance(found, SearchResult)
        alone = world.searcher.search(question)
        assert [hit.id for hit in found.hits] == [hit.id for hit in alone.hits]
        assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in alone.hits], abs=1e-6)
        assert found.searched == 5
    assert world.searcher.search_all([]) == []


def test_questions_of_one_kind_share_one_search_of_the_index(world: World) -> None:
    counting = Counting(60)
    counting.add(np.array([1]), ENCODER.encode_texts(["red"]))
    world.indexes["images"] = counting
    world.searcher.search_all([SearchQuery([QueryPart(text=colour)], k=10) for colour in COLOURS])
    assert [(n, k) for n, k, _ in counting.searches] == [(5, 10 + EXTRA_HITS)]
    counting.searches.clear()
    world.searcher.search_all([SearchQuery([QueryPart(text="red")], k=k) for k in (5, 10, 15, 1000)])
    assert sorted((n, k) for n, k, _ in counting.searches) == [(1, 1000 + EXTRA_HITS), (3, 15 + EXTRA_HITS)]
    counting.searches.clear()
    red = [QueryPart(text="red")]
    world.searcher.search_all(
        [
            SearchQuery(red),
            SearchQuery(red, exact=True),
            SearchQuery(red, nprobe=4, refine_k=50),
            SearchQuery(red, effort="fast"),
            SearchQuery(red, effort="exact"),
        ]
    )
    assert [params for _, _, params in counting.searches] == [
        SearchParams(),
        SearchParams(exact=True),
        SearchParams(nprobe=4, refine_k=50),
        SearchParams(effort="fast"),
    ]


def test_a_question_without_an_answer_says_why_and_leaves_the_others_theirs(world: World, tmp_path: Path) -> None:
    broken = tmp_path / "query"
    broken.write_bytes(picture("red")[:60])
    red = QueryPart(text="red")
    answers = world.searcher.search_all(
        [
            SearchQuery([red], k=1),
            SearchQuery([QueryPart(image_id="unknown")]),
            SearchQuery([red, QueryPart(text="red", weight=-1)]),
            SearchQuery([QueryPart(picture=broken)]),
            SearchQuery([QueryPart(image_id="blue")], k=1),
        ]
    )
    assert [hit.id for one in answers if isinstance(one, SearchResult) for hit in one.hits] == ["red", "blue"]
    assert [type(one) for one in answers[1:4]] == [NotFound, Validation, ImageCorrupt]


def test_when_the_encoder_is_busy_no_question_is_answered(world: World) -> None:
    world.batcher.close()
    with pytest.raises(ModelUnavailable):
        world.searcher.search_all([SearchQuery([QueryPart(image_id="red")]), SearchQuery([QueryPart(text="red")])])


def test_many_questions_are_filled_up_when_rows_were_deleted(database: Database, pool: DecodePool) -> None:
    world = World(database, pool)
    keys = [world.picture(n, f"i{n:03}", "red") for n in range(EXTRA_HITS + 40)]
    for key in keys[: EXTRA_HITS + 30]:
        database.write(lambda c, key=key: images.delete(c, key))  # type: ignore[misc]
    few, all_there_is = world.searcher.search_all([SearchQuery([QueryPart(text="red")], k=k) for k in (5, 50)])
    assert isinstance(few, SearchResult)
    assert isinstance(all_there_is, SearchResult)
    assert [hit.id for hit in few.hits] == [f"i{n:03}" for n in range(EXTRA_HITS + 30, EXTRA_HITS + 35)]
    assert len(all_there_is.hits) == 10
    world.batcher.close()


def test_what_an_index_was_asked_is_noted_once_it_has_answered(world: World, pool: DecodePool) -> None:
    noted: list[Any] = []
    searcher = Searcher(
        world.database,
        ENCODER,
        world.batcher,
        pool,
        lambda _, target: nullcontext(world.indexes[target]),
        record_query=lambda *told: noted.append((told, searcher.running)),
    )
    searcher.search_all(
        [SearchQuery([QueryPart(text="red")], k=3), SearchQuery([QueryPart(text="blue")], "texts", 4, exact=True)]
    )
    searcher.search_all([SearchQuery([QueryPart(image_id="unknown")])])
    (images_, running), (texts_, _) = noted
    assert images_[:2] == (("default", "images"), world.indexes["images"])
    np.testing.assert_array_equal(images_[2], ENCODER.encode_texts(["red"])[0])
    assert images_[3:] == (SearchParams(), 3 + EXTRA_HITS)
    assert texts_[3:] == (SearchParams(exact=True), 4 + EXTRA_HITS)
    assert (running, searcher.running) == (1, 0)


def test_a_row_of_another_collection_is_never_an_answer(world: World) -> None:
    def work(c: Any) -> int:
        collections.create(c, "elsewhere", "")
        return texts.put(c, "elsewhere", "secret", "red", {}).key

    stray = world.database.write(work)
    world.indexes["texts"].add(np.array([stray]), ENCODER.encode_texts(["red"]))
    assert "secret" not in world.ids(QueryPart(text="red"), k=100, target="texts")


def test_classify_gives_probabilities_that_sum_to_1_likeliest_first(world: World) -> None:
    shares = world.searcher.zero_shot.classify(
        "default", QueryPart(image_id="red"), ["blue", "red", "green"], "a {} thing"
    )
    assert shares[0][0] == "red"
    assert sum(share for _, share in shares) == pytest.approx(1.0)
    assert [share for _, share in shares] == sorted((share for _, share in shares), reverse=True)
    assert shares[0][1] > 0.99


def test_classify_is_a_softmax_of_the_cosines_by_the_models_temperature(world: World) -> None:
    labels = ["red and blue", "blue", "a cat"]
    shares = dict(world.searcher.zero_shot.classify("default", QueryPart(image_id="red"), labels, "{}"))
    logits = ENCODER.temperature * ENCODER.encode_texts(labels) @ ENCODER.encode_texts(["red"])[0]
    odds = np.exp(logits)
    for label, expected in zip(labels, odds / odds.sum(), strict=True):
        assert shares[label] == pytest.approx(float(expected), rel=1e-4)


def test_a_model_with_a_bias_judges_each_pair_alone(database: Database, pool: DecodePool) -> None:
    class Sigmoid(DummyEncoder):
        logit_bias = -10.0

    world = World(database, pool)
    world.picture(1, "red", "red")
    searcher = Searcher(database, Sigmoid(), world.batcher, pool, lambda _, target: nullcontext(world.indexes[target]))
    labels = ["red", "red and blue", "blue"]
    cosines = ENCODER.encode_texts(labels) @ ENCODER.encode_texts(["red"])[0]
    expected = 1 / (1 + np.exp(10 - ENCODER.temperature * cosines))
    named = searcher.zero_shot.classify("default", QueryPart(image_id="red"), labels, "{}")
    assert [label for label, _ in named] == labels
    np.testing.assert_allclose([share for _, share in named], expected, rtol=1e-4)
    matched = searcher.zero_shot.match("default", QueryPart(image_id="red"), labels)
    np.testing.assert_allclose(np.array(matched, float), np.column_stack([cosines, expected]), rtol=1e-4, atol=1e-6)
    world.batcher.close()


def test_hubs_are_ranked_down_and_the_score_stays_the_cosine(world: World) -> None:
    keys = [world.key(colour) for colour in COLOURS]
    biases = HubBiases(np.sort(np.array(keys)), np.array([2.0, 0, 0, 0, 0], np.float32), 0.0)
    world.searcher.profiles._measured["default"] = Profile(size=1_000, hubs=biases)
    query = SearchQuery([QueryPart(text="red")], k=5, mode="vector")
    found = world.searcher.search(query)
    assert found.is_normalised
    assert found.hits[-1].id == "red"
    assert found.hits[-1].score == pytest.approx(1.0, abs=1e-5)
    assert found.hits[-1].ranks == {"vector": 5}
    for other in (replace(query, exact=True, mode=None), replace(query, parts=[QueryPart(image_id="red")])):
        plain = world.searcher.search(other)
        assert (plain.hits[0].id, plain.is_normalised) == ("red", False)


def test_words_beside_a_picture_count_by_the_measured_trust(world: World) -> None:
    world.describe("blue", "a frog")
    world.searcher.profiles._measured["default"] = Profile(size=1_000, trust=0.25)
    parts = [QueryPart(text="frog"), QueryPart(image_id="red")]
    found = world.searcher.search(SearchQuery(parts, mode="hybrid"))
    assert (found.trust, found.verdict) == (0.25, None)


def test_measured_templates_are_used_for_few_words(world: World) -> None:
    world.searcher.profiles._measured["default"] = Profile(size=1_000, templates=("{}", "{} and green"))
    query = SearchQuery([QueryPart(text="red")], mode="vector")
    found = world.searcher.search(query)
    assert found.templates == ("{}", "{} and green")
    assert found.hits[0].score < 0.99
    for other in (
        replace(query, parts=[QueryPart(text="a red thing in a room")]),
        replace(query, target="texts"),
        replace(query, exact=True, mode=None),
        replace(query, templates=PLAIN),
    ):
        assert world.searcher.search(other).templates == ()


def test_a_label_fills_every_blank_of_the_template_as_it_is(database: Database, pool: DecodePool) -> None:
    asked: list[str] = []

    class Listening(DummyEncoder):
        def encode_texts(self, texts: Sequence[str]) -> Embeddings:
            asked.extend(texts)
            return super().encode_texts(texts)

    world = World(database, pool)
    world.picture(1, "red", "red")
    encoder = Listening()
    batcher = Batcher(encoder)
    searcher = Searcher(database, encoder, batcher, pool, lambda _, target: nullcontext(world.indexes[target]))
    searcher.zero_shot.classify("default", QueryPart(image_id="red"), ["red", "{}", r"\1"], "{label}, {}: {label}")
    assert asked == ["red, red: red", "{}, {}: {}", r"\1, \1: \1"]
    batcher.close()
    world.batcher.close()


def test_the_vectors_of_texts_are_as_the_log_keeps_them(world: World) -> None:
    (packed,) = world.searcher.encode_texts(["blue"])
    np.testing.assert_array_equal(np.frombuffer(packed, "<f4"), ENCODER.encode_texts(["blue"])[0])


def test_a_vector_that_is_not_finite_never_leaves_for_the_log(database: Database, pool: DecodePool) -> None:
    class Broken(DummyEncoder):
        def encode_texts(self, texts: Sequence[str]) -> Embeddings:
            return np.full((len(texts), 60), np.nan, np.float32)

    batcher = Batcher(Broken())
    searcher = Searcher(database, Broken(), batcher, pool, lambda *_: nullcontext(FlatIndex(60)))
    with pytest.raises(ValueError, match="not finite"):
        searcher.encode_texts(["a"])
    with pytest.raises(Validation):
        searcher.embed("default", [QueryPart(text="a")])
    batcher.close()


def test_a_filter_finds_k_hits_wherever_k_are_let_through(world: World) -> None:
    for n in range(60):
        world.picture(10 + n, f"p{n}", "red")
    even = [f"p{n}" for n in range(0, 60, 2)]
    found = world.searcher.search(
        SearchQuery([QueryPart(text="red")], k=40, filter=parse_filter({"has_id": even}, "images"))
    )
    assert sorted(hit.id for hit in found.hits) == sorted(even)
    assert found.searched == 30
    worst = parse_filter({"has_id": ["blue", "black"]}, "images")  # what a search without a filter finds last
    assert set(world.search_filtered(worst, "red", k=5)) == {"blue", "black"}
    assert world.search_filtered(parse_filter({"has_id": ["nothing"]}, "images"), "red") == []


def test_questions_with_one_filter_share_a_search_and_each_filter_holds_for_its_own(world: World) -> None:
    counting = Counting(60)
    for colour in COLOURS:
        counting.add(np.array([world.key(colour)]), ENCODER.encode_texts([colour]))
    world.indexes["images"] = counting
    cold, warm = (parse_filter({"has_id": ids}, "images") for ids in (["blue", "green"], ["red", "yellow", "nothing"]))
    red, blue = [QueryPart(text="red")], [QueryPart(text="blue")]
    questions = [
        SearchQuery(red, k=5, filter=cold),
        SearchQuery(blue, k=5, filter=warm),
        SearchQuery(blue, k=5, filter=cold),
        SearchQuery(blue, k=1),
    ]
    answers = [found for found in world.searcher.search_all(questions) if isinstance(found, SearchResult)]
    assert [{hit.id for hit in found.hits} for found in answers] == [
        {"blue", "green"},
        {"red", "yellow"},
        {"blue", "green"},
        {"blue"},
    ]
    assert [found.searched for found in answers] == [2, 2, 2, 5]
    assert sorted(n for n, _, _ in counting.searches) == [1, 1, 2]


def test_a_filter_is_that_of_the_rows_at_the_search(world: World) -> None:
    only = parse_filter({"key": "caption", "match": {"text": "mine"}}, "images")
    assert world.search_filtered(only, "red") == []
    world.describe("red", "this is mine")
    assert world.search_filtered(only, "red") == ["red"]
    world.describe("red", "this is yours")
    assert world.search_filtered(only, "red") == []
    world.describe("green", "mine too")
    world.database.write(lambda c: images.delete(c, world.key("green")))
    assert world.search_filtered(only, "green") == []


def test_texts_are_filtered_too(world: World) -> None:
    only = parse_filter({"must_not": [{"key": "text", "match": {"text": "RED"}}]}, "texts")
    assert set(world.search_filtered(only, "red", target="texts", k=9)) == {
        f"text-{name}" for name in COLOURS if name != "red"
    }


def test_the_first_hits_of_words_are_the_same_for_every_k(world: World) -> None:
    for n in range(10, 110):
        world.picture(n, f"p{n}", COLOURS[n % len(COLOURS)])
        world.describe(f"p{n}", f"a frog number {n}" if n % 3 else f"a {COLOURS[n % 4]} door")
    words = QueryPart(text="red frog number 7")
    whole = world.ids(words, k=105)
    assert len(set(whole)) == 105
    for k in (1, 5, 15, 59, 61, 76):
        assert world.ids(words, k=k) == whole[:k]


def test_a_keyword_search_finds_as_many_as_are_asked_for(world: World) -> None:
    for n in range(10, 110):
        world.picture(n, f"p{n}", COLOURS[n % len(COLOURS)])
        world.describe(f"p{n}", f"frog {n}")
    query = SearchQuery([QueryPart(text="frog")], k=90, mode="keyword")
    found = world.searcher.search(query)
    assert len({hit.id for hit in found.hits}) == 90
    assert (found.mode, found.trust, found.searched) == ("keyword", None, 0)
    assert all(set(hit.ranks) == {"keyword"} and hit.highlights == {"caption": ["frog"]} for hit in found.hits[:60])
    few = world.searcher.search(
        replace(query, k=3, filter=parse_filter({"key": "caption", "match": {"text": "50"}}, "images"))
    )
    assert [hit.id for hit in few.hits] == ["p50"]


def test_words_find_a_picture_that_a_filter_permits_alone(world: World) -> None:
    for n in range(10, 110):
        world.picture(n, f"p{n}", "red")
        world.describe(f"p{n}", f"frog {n}")
    only = parse_filter({"key": "caption", "match": {"text": "77"}}, "images")
    assert world.search_filtered(only, "frog", k=5) == ["p77"]


def test_deleted_pictures_leave_room_for_others(world: World) -> None:
    for n in range(10, 110):
        world.picture(n, f"p{n}", "red")
        world.describe(f"p{n}", "frog" if n < 60 else "toad")
    gone = [world.key(f"p{n}") for n in range(10, 60)]
    for key in gone:
        world.database.write(partial(images.delete, key=key))
    hits = world.ids(QueryPart(text="frog"), k=20)
    assert len(hits) == 20
    assert not set(hits) & {f"p{n}" for n in range(10, 60)}


ODD_QUERIES = {
    "quote": '"',
    "star": "*",
    "operators": 'NEAR("red" NOT blue*) AND caption:green ^x + {y} -',
    "minus": "-",
    "emoji": "🔴",
    "sign": "™",
    "control": "\0\u202e\ufeff",
    "long": "red " * 250,
    "one long word": "r" * 1_000,
    "right to left": "אדום ירוק كحل",
    "combining": "e\u0301" * 50,
}


@pytest.mark.parametrize("query", ODD_QUERIES.values(), ids=ODD_QUERIES.keys())
def test_odd_queries_are_answered_with_captions_without_and_in_an_empty_collection(query: str, world: World) -> None:
    world.database.write(lambda c: collections.create(c, "empty", ""))
    part = [QueryPart(text=query)]
    for mode in ("hybrid", "keyword", None):  # nothing has a caption
        found = world.searcher.search(SearchQuery(part, mode=mode))
        assert len(found.hits) == (0 if mode == "keyword" else len(COLOURS))
    world.indexes["images"], kept = FlatIndex(60), world.indexes["images"]
    assert world.searcher.search(SearchQuery(part, collection="empty", mode="hybrid")).hits == []
    world.indexes["images"] = kept
    world.describe("blue", "a quiet lake")
    plain = world.searcher.search(SearchQuery(part, mode="vector")).hits
    assert [hit.id for hit in world.searcher.search(SearchQuery(part)).hits] == [hit.id for hit in plain]
    world.describe("blue", query)
    both = world.searcher.search(SearchQuery(part)).hits
    assert sorted(hit.id for hit in both) == sorted(COLOURS)
    if any(character.isalnum() for character in query):
        assert (both[0].id, list(both[0].highlights)) == ("blue", ["caption"])


@pytest.mark.parametrize("caption", ["Café Zürich", "שלום עולם", "قهوة في بيروت", "한국어 사진", "ガラス"])
def test_a_caption_is_found_in_each_form_of_unicode(caption: str, world: World) -> None:
    for stored in ("NFC", "NFD"):
        world.describe("green", unicodedata.normalize(stored, caption))
        for typed in ("NFC", "NFD"):
            words = unicodedata.normalize(typed, caption)
            (hit,) = world.searcher.search(SearchQuery([QueryPart(text=words)], mode="keyword")).hits
            assert (hit.id, list(hit.highlights)) == ("green", ["caption"])


def test_a_hybrid_search_ranks_as_the_rankings_fused_by_hand(world: World) -> None:
    for colour, caption in {"red": "a lake", "green": "a red lake", "blue": "red", "yellow": "reddish lake"}.items():
        world.describe(colour, caption)
    part = [QueryPart(text="a red lake")]
    vectors = [hit.image for hit in world.searcher.search(SearchQuery(part, mode="vector")).hits]
    described = {image.key: image.description for image in vectors if image}
    terms = keywords.split_query("a red lake")
    by_words = world.database.read(lambda c: list(dict.fromkeys(keywords.find(c, "default", terms))))
    fused = fuse(terms, described, [image.key for image in vectors if image], by_words, EQUAL_WEIGHTS, DEFAULT_TRUST)
    hits = world.searcher.search(SearchQuery(part)).hits
    assert [(hit.image.key, hit.ranks) for hit in hits if hit.image] == [(place.key, place.ranks) for place in fused]
    assert hits[0].id == "green"


def test_what_is_arranged_looks_at_a_bounded_part_of_the_ranking(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher_module, "MAX_ARRANGED", 3)
    grouped = Arrangement(group=Field("month"), group_size=100)
    (part,) = [QueryPart(text="blue")]
    for k in (2, 5):
        found = world.searcher.search(SearchQuery([part], k=k, mode="vector", arrangement=grouped)).hits
        assert [hit.id for hit in found] == world.ids(part, k=3)[:k]


def test_the_verdict_is_of_the_ranking_whatever_page_is_shown(world: World) -> None:
    world.describe("blue", "a blue car")
    part = QueryPart(text="blue car")
    verdicts = [
        world.searcher.search(SearchQuery([part], k=1, mode="keyword", arrangement=Arrangement(offset=n))).verdict
        for n in range(2)
    ]
    assert verdicts[0] is not None
    assert verdicts[0] == verdicts[1]
    liked = world.searcher.search(SearchQuery([part], k=1, like=["red"]))
    assert liked.verdict is None


def test_a_batch_reads_as_often_as_one_query(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = world.database.read

    def count(work: Any) -> Any:
        reads.append(1)
        return read(work)

    monkeypatch.setattr(world.database, "read", count)
    queries = [SearchQuery([QueryPart(text=colour)], k=3) for colour in COLOURS]
    world.searcher.search_all(queries[:1])
    once = len(reads)
    reads.clear()
    found = world.searcher.search_all(queries)
    assert [one.hits[0].id for one in found if isinstance(one, SearchResult)] == list(COLOURS)
    assert len(reads) == once
