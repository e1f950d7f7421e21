from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.core.errors import Validation
from app.encoder.batcher import Batcher
from app.encoder.dummy import DummyEncoder
from app.search import explain
from app.search.explain import WINDOWS, cover_parts, find_share, group_words, judge_place, leave_out, spread
from app.search.query_encoder import QueryPart

NO_QUERIES: Any = None  # of tests that encode pictures alone


def left(text: str) -> list[tuple[str, list[str | None]]]:
    return [(word, [part.text for part in rest]) for word, rest in leave_out([QueryPart(text=text)])]


def test_every_word_is_left_out_once() -> None:
    assert left("a red car") == [("a", ["red car"]), ("red", ["a car"]), ("car", ["a red"])]
    assert left("car") == [("car", [])]


def test_chinese_is_parted_at_its_small_words() -> None:
    assert left("红色的汽车 car") == [
        ("红色", ["的汽车 car"]),
        ("的", ["红色 汽车 car"]),
        ("汽车", ["红色的 car"]),
        ("car", ["红色的汽车"]),
    ]


def test_negative_terms_are_left_out_whole() -> None:
    parts = [QueryPart(text="beach"), QueryPart(text="red people", weight=-0.7)]
    assert [(text, len(rest)) for text, rest in leave_out(parts)] == [("beach", 1), ("red people", 1)]


def test_many_words_go_together() -> None:
    places = group_words("word " * 100)
    assert len(places) <= explain.MAX_UNITS
    assert places[0][0] == 0
    assert places[-1][1] == 499


def test_every_cell_is_covered_and_a_window_has_the_mean_colour() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    views = cover_parts(pixels)
    assert ((views != pixels).any(axis=(0, 3))).mean() > 0.99
    assert (views[0, 0, 0] == pixels.mean(axis=(0, 1)).astype(np.uint8)).all()
    assert (views[0, -1, -1] == pixels[-1, -1]).all()


def test_cells_of_the_margin_count_less() -> None:
    grid = spread(np.ones(len(WINDOWS), np.float32))
    assert grid.max() == 1
    assert grid[0, 1] == 0.5


def test_weight_of_a_cell_is_that_of_its_windows() -> None:
    drops = np.zeros(len(WINDOWS), np.float32)
    drops[WINDOWS.index((2, 2))] = 1
    grid = spread(drops)
    assert np.isfinite(grid).all()
    assert grid[2:4, 2:4].min() > 0
    assert grid.sum() == grid[2:4, 2:4].sum()


@pytest.mark.parametrize(
    ("drop", "share", "match"),
    [(3.0, 0.02, "good"), (0.7, 0.02, "weak"), (3.0, 0.1, "weak"), (0.1, 0.02, "none"), (3.0, 0.5, "none")],
)
def test_verdict_needs_a_place_and_words_that_fit(drop: float, share: float, match: str) -> None:
    verdict = judge_place(drop, share)
    assert verdict.match == match
    assert 0 <= verdict.confidence <= 1


def test_share_counts_the_texts_that_are_nearer() -> None:
    assert find_share(np.array([0.1, 0.2, 0.3], np.float32), 0.2) == 0.5


def test_parts_of_a_picture_are_encoded_once_and_few_pictures_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "MAX_CACHED", 1)
    batcher = Batcher(DummyEncoder())
    explainer = explain.Explainer(DummyEncoder(), batcher, NO_QUERIES, lambda query: (query, None))
    reads: list[str] = []

    def read(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        reads.append(name)
        return np.zeros((32, 32, 3), np.uint8)

    for name in ("a", "a", "b", "a"):
        vectors = explainer._encode_picture(name, lambda name=name: read(name))  # type: ignore[misc]
        assert vectors.shape == (1 + len(WINDOWS), 60)
    assert reads == ["a", "b", "a"]
    batcher.close()


def test_failed_pass_ends_the_others() -> None:
    class Broken(DummyEncoder):
        def encode_images(self, pixels: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            raise Validation("broken")

    batcher = Batcher(Broken())
    explainer = explain.Explainer(Broken(), batcher, NO_QUERIES, lambda query: (query, None))
    with pytest.raises(Validation):
        explainer._encode_picture("a", lambda: np.zeros((32, 32, 3), np.uint8))
    batcher.close()
