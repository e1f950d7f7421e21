"""Opening an index: from its snapshot where that fits, else empty, always saying why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.factory import IndexConfig, open_index
from tests.index.oracle import numbers, unit

D = 8


@pytest.fixture
def config(tmp_path: Path) -> IndexConfig:
    return IndexConfig("default/images", "space-a", D, tmp_path / "images")


def keep(config: IndexConfig, seq: int = 5) -> None:
    opened = open_index(config)
    opened.index.add(numbers(1, 2, 3), unit(3, D))
    assert opened.freeze is not None
    write = opened.freeze(seq)
    assert write is not None
    write()


def test_first_start_is_empty_and_nothing_was_refused(config: IndexConfig) -> None:
    opened = open_index(config)
    assert (opened.index.ntotal, opened.index.d, opened.applied_seq, opened.refused) == (0, D, 0, None)


def test_snapshot_is_loaded_with_its_place_in_the_log(config: IndexConfig) -> None:
    keep(config)
    opened = open_index(config, head=5)
    assert (opened.index.ntotal, opened.applied_seq, opened.refused) == (3, 5, None)
    assert opened.index.search(unit(3, D), 1)[1].ravel().tolist() == [1, 2, 3]


def test_frozen_moment_is_saved_whatever_comes_after(config: IndexConfig) -> None:
    opened = open_index(config)
    opened.index.add(numbers(1), unit(1, D))
    assert opened.freeze is not None
    write = opened.freeze(7)
    assert write is not None
    opened.index.remove(numbers(1))
    write()
    assert open_index(config).index.ntotal == 1


@pytest.mark.parametrize("change", [{"name": "default/texts"}, {"space": "space-b"}, {"d": D + 1}])
def test_snapshot_of_another_index_is_refused_with_the_reason(config: IndexConfig, change: dict[str, object]) -> None:
    keep(config)
    opened = open_index(replace(config, **change))  # type: ignore[arg-type]
    assert (opened.index.ntotal, opened.applied_seq) == (0, 0)
    assert opened.refused is not None
    assert f"{next(iter(change))} is " in opened.refused


def test_snapshot_ahead_of_the_log_is_refused(config: IndexConfig) -> None:
    keep(config, seq=5)
    opened = open_index(config, head=4)
    assert (opened.index.ntotal, opened.applied_seq) == (0, 0)
    assert opened.refused == "applied_seq is 5, but the log ends at 4"


def test_damaged_snapshot_is_refused_and_replaced_by_the_next_save(config: IndexConfig) -> None:
    keep(config)
    assert config.folder is not None
    (vectors,) = config.folder.glob("*/vectors.npy")
    vectors.write_bytes(vectors.read_bytes()[:-1])
    refused = open_index(config)
    assert refused.applied_seq == 0
    assert "vectors.npy" in (refused.refused or "")
    keep(config, seq=6)
    assert open_index(config).applied_seq == 6


def test_without_a_folder_nothing_is_kept() -> None:
    opened = open_index(IndexConfig("n", "s", D))
    assert opened.freeze is None
    assert opened.refused is None
    opened.index.add(np.arange(2, dtype=np.int64), unit(2, D))
    assert opened.index.ntotal == 2


def test_unknown_kind_is_an_error_that_lists_the_known(config: IndexConfig) -> None:
    with pytest.raises(ValueError, match=r"'magic' is unknown, expected one of \['exact', 'live'\]"):
        open_index(replace(config, kind="magic"))
