"""Enlarged vectors stay what they are, however many are asked for; recall counts what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.encoder.protocol import normalise
from bench.experiments.vectors import BLOCK, EnlargedSet, find_exact, make_rotation, recall


def pictures(count: int = 300, d: int = 16) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return normalise(np.random.default_rng(5).standard_normal((count, d)))


def test_a_smaller_count_is_the_beginning_of_a_larger(tmp_path: Path) -> None:
    large = EnlargedSet(pictures(), wider=32)
    large.write(tmp_path / "few.npy", 450)
    large.write(tmp_path / "many.npy", BLOCK + 50)
    few, many = np.load(tmp_path / "few.npy"), np.load(tmp_path / "many.npy")
    assert few.shape == (450, 32)
    assert np.array_equal(few, many[:450])
    assert np.allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)


def test_the_pictures_come_first_and_keep_their_angles() -> None:
    own = pictures()
    large = EnlargedSet(own, wider=32)
    rows = large.block(0, BLOCK)[: len(own)]
    assert np.allclose(rows @ rows.T, large.originals @ large.originals.T, atol=1e-5)
    assert sorted(map(tuple, large.originals)) == sorted(map(tuple, own))


def test_copies_lie_as_far_from_their_picture_as_pictures_from_each_other() -> None:
    large = EnlargedSet(pictures(), wider=32)
    many = len(large.originals)
    rows = large.block(0, BLOCK)
    home = rows[:many]
    apart = np.linalg.norm(rows[many : 2 * many] - home, axis=1)
    assert abs(float(np.median(apart)) / large.apart - 1) < 0.1
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_rotation_keeps_lengths() -> None:
    turn = make_rotation(16, 32)
    assert np.allclose(turn @ turn.T, np.eye(16), atol=1e-5)


def test_best_over_blocks_is_best_over_all() -> None:
    rows, asked = pictures(5 * BLOCK + 7, 4), pictures(20, 4)
    expected = np.argsort(-(asked @ rows.T), axis=1, kind="stable")[:, :10]
    assert recall(find_exact(rows, asked, 10), expected) > 0.99  # rows that tie may change places


def test_recall_is_the_share_of_the_true_best() -> None:
    truth = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(truth[:, ::-1], truth) == 1
    assert recall(np.array([[1, 2, 9, -1], [5, 6, 7, 0]]), truth) == 5 / 8
