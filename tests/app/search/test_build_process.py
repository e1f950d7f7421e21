"""The process that builds a sealed segment from the log: what it takes, what it leaves out, and how it fails."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.search.build_process import ADDRESS, BuildOrder, read_arrays, read_vector_blocks, run_build, write_arrays
from app.storage.address import connect_readonly
from app.storage.database import Database
from app.storage.tables import embeddings
from index.factory import IndexConfig, load_sealed_segment
from index.sealed_segment import SealedSegment
from index.types import Embeddings
from tests.index.oracle import unit
from tests.support.makers import FINGERPRINT, SPACE

D = 4


def put(database: Database, vectors: dict[int, Embeddings | bytes]) -> int:
    """Vectors of pictures in the log, under these keys; the number of the last entry."""

    def work(c: Any) -> int:
        embeddings.save_space(c, SPACE)
        seq = 0
        for key, vector in vectors.items():
            packed = vector if isinstance(vector, bytes) else vector.astype("<f4").tobytes()
            seq = embeddings.add(c, "default", FINGERPRINT, "images", key, packed)
        return seq

    return database.write(work)


def order(folder: Path, upto: int) -> BuildOrder:
    config = make_config(folder)
    return BuildOrder("default", "images", FINGERPRINT, D, upto, str(config.segment_folder), config.name)


def make_config(folder: Path) -> IndexConfig:
    return IndexConfig("default/images", FINGERPRINT, D, folder)


def read_segment(base: SealedSegment) -> dict[int, list[float]]:
    rows = np.arange(base.n)
    return dict(zip(base._ids.tolist(), base._vectors.take(rows).tolist(), strict=True))


def test_arrays_are_read_as_they_were_written() -> None:
    arrays = [unit(3, D), np.empty((0, 0), np.float32), unit(1, 7)]
    for found, expected in zip(read_arrays(io.BytesIO(write_arrays(arrays))), arrays, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert read_arrays(io.BytesIO(b"")) == []


def test_a_segment_holds_the_log_up_to_an_entry(database: Database, tmp_path: Path) -> None:
    vectors = dict(enumerate(unit(20, D)))
    put(database, vectors)
    database.write(lambda c: embeddings.remove(c, "images", 3))
    upto = put(database, {4: unit(1, D, 9)[0]})
    put(database, {30: unit(1, D, 8)[0]})  # too late
    run_build(replace(order(tmp_path, upto), mark=f"{upto}:7"), database.address)
    base = load_sealed_segment(make_config(tmp_path))
    expected = {key: vector for key, vector in vectors.items() if key != 3} | {4: unit(1, D, 9)[0]}
    assert read_segment(base) == {key: vector.astype(np.float16).tolist() for key, vector in expected.items()}
    assert (base.manifest.applied_seq, base.manifest.mark) == (upto, f"{upto}:7")


def test_what_a_follower_would_skip_is_left_out(database: Database, tmp_path: Path) -> None:
    good = unit(1, D)[0]
    bad = {2: good * 3, 3: good * np.float32("nan"), 4: good[:3], 5: b"\0", 6: np.zeros(D, np.float32)}
    upto = put(database, {1: good, **bad})
    with connect_readonly(database.address) as connection:
        found = list(read_vector_blocks(connection, order(tmp_path, upto)))
    assert [ids.tolist() for ids, _ in found] == [[1]]


def test_other_parts_of_the_log_are_left_alone(database: Database, tmp_path: Path) -> None:
    upto = put(database, {1: unit(1, D)[0]})

    def work(c: Any) -> None:
        embeddings.add(c, "default", FINGERPRINT, "texts", 2, unit(1, D)[0].tobytes())

    database.write(work)
    run_build(order(tmp_path, upto + 1), database.address)
    assert load_sealed_segment(make_config(tmp_path)).n == 1


def run(database: Database, argument: str, parent: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.search.build_process", argument, str(parent or os.getpid())],
        capture_output=True,
        text=True,
        env={**os.environ, ADDRESS: database.address},
        check=False,
        cwd=Path(__file__).parents[3],
    )


def test_a_failure_is_one_line_and_an_exit_code(database: Database, tmp_path: Path) -> None:
    ended = run(database, order(tmp_path, 5).to_json())
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines() == ["ValueError: 0 vectors, expected 1 to 2147483647"]


def test_an_orphan_builds_nothing(database: Database, tmp_path: Path) -> None:
    upto = put(database, {1: unit(1, D)[0]})
    assert run(database, order(tmp_path, upto).to_json(), parent=1).returncode == 1
    assert not (tmp_path / "base").exists()
