"""The best of many scores, against a plain sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.topk import make_padding, merge_top_k, select_top_k

scored = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 10**6)), unique_by=lambda pair: pair[1], max_size=60)


@given(scored, st.integers(0, 70))
def test_the_best_are_those_of_a_sort(pairs: list[tuple[int, int]], k: int) -> None:
    scores = np.array([score for score, _ in pairs], np.float32)
    ids = np.array([id for _, id in pairs], np.int64)
    expected = sorted(((-score, id) for score, id in pairs))[:k]
    found = select_top_k(scores, ids, k)
    assert list(zip((-found[0]).tolist(), found[1].tolist(), strict=True)) == expected


@given(scored, st.integers(0, 9), st.data())
def test_two_answers_merge_to_the_answer_about_both(pairs: list[tuple[int, int]], k: int, data: st.DataObject) -> None:
    first = data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    answers = []
    for side in (True, False):
        part = [pair for pair, chosen in zip(pairs, first, strict=True) if chosen is side]
        answer = make_padding(1, k)
        found = select_top_k(np.array([s for s, _ in part], np.float32), np.array([i for _, i in part], np.int64), k)
        answer[0][0, : len(found[0])], answer[1][0, : len(found[1])] = found
        answers.append(answer)
    scores, ids = merge_top_k(*answers)
    expected = sorted(((-score, id) for score, id in pairs))[:k]
    assert ids[0][: len(expected)].tolist() == [id for _, id in expected]
    assert (ids[0][len(expected) :] == -1).all()
    assert np.isneginf(scores[0][len(expected) :]).all()


@pytest.mark.parametrize("k", [0, 3])
def test_an_empty_answer_is_padding(k: int) -> None:
    scores, ids = make_padding(2, k)
    assert (scores.shape, ids.shape) == ((2, k), (2, k))
    assert np.isneginf(scores).all()
    assert (ids == -1).all()
