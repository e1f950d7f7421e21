"""What the live index is compared with finds what it should, after it was written and opened again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.encoder.protocol import normalise
from bench.experiments.candidates import Effort, FaissGraph, Partitioned, choose_nlist
from bench.experiments.index import build, find_cheapest
from bench.experiments.vectors import K, find_exact, recall

D = 32
ROWS = normalise(np.random.default_rng(8).standard_normal((2_000, D)))
ASKED = normalise(np.random.default_rng(9).standard_normal((30, D)))


@pytest.mark.parametrize(
    ("candidate", "effort"),
    [
        (Partitioned("codes", "RaBitQ", (2_000,)), Effort(64, 2_000)),
        (Partitioned("scalar", "SQ8", (40,)), Effort(64, 40)),
        (FaissGraph(), Effort(2_000)),
    ],
)
def test_a_candidate_finds_all_with_all_its_effort(
    candidate: Partitioned | FaissGraph, effort: Effort, tmp_path: Path
) -> None:
    build(candidate, ROWS, tmp_path / "it")
    candidate.open(tmp_path / "it")
    assert recall(candidate.at(effort)(ASKED), find_exact(ROWS, ASKED, K)) > 0.99


def test_a_candidate_is_built_once(tmp_path: Path) -> None:
    candidate = Partitioned("codes", "RaBitQ", (100,))
    taken = build(candidate, ROWS, tmp_path / "it")
    assert taken > 0
    assert build(candidate, ROWS[:10].repeat(200, axis=0), tmp_path / "it") == taken


def test_the_cheapest_effort_reaches_the_target_or_is_the_best_there_is(tmp_path: Path) -> None:
    candidate = Partitioned("codes", "RaBitQ", (20, 2_000))
    build(candidate, ROWS, tmp_path / "it")
    candidate.open(tmp_path / "it")
    truth = find_exact(ROWS, ASKED, K)
    effort, share = find_cheapest(candidate, ASKED, truth)
    assert (effort.rerank, share >= 0.99) == (2_000, True)
    candidate.efforts = [Effort(1, 20), Effort(2, 20)]
    effort, share = find_cheapest(candidate, ASKED, truth)
    assert effort == Effort(2, 20)
    assert share < 0.99


def test_lists_grow_with_the_root() -> None:
    assert (choose_nlist(100_000), choose_nlist(1_000_000)) == (256, 1024)
