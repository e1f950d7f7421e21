"""How a sealed segment is made: what goes in, what is refused, what a failure leaves, and how well searches find."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.errors import InvalidId, InvalidVector, SnapshotMissing
from index.float16 import round_to_float16
from index.protocol import SearchParams
from index.segment_builder import MIN_ASKED, VectorBlock, _make_trials, build_segment
from index.segmented import SegmentedIndex
from index.types import Embeddings
from tests.index.oracle import numbers, unit
from tests.index.sealed import load, seal_again, sealed

D = 8


def make_clusters(n: int, d: int, seed: int = 0) -> Embeddings:
    """Unit vectors [n, d] in clusters of different sizes, all of them in one half of the space, as embeddings are."""
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(100).standard_normal((n // 60, d))
    shares = np.random.default_rng(101).pareto(1.5, len(centers)) + 1
    chosen = random.choice(len(centers), n, p=shares / shares.sum())
    vectors = centers[chosen] + 0.6 * random.standard_normal((n, d)) + 0.5
    unit_vectors: Embeddings = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit_vectors


def blocks(vectors: Embeddings, size: int) -> Iterator[VectorBlock]:
    ids = np.arange(len(vectors), dtype=np.int64)
    return ((ids[i : i + size], vectors[i : i + size]) for i in range(0, len(ids), size))


def build(folder: Path, stream: Iterator[VectorBlock] | list[VectorBlock]) -> None:
    build_segment(folder, stream, name="n", space="s", d=D, applied_seq=1)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_the_stream_may_be_cut_anywhere(tmp_path: Path, size: int) -> None:
    vectors = unit(200, D)
    build(tmp_path, blocks(vectors, size))
    base = load(tmp_path, D)
    base.verify()
    np.testing.assert_array_equal(base._vectors.take(np.arange(200)), vectors.astype(np.float16))


def test_one_vector_is_enough_for_a_segment(tmp_path: Path) -> None:
    base = sealed(tmp_path, numbers(7), unit(1, D))
    _, ids = base.search(unit(1, D), 3, 1, 1)
    assert ids.tolist() == [[7, -1, -1]]


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        ([], ValueError),
        ([(numbers(), np.empty((0, D), np.float32))], ValueError),
        ([(numbers(1, 2), unit(2, D)), (numbers(1), unit(1, D))], ValueError),
        ([(numbers(1, 2), unit(3, D))], ValueError),
        ([(numbers(-1), unit(1, D))], InvalidId),
        ([(numbers(1), unit(1, D) * 2)], InvalidVector),
        ([(numbers(1), unit(1, D + 1))], InvalidVector),
    ],
)
def test_what_cannot_be_a_segment_is_refused_and_leaves_nothing(
    tmp_path: Path, stream: list[VectorBlock], error: type[Exception]
) -> None:
    with pytest.raises(error):
        build(tmp_path, stream)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SnapshotMissing):
        load(tmp_path, D)


def test_a_stream_that_fails_leaves_the_old_segment(tmp_path: Path) -> None:
    build(tmp_path, blocks(unit(100, D), 10))

    def fail_midway() -> Iterator[VectorBlock]:
        yield from blocks(unit(500, D), 10)
        raise OSError("the log cannot be read")

    with pytest.raises(OSError, match="cannot be read"):
        build(tmp_path, fail_midway())
    assert load(tmp_path, D).n == 100
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_the_old_segment(small_disk: Path) -> None:
    build(small_disk, blocks(unit(100, D), 100))
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            build(small_disk, blocks(unit(30_000, D), 1000))
        base = load(small_disk, D)
        base.verify()
        assert base.n == 100
        assert len(list(small_disk.iterdir())) == 2
    build(small_disk, blocks(unit(200, D), 100))
    assert load(small_disk, D).n == 200


def test_killed_twenty_times_half_way_there_is_always_a_whole_segment(tmp_path: Path) -> None:
    build(tmp_path, blocks(unit(400, D), 50))
    context = multiprocessing.get_context("forkserver")  # a fork of this process would have its threads' locks
    context.set_forkserver_preload(["tests.index.sealed"])
    random = np.random.default_rng(5)
    caught = 0
    for _ in range(20):
        child = context.Process(target=seal_again, args=(tmp_path, 400, D))
        child.start()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("snapshot-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.1 * random.random())
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        caught += len(list(tmp_path.glob("snapshot-*"))) > 1
        assert child.exitcode == -signal.SIGKILL
        base = load(tmp_path, D)
        base.verify()
        assert base.n == 400
    assert caught > 5
    build(tmp_path, blocks(unit(400, D), 50))
    assert len(list(tmp_path.iterdir())) == 2  # what the killed ones left is swept


def test_the_same_stream_gives_the_same_segment(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(tmp_path / name, blocks(make_clusters(2000, D), 100))
    hashes = [
        {file["name"]: file["sha256"] for file in json.loads(next(folder.glob("*/manifest.json")).read_text())["files"]}
        for folder in (tmp_path / "a", tmp_path / "b")
    ]
    assert hashes[0] == hashes[1]


def make_texts(pictures: Embeddings, seed: int) -> Embeddings:
    """Unit vectors near these, all turned in one direction, as texts lie apart from pictures."""
    texts = (
        pictures + 0.8 * unit(len(pictures), pictures.shape[1], seed=seed) - np.float32(2 / pictures.shape[1] ** 0.5)
    )
    return round_to_float16(texts / np.linalg.norm(texts, axis=1, keepdims=True))


def measure_recall(live: SegmentedIndex, queries: Embeddings, params: SearchParams) -> float:
    found = live.search(queries, 10, params)[1]
    exact = live.search(queries, 10, SearchParams(exact=True))[1]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


@pytest.mark.parametrize("is_asked", [False, True])
def test_searches_find_what_was_calibrated_for(tmp_path: Path, is_asked: bool) -> None:
    """On vectors that were not there when it was tried out, pictures and texts alike, with and without texts known."""
    d = 48
    vectors = make_clusters(12_000, d)
    asked = [make_texts(make_clusters(400, d, seed=5), 6)] * is_asked
    ids = np.arange(len(vectors), dtype=np.int64)
    live = SegmentedIndex(d, sealed(tmp_path, ids, vectors, asked=asked))
    assert live.sealed is not None
    params = live.sealed.params
    assert params.normal.refine_k < len(vectors) / 4  # or this would show nothing
    assert params.fast.nprobe + params.fast.refine_k < params.normal.nprobe + params.normal.refine_k
    others = make_clusters(200, d, seed=7)
    texts = others + 0.8 * unit(200, d, seed=8)
    if is_asked:
        texts = make_texts(others, 8)
    for queries in (others, round_to_float16(texts / np.linalg.norm(texts, axis=1, keepdims=True))):
        assert measure_recall(live, queries, SearchParams()) >= 0.98
        assert measure_recall(live, queries, SearchParams(effort="fast")) >= 0.9
    assert (live.sealed._codes.gap.share > 0) == is_asked  # type: ignore[attr-defined]


def test_recall_is_told_of_queries_that_chose_nothing(tmp_path: Path) -> None:
    """What calibration chooses by one half of the texts, it measures by the other."""
    vectors = make_clusters(3_000, D)
    texts = make_texts(make_clusters(80, D, seed=5), 6)
    tried, told = _make_trials(vectors.astype(np.float16), [texts])
    assert [len(trial.queries) for trial in tried] == [len(trial.queries) for trial in told] == [192, 40]
    chosen, measured = ({bytes(query) for trial in some for query in trial.queries} for some in (tried, told))
    assert not chosen & measured


def test_too_few_texts_say_nothing(tmp_path: Path) -> None:
    ids = np.arange(400, dtype=np.int64)
    base = sealed(tmp_path, ids, unit(400, D), asked=[unit(MIN_ASKED - 1, D, 5)])
    assert base.params == sealed(tmp_path, ids, unit(400, D)).params
