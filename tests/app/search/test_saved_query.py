"""Queries as they are kept, and which pictures are near enough for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.core.types import SavedSearch
from app.encoder.dummy import DummyEncoder
from app.search.collection_profile import Profile
from app.search.query import PreparedQuery
from app.search.saved_query import GOOD, judge_nearness, read_query
from app.search.templates import PLAIN
from app.search.verdict import Calibration, Spread

ENCODER = DummyEncoder()
SAMPLE = ENCODER.encode_texts(["red", "green", "blue", "white", "red green", "blue white"])


def saved(**body: Any) -> SavedSearch:
    query = {"query": [{"text": "red"}], **body}
    return SavedSearch("0" * 16, "birds~1", "birds", "mine", query, None, 1, 0, 0, 0, None, "", None)


def prepare(unknown: float = 0.0, **body: Any) -> PreparedQuery:
    return PreparedQuery(read_query(saved(**body)), ENCODER.encode_texts(["red"])[0], (), unknown)


def test_a_body_becomes_the_query_that_it_was() -> None:
    query = read_query(
        saved(
            query=[
                {"text": "red", "weight": 0.5},
                {"image_id": "a"},
                {"text_id": "b"},
                {"vector": [1.0], "weight": -1},
            ],
            mode="vector",
            score_threshold=0.3,
            filter={"must": [{"key": "format", "match": {"value": "png"}}]},
            like=["x"],
            unlike=["y"],
            exact=True,
            k=50,
        )
    )
    assert [(part.kind, part.weight) for part in query.parts] == [
        ("texts", 0.5),
        ("images", 1.0),
        ("texts", 1.0),
        (None, -1),
    ]
    assert (query.collection, query.k, query.mode, query.score_threshold, query.exact) == (
        "birds",
        1,
        "vector",
        0.3,
        True,
    )
    assert (query.like, query.unlike) == (("x",), ("y",))
    assert query.filter is not None


@pytest.mark.parametrize(
    ("sent", "read"), [("auto", None), (["auto"], None), ("none", PLAIN), (["none"], PLAIN), (["a {}"], ("a {}",))]
)
def test_templates_are_read_as_in_a_search(sent: Any, read: Any) -> None:
    assert read_query(saved(templates=sent)).templates == read


def test_a_cosine_is_near_from_the_threshold_on_and_of_words_alone_none_is() -> None:
    scores = np.array([0.2, 0.5, np.nan])
    assert judge_nearness(prepare(score_threshold=0.5), None, Profile(), scores) == [False, True, False]
    assert judge_nearness(prepare(), None, Profile(), scores) == [False, False, False]


def test_good_needs_a_calibration_and_words_that_the_model_knows() -> None:
    scores = np.array([0.1, 0.9])
    known = Profile(9, spread=Spread.of(SAMPLE), calibration=Calibration(-5.0, (10.0, 0.0), 0.0, 0.0, 1.0))
    assert judge_nearness(prepare(), GOOD, known, scores) == [False, True]
    assert judge_nearness(prepare(score_threshold=0.95), GOOD, known, scores) == [False, False]
    assert judge_nearness(prepare(), GOOD, Profile(), scores) == [False, False]
    assert judge_nearness(prepare(unknown=0.6), GOOD, known, scores) == [False, False]
