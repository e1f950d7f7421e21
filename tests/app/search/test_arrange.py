from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.types import Hit, Text
from app.encoder.protocol import Embeddings
from app.search.arrange import (
    DIVERSE_DEPTH,
    SAME_PICTURE,
    WINDOW,
    Arrangement,
    apply_feedback,
    arrange,
    collapse,
    describe,
    diversify,
    limit_groups,
    order_hits,
    warn_of_fields,
)
from app.storage.filters.model import Field
from app.storage.filters.values import parse_order


def units(count: int, d: int = 8, seed: int = 0) -> Embeddings:
    vectors = np.random.default_rng(seed).standard_normal((count, d)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def collapse_slowly(vectors: Embeddings, threshold: float) -> dict[int, list[int]]:
    kept: dict[int, list[int]] = {}
    for n, vector in enumerate(vectors):
        near = [one for one in kept if n - one <= WINDOW and float(vector @ vectors[one]) >= threshold]
        if near:
            kept[near[0]].append(n)
        else:
            kept[n] = []
    return kept


@pytest.mark.parametrize("count", [0, 1, 7, WINDOW, 2 * WINDOW + 5])
def test_collapse_keeps_the_best_of_near_duplicates(count: int) -> None:
    vectors = units(max(1, count // 3), 3)[np.random.default_rng(1).integers(0, max(1, count // 3), count)]
    kept = collapse(vectors, 0.9)
    assert kept == collapse_slowly(vectors, 0.9)
    assert sorted([*kept, *(one for some in kept.values() for one in some)]) == list(range(count))


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 30))
def test_what_collapse_keeps_does_not_depend_on_how_many_are_looked_at(which: list[int], some: int) -> None:
    vectors = np.eye(4, dtype=np.float32)[which] if which else np.empty((0, 4), np.float32)
    kept = [n for n in collapse(vectors) if n < some]
    assert [*collapse(vectors[:some])] == kept


def test_a_duplicate_is_no_reason_to_drop_what_is_only_like_it() -> None:
    """A chain: the second is like the first, the third like the second alone."""
    angles = np.arccos(SAME_PICTURE) * np.array([0.0, 0.9, 1.8])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert collapse(vectors) == {0: [1], 2: []}


def test_groups_keep_their_first_hits_and_hits_without_a_group_stay() -> None:
    groups = ["a", "b", None, "a", "a", None, "b"]
    assert limit_groups(groups, 1) == [0, 1, 2, 5]
    assert limit_groups(groups, 2) == [0, 1, 2, 3, 5, 6]
    assert limit_groups([], 1) == []


def test_diversity_puts_another_kind_before_the_next_of_the_same() -> None:
    near = units(4, seed=1)
    same, other = near[[0, 0, 0]] + np.float32(1e-3), near[[1]]
    vectors = np.concatenate([same, other])
    assert diversify(vectors, 0.0) == [0, 1, 2, 3]
    assert diversify(vectors, 0.7)[:2] == [0, 3]
    assert diversify(vectors[:2], 1.0) == [0, 1]
    assert diversify(vectors[:0], 1.0) == []


@given(st.integers(0, 40), st.floats(0, 1))
def test_diversity_gives_every_hit_once_and_the_best_first(count: int, diversity: float) -> None:
    order = diversify(units(count, 4), diversity)
    assert sorted(order) == list(range(count))
    assert order[:1] == [0][:count]


def test_equal_pictures_keep_their_order() -> None:
    assert diversify(np.ones((5, 1), np.float32), 1.0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("has_words", [True, False])
def test_feedback_turns_the_query_to_what_is_liked_and_from_what_is_not(has_words: bool) -> None:
    query, liked, unliked = np.eye(3, dtype=np.float32)
    moved = apply_feedback(query, liked[None], unliked[None], has_words=has_words)
    assert float(np.linalg.norm(moved)) == pytest.approx(1.0, abs=1e-6)
    assert moved[0] > moved[1] > 0 > moved[2]
    assert apply_feedback(query, liked[:0].reshape(0, 3), unliked[None], has_words=has_words)[1] == 0
    assert apply_feedback(query, liked[None], np.empty((0, 3), np.float32), has_words=has_words)[2] == 0


def test_pictures_count_less_beside_words() -> None:
    query, liked, _ = np.eye(3, dtype=np.float32)
    none = np.empty((0, 3), np.float32)
    beside_words = apply_feedback(query, liked[None], none, has_words=True)
    assert beside_words[1] < apply_feedback(query, liked[None], none, has_words=False)[1]


def test_an_arrangement_that_moves_nothing_is_not_selective() -> None:
    assert not Arrangement(offset=5, facets=(Field("tags"),)).is_selective
    assert Arrangement(collapse=True).is_selective
    assert Arrangement(group=Field("day")).is_selective
    assert Arrangement(diversity=0.1).is_selective


def make_hits(values: list[object]) -> list[Hit]:
    """A ranking of texts with these values of `n` in their metadata; text number n has key n."""
    return [
        Hit(f"t{n}", 1 - n / 1000, text=Text(n, "default", f"t{n}", "words", {"n": value}, "2026-01-02T03:04:05.000Z"))
        for n, value in enumerate(values)
    ]


def pack(vectors: Embeddings) -> dict[int, bytes]:
    return {n: vector.astype("<f4").tobytes() for n, vector in enumerate(vectors)}


def test_more_of_the_ranking_is_needed_until_nothing_shown_can_change() -> None:
    wanted = Arrangement(collapse=True)
    vectors = pack(np.eye(WINDOW + 3, dtype=np.float32))
    hits = make_hits([None] * (WINDOW + 3))
    assert arrange(hits, vectors, wanted, 2).is_settled
    assert not arrange(hits, vectors, wanted, 4).is_settled  # the fourth may have duplicates further down
    assert not arrange(hits[:1], vectors, wanted, 2).is_settled
    diverse = Arrangement(diversity=0.5)
    assert not arrange(hits[: DIVERSE_DEPTH - 1], vectors, diverse, 2).is_settled
    assert arrange(hits, vectors, diverse, 2).is_settled
    grouped = Arrangement(group=Field("day"))
    assert [hit.id for hit in arrange(hits, {}, grouped, 2).hits] == ["t0"]
    assert not arrange(hits, {}, grouped, 2).is_settled
    assert arrange([], {}, wanted, 2).hits == []


def test_a_hit_without_a_vector_is_left_out_where_vectors_are_compared() -> None:
    vectors = pack(np.eye(3, dtype=np.float32))
    del vectors[1]
    for wanted in (Arrangement(collapse=True), Arrangement(diversity=1.0)):
        assert sorted(hit.id for hit in arrange(make_hits([None] * 3), vectors, wanted, 3).hits) == ["t0", "t2"]


def test_groups_know_the_types_of_values() -> None:
    hits = make_hits([1, True, 1.0, "1", None, None, [1], [1]])
    kept = arrange(hits, {}, Arrangement(group=Field("metadata", ("n",))), 10).hits
    assert [hit.id for hit in kept] == ["t0", "t1", "t3", "t4", "t5", "t6", "t7"]


def test_hits_are_ordered_and_odd_entries_told() -> None:
    hits = make_hits(["b", 2, None, "a", 1])
    order = parse_order("-metadata.n", "texts")
    assert [hit.id for hit in order_hits(hits, order)] == ["t0", "t3", "t1", "t4", "t2"]
    assert order_hits(hits, None) == order_hits(hits, parse_order("score", "texts")) == hits
    (odd,) = warn_of_fields(hits, Arrangement(order=order, group=Field("metadata", ("n",))))
    assert (odd.code, odd.field) == ("field_other_values", "order_by")
    (none,) = warn_of_fields(hits[2:3], Arrangement(group=Field("metadata", ("n",))))
    assert (none.code, none.field) == ("field_no_value", "group_by")
    assert warn_of_fields([], Arrangement(order=order)) == []
    assert warn_of_fields(hits, Arrangement(order=parse_order("created_at", "texts"))) == []


def test_what_is_off_is_not_described() -> None:
    assert describe(Arrangement(), (0.0, 0.0)) == {}
    wanted = Arrangement(order=parse_order("-created_at", "texts"), group=Field("day"), diversity=0.5, collapse=True)
    assert describe(wanted, (0.2, 0.1)) == {
        "order_by": "-created_at",
        "group_by": "day",
        "diversity": 0.5,
        "collapse": SAME_PICTURE,
        "like": 0.2,
        "unlike": 0.1,
    }


def test_feedback_that_leaves_nothing_changes_nothing() -> None:
    query = np.array([1, 0], np.float32)
    moved = apply_feedback(query, -query[None], query[None], has_words=False)
    assert moved.tolist() == query.tolist()
