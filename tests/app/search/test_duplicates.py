from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.search import duplicates
from app.search.duplicates import Group, find_candidates, group_pairs, join_hashes, judge_pairs, unpack_hashes


def make_hash(bits: int, sketch: int = 0) -> bytes:
    """Of a picture with contrasts; `sketch` is added to its colours."""
    return bits.to_bytes(8, "little") + bytes([40 + sketch, (216 + sketch) % 256] * 24)


def candidates(
    stored: list[bytes | None], scores: Any = (), neighbours: Any = (), start: int = 0
) -> list[tuple[int, int]]:
    """The candidates among pictures of these hashes; `scores` and `neighbours` are those of the rows from `start`."""
    own = np.arange(start, start + len(scores), dtype=np.int64)
    width = len(scores[0]) if len(scores) else 0
    near = np.array(scores, np.float32).reshape(-1, width or 1), np.array(neighbours, np.int64).reshape(-1, width or 1)
    found = find_candidates(unpack_hashes(stored), start, len(stored), own, *near)
    return list(zip(*(rows.tolist() for rows in found), strict=True))


def test_similar_hashes_are_candidates_once() -> None:
    stored: list[bytes | None] = [
        make_hash(0),
        make_hash(0xFFFF),
        make_hash(0x1FFFF),
        None,
        b"",
        make_hash((1 << 64) - 1),
    ]
    assert candidates(stored) == [(1, 0), (2, 1)]
    assert candidates(stored, start=2) == [(2, 1)]  # the rows before it are compared already


def test_near_vectors_are_candidates_whatever_their_hashes() -> None:
    scores = [[1.0, 0.9, 0.65, -np.inf], [1.0, 0.9, 0.69, -np.inf]]
    neighbours = [[0, 1, 2, -1], [1, 0, 2, -1]]
    assert candidates([None] * 3, scores, neighbours) == [(1, 0)]


def test_hashes_must_not_contradict() -> None:
    hashes = unpack_hashes(
        [make_hash(0), make_hash(0x3FF), make_hash(0x3FFFFF), make_hash(0, 20), make_hash(0xFFFFFF), None]
    )
    first, second = np.array([1, 2, 3, 4, 5]), np.zeros(5, np.int64)
    bits, near = judge_pairs(hashes, first, second)
    assert bits.tolist() == [10, -1, -1, -1, -1]
    assert near.tolist() == [True, True, False, False, False]


def test_ten_thousand_equal_pictures_have_a_bounded_number_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 8)
    monkeypatch.setattr(duplicates, "COLUMNS", 100)
    hashes = unpack_hashes([make_hash(7)] * 400 + [make_hash(0xFF00FF00FF00FF00)])
    found = find_candidates(hashes, 300, 401, np.zeros(0, np.int64), np.zeros((0, 1)), np.zeros((0, 1), np.int64))
    rows, others = found
    assert np.bincount(rows)[300:].tolist() == [8] * 100
    assert (others < rows).all()
    assert len(set(others.tolist())) > 200, "all of them are paired with others"


def test_each_picture_of_a_group_is_near_its_best() -> None:
    pairs = [(1, 2, 0.1), (2, 3, 0.1), (3, 4, 0.2), (8, 9, 0.0), (9, 10, 0.05)]
    assert group_pairs(pairs, [2, 4, 3, 1, 9, 8, 10]) == [
        Group(2, [(1, 0.1), (3, 0.1)]),
        Group(9, [(8, 0.0), (10, 0.05)]),
    ]
    assert group_pairs(pairs, [1, 2, 4, 3]) == [Group(1, [(2, 0.1)]), Group(4, [(3, 0.2)])], "deleted ones are left out"


def test_no_hashes_are_joined_to_none() -> None:
    assert len(join_hashes([])) == 0
    parts = [unpack_hashes([make_hash(1)]), unpack_hashes([None, make_hash(2, 3)])]
    joined = join_hashes(parts)
    assert joined.bits.tolist() == [1, 0, 2]
    assert joined.known.tolist() == [True, False, True]
    assert joined.sketches[2].tolist() == [43, -37] * 24


def test_nearly_empty_pages_need_nearer_hashes() -> None:
    page, copy, other = bytes([10, 250, 4, 0] * 12), bytes([10, 249, 4, 1] * 12), bytes([4, 2, 10, 250] * 12)
    bits = [b"\x00" * 8, b"\x03" + b"\x00" * 7, b"\x3f" + b"\x00" * 7]
    hashes = unpack_hashes([bits[0] + page, bits[1] + copy, bits[2] + page, bits[1] + other])
    found, _ = judge_pairs(hashes, np.array([1, 2, 3]), np.array([0, 0, 0]))
    assert found.tolist() == [2, -1, -1]
    rich = bytes([60, 196, 30, 226] * 12)
    found, _ = judge_pairs(unpack_hashes([bits[0] + rich, bits[2] + rich]), np.array([1]), np.array([0]))
    assert found.tolist() == [6]
