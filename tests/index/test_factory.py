"""Opening an index: from its snapshot where that fits, else empty, always saying why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from index.errors import RemoteEmptied
from index.factory import IndexConfig, open_index
from index.milvus import MilvusIndex
from index.milvus_client import MilvusClient
from index.protocol import OpenedIndex
from tests.index.oracle import numbers, unit

D = 8


@pytest.fixture
def config(tmp_path: Path) -> IndexConfig:
    return IndexConfig("default/images", "space-a", D, tmp_path / "images")


def save(opened: OpenedIndex, seq: int) -> None:
    assert opened.freeze is not None
    write = opened.freeze(seq)
    assert write is not None
    write()


def keep(config: IndexConfig, seq: int = 5) -> None:
    opened = open_index(config)
    opened.index.add(numbers(1, 2, 3), unit(3, D))
    save(opened, seq)


def test_first_start_is_empty_and_nothing_was_refused(config: IndexConfig) -> None:
    opened = open_index(config)
    assert (opened.index.ntotal, opened.index.d, opened.applied_seq, opened.refused) == (0, D, 0, None)


def test_snapshot_is_loaded_with_its_place_in_the_log(config: IndexConfig) -> None:
    keep(config)
    opened = open_index(config, last_seq=5)
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
    opened = open_index(config, last_seq=4)
    assert (opened.index.ntotal, opened.applied_seq) == (0, 0)
    assert opened.refused == "applied_seq is 5, but the log ends at 4"


def test_snapshot_of_a_log_that_has_lost_its_end_is_refused(config: IndexConfig) -> None:
    opened = open_index(config)
    opened.index.add(numbers(1, 2, 3), unit(3, D))
    assert opened.freeze is not None
    write = opened.freeze(5, "5:77")
    assert write is not None
    write()
    again = open_index(config, last_seq=9, has_mark=lambda mark: mark == "5:77")
    assert (again.applied_seq, again.mark, again.refused) == (5, "5:77", None)
    refused = open_index(config, last_seq=9, has_mark=lambda mark: mark != "5:77")
    assert (refused.index.ntotal, refused.applied_seq, refused.mark) == (0, 0, "")
    assert refused.refused == "the log does not have its mark at 5 any more"


def test_damaged_snapshot_is_refused_and_replaced_by_the_next_save(config: IndexConfig) -> None:
    keep(config)
    (vectors,) = config.folder.glob("*/vectors.npy")
    vectors.write_bytes(vectors.read_bytes()[:-1])
    refused = open_index(config)
    assert refused.applied_seq == 0
    assert "vectors.npy" in (refused.refused or "")
    keep(config, seq=6)
    assert open_index(config).applied_seq == 6


def test_a_milvus_holds_the_index_of_one_owner_and_how_far_the_log_was_applied(
    lite: MilvusClient, config: IndexConfig
) -> None:
    there = replace(config, milvus=lite, owner="2026-11-23T04:00:00.000Z")
    opened = open_index(there, last_seq=0)
    assert isinstance(opened.index, MilvusIndex)
    assert (opened.index.kind, opened.applied_seq, opened.refused) == ("milvus", 0, None)
    opened.index.add(numbers(1, 2, 3), unit(3, D))
    save(opened, 5)
    for owner, held in (("2026-11-23T04:00:00.000Z", 3), ("another", 0)):
        again = open_index(replace(there, owner=owner), last_seq=5)
        assert (again.index.ntotal, again.applied_seq, again.refused) == (held, 5 if held else 0, None)
        assert isinstance(again.index, MilvusIndex)
        again.index.drop()
    assert not there.folder.exists()


def test_a_milvus_that_holds_other_counts_than_it_kept_is_compared_first(
    lite: MilvusClient, config: IndexConfig
) -> None:
    there = replace(config, milvus=lite)
    opened = open_index(there)
    assert isinstance(opened.index, MilvusIndex)
    opened.index.add(numbers(1, 2, 3), unit(3, D))
    save(opened, 5)
    opened.index.remove(numbers(1))
    assert open_index(there, last_seq=6).refused is None  # the one entry after 5 may have done it
    lost = open_index(there, last_seq=5)
    assert lost.refused == "Milvus has 2 vectors, of 3 at 5"
    with pytest.raises(RemoteEmptied):
        lost.index.search(unit(1, D), 1)
    ahead = open_index(there, last_seq=4)
    assert (ahead.applied_seq, ahead.refused) == (0, "applied_seq is 5, but the log ends at 4")
    opened.index.drop()


def test_a_milvus_that_shall_forget_is_filled_from_the_start(lite: MilvusClient, config: IndexConfig) -> None:
    there = replace(config, milvus=lite)
    opened = open_index(there)
    assert isinstance(opened.index, MilvusIndex)
    opened.index.add(numbers(1, 2, 3), unit(3, D))
    save(opened, 5)
    opened.index.forget_applied()
    again = open_index(there, last_seq=9)
    assert (again.index.ntotal, again.applied_seq, again.refused) == (3, 0, None)
    opened.index.drop()
