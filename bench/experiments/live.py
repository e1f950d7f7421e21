"""Measure the segmented index at some count, in one process, from a log in SQLite."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from app.core.types import DEFAULT_COLLECTION
from app.encoder.protocol import Embeddings, normalise
from app.storage.address import open_database
from app.storage.tables import embeddings
from bench.data_directory import TARGET, fill_data_directory
from bench.experiments.scenes import FOLDER
from bench.experiments.timing import anonymous_bytes, measure_in_turns, processor_ms, time_queries
from bench.experiments.vectors import (
    BLOCK,
    D,
    K,
    find_exact,
    load_asked,
    load_exact,
    load_queries,
    load_vectors,
    recall,
)
from bench.results import Figures
from bench.weights import load_space
from index import snapshot
from index.idset import IdSet
from index.protocol import SearchParams
from index.sealed_segment import SealedSegment
from index.segment_builder import build_segment
from index.segmented import SegmentedIndex
from index.types import Ids

NAME = "default/images"
ASKED, TIMED = 1_000, 1_200
SHARES = (0.5, 0.1, 0.01, 0.001)
FILTERED = 200
NORMAL, FAST = SearchParams(), SearchParams(effort="fast")
ADDED = 1_000
MIB = 1e6


def measure(count: int) -> Figures:
    data = make_data_directory(count)
    folder = find_base(data)
    said = build_once(data, folder)
    index, more = open_index(folder, count)
    said |= more | measure_searches(index, count) | measure_filters(index, count) | measure_changes(index, count)
    index.close()
    index, _ = open_index(folder, count)
    said |= search_beside_build(index, data, count)
    return said


def make_data_directory(count: int) -> Path:
    """A server's data directory with so many pictures; made once."""
    return fill_data_directory(FOLDER / f"data-{count}", load_space(), load_vectors(count))


def find_base(data: Path) -> Path:
    """Where a server looks for the segment. One that it would build itself is calibrated for captions by its own model,
    which has learnt nothing: for them it looks into more than twice as many lists."""
    return data / "snapshots" / NAME / "base"


def read_log(data: Path) -> Iterator[tuple[Ids, Embeddings]]:
    """The log from its beginning."""
    database = open_database(data / "sightline.db")
    try:
        after = 0
        while entries := database.read(
            lambda c, after=after: embeddings.list_after(
                c, DEFAULT_COLLECTION, load_space().fingerprint, TARGET, after, BLOCK
            )  # type: ignore[misc]
        ):
            after = entries[-1][0]
            keys = np.array([row[2] for row in entries], np.int64)
            yield keys, np.frombuffer(b"".join(row[3] for row in entries), "<f4").reshape(len(keys), D)
    finally:
        database.close()


def build(data: Path, folder: Path) -> None:
    """Build the sealed segment. Runs in its own process, as in the service."""
    os.nice(10)
    space, asked = load_space().fingerprint, load_asked()
    database = open_database(data / "sightline.db")
    seq = database.read(embeddings.get_last_seq_of_all)
    database.close()
    build_segment(folder, read_log(data), name=NAME, space=space, d=D, applied_seq=seq, asked=asked)
    (folder / "processor").write_text(str(time.process_time()), encoding="ascii")


def start_build(data: Path, folder: Path) -> multiprocessing.process.BaseProcess:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as the service does; for the process that is started
    process = multiprocessing.get_context("spawn").Process(target=build, args=(data, folder), daemon=True)
    process.start()
    return process


def build_once(data: Path, folder: Path) -> Figures:
    """Build the sealed segment if it is missing; returns the time it took and the size of its files."""
    said = folder / "seconds"
    if not said.exists():
        began = time.perf_counter()
        process = start_build(data, folder)
        process.join()
        if process.exitcode:
            raise SystemExit("the build failed")
        said.write_text(str(time.perf_counter() - began), encoding="ascii")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "build, s": float(said.read_text(encoding="ascii")),
        "build, processor s": float((folder / "processor").read_text(encoding="ascii")),
        "files, MB": size / MIB,
    }


def open_index(folder: Path, count: int) -> tuple[SegmentedIndex, Figures]:
    """The index, the time to open it, and the memory of its own that it has after a hundred searches."""
    before, began = anonymous_bytes(), time.perf_counter()
    base, _ = snapshot.load(folder, SealedSegment, name=NAME, space=load_space().fingerprint, d=D)
    index = SegmentedIndex(D, base)
    seconds = time.perf_counter() - began
    time_queries(lambda query: index.search(query, K), load_queries()[:100])
    own = anonymous_bytes() - before
    return index, {
        "open, s": seconds,
        "memory beyond mapped files, MB": own / MIB,
        "bytes a vector beyond mapped files": own / count,
    }


def measure_searches(index: SegmentedIndex, count: int) -> Figures:
    """Recall and speed at the calibrated effort, and recall at twice that effort."""
    facts, asked = index.stats(), load_queries()
    base = index.sealed
    assert base is not None
    truth = load_exact(count, asked[:ASKED]) + 1
    said: Figures = {"lists": base.params.nlist, "probes": facts.nprobe or 0, "rerank": facts.refine_k or 0}
    for name, effort, doublings in (("", NORMAL, 0), (", fast", FAST, 0), (" at effort 1", NORMAL, 1)):
        index.set_search_effort(doublings)
        found = np.concatenate([index.search(query[None], K, effort)[1] for query in asked[:ASKED]])
        said[f"recall@10{name}"] = recall(found, truth)
    index.set_search_effort(0)
    said |= {f"recall@10 as told, {name}": depth.recall for name, depth in facts.depths.items()}
    said |= measure_pictures(index, count)
    said["processor ms a query"] = processor_ms(lambda query: index.search(query, K), asked[ASKED : ASKED + TIMED])
    paces = measure_in_turns(
        {"": lambda query: index.search(query, K), ", fast": lambda query: index.search(query, K, FAST)},
        asked[ASKED : ASKED + TIMED],
    )
    for name, pace in paces.items():
        said |= {f"p50{name}, ms": pace.p50, f"p95{name}, ms": pace.p95, f"two threads{name}, a second": pace.rate}
    return said


def measure_pictures(index: SegmentedIndex, count: int) -> Figures:
    """Recall with pictures as queries: stored ones, turned away as far as their nearest neighbours are."""
    given = load_vectors(count)[:: count // FILTERED]
    noise = np.random.default_rng(5).standard_normal(given.shape).astype(np.float32) * np.float32(0.65 / D**0.5)
    asked = normalise(given + noise)
    truth = find_exact(load_vectors(count), asked, K) + 1
    return {"recall@10, pictures as queries": recall(index.search(asked, K)[1], truth)}


def measure_filters(index: SegmentedIndex, count: int) -> Figures:
    """p50, and recall against comparing all allowed ids, for random ids at each selectivity."""
    said: Figures = {}
    asked = load_queries()[:FILTERED]
    rows = load_vectors(count)
    for share in SHARES:
        chosen = np.sort(np.random.default_rng(7).choice(count, max(K, int(share * count)), replace=False))
        params = SearchParams(allowed_ids=IdSet.of(chosen + 1))
        truth = chosen[find_exact(np.ascontiguousarray(rows[chosen]), asked, K)] + 1
        found = np.concatenate([index.search(query[None], K, params)[1] for query in asked])
        taken = sorted(time_queries(lambda query, p=params: index.search(query, K, p), asked))  # type: ignore[misc]
        said[f"filter of {share:.1%}: recall@10"] = recall(found, truth)
        said[f"filter of {share:.1%}: p50, ms"] = taken[len(taken) // 2] * 1000
        spent = processor_ms(lambda query, p=params: index.search(query, K, p), asked)  # type: ignore[misc]
        said[f"filter of {share:.1%}: processor ms a query"] = spent
    return said


def measure_changes(index: SegmentedIndex, count: int) -> Figures:
    """Delete 1,000 and add 1,000; check the next searches, and measure their speed."""
    asked = load_queries()[:FILTERED]
    victims = np.unique(index.search(asked, K)[1])[:ADDED]
    began = time.perf_counter()
    index.remove(victims)
    found = index.search(asked, K)[1]
    said: Figures = {
        "delete: seconds with the next search": time.perf_counter() - began,
        "deleted found by the next search": float(np.isin(found, victims).sum()),
    }
    fresh = np.arange(count + 1, count + 1 + ADDED)
    rows = load_vectors(count)[:ADDED][:, ::-1].copy()
    index.add(fresh, rows)
    found = np.concatenate([index.search(row[None], 1)[1] for row in rows[:FILTERED]])[:, 0]
    said["added found by the next search"] = float((found == fresh[:FILTERED]).mean())
    pace = measure_in_turns({"live": lambda query: index.search(query, K)}, load_queries()[ASKED : ASKED + TIMED])[
        "live"
    ]
    return said | {"p50 with 1,000 in the tail and 1,000 deleted, ms": pace.p50}


def search_beside_build(index: SegmentedIndex, data: Path, count: int) -> Figures:
    """p95 of one caller on an idle machine, during the build of another sealed segment, and after it."""

    def search(query: Embeddings) -> object:
        return index.search(query, K)

    asked = load_queries()
    quiet = _p95(search, asked[:ASKED])
    again = FOLDER / f"again-{count}"
    process = start_build(data, again)
    taken: list[float] = []
    while process.is_alive():
        taken += time_queries(search, asked[len(taken) % ASKED :][:50])
        time.sleep(0.1)
    shutil.rmtree(again, ignore_errors=True)
    quiet = (quiet + _p95(search, asked[:ASKED])) / 2
    beside = sorted(taken)[int(len(taken) * 0.95)] * 1000
    return {
        "p95 while nothing goes on, ms": quiet,
        "p95 beside a build, ms": beside,
        "p95 beside a build over before and after": beside / quiet,
    }


def _p95(search: Callable[[Embeddings], object], asked: Embeddings) -> float:
    taken = sorted(time_queries(search, asked))
    return taken[int(len(taken) * 0.95)] * 1000
