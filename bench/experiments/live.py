"""What the live index does at some count: everything of one machine, in one process, from a log in SQLite."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from app.core.types import DEFAULT_COLLECTION
from app.encoder.protocol import Embeddings
from app.storage.database import Database
from app.storage.tables import embeddings
from bench.experiments.pace import anonymous, one, processor, together
from bench.experiments.scenes import FOLDER
from bench.experiments.vectors import BLOCK, D, K, best, exact, queries, recall, vectors
from bench.filled import TARGET, filled
from bench.results import Figures
from bench.weights import space
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
ADDED = 1_000
MIB = 1e6


def figures(count: int) -> Figures:
    """All of them."""
    data = data_directory(count)
    folder = data / "snapshots" / NAME  # where a server looks for it
    said = sealed(data, folder)
    index, more = opened(folder, count)
    said |= more | searched(index, count) | filtered(index, count) | changed(index, count)
    index.close()
    index, _ = opened(folder, count)
    said |= beside_a_build(index, data, count)
    return said


def data_directory(count: int) -> Path:
    """A server's data directory with so many pictures, made once."""
    return filled(FOLDER / f"data-{count}", space(), vectors(count))


def blocks(data: Path) -> Iterator[tuple[Ids, Embeddings]]:
    """The log from its beginning."""
    database = Database(data / "sightline.db")
    try:
        after = 0
        while entries := database.read(
            lambda c, after=after: embeddings.list_after(
                c, DEFAULT_COLLECTION, space().fingerprint, TARGET, after, BLOCK
            )  # type: ignore[misc]
        ):
            after = entries[-1][0]
            keys = np.array([row[2] for row in entries], np.int64)
            yield keys, np.frombuffer(b"".join(row[3] for row in entries), "<f4").reshape(len(keys), D)
    finally:
        database.close()


def build(data: Path, folder: Path) -> None:
    """In a process of its own, as the service does it."""
    os.nice(10)
    build_segment(folder, blocks(data), name=NAME, space=space().fingerprint, d=D, applied_seq=0)
    (folder / "processor").write_text(str(time.process_time()), encoding="ascii")


def started(data: Path, folder: Path) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=build, args=(data, folder), daemon=True)
    process.start()
    return process


def sealed(data: Path, folder: Path) -> Figures:
    """The base, built once; seconds, and how large its files are."""
    said = folder / "seconds"
    if not said.exists():
        began = time.perf_counter()
        process = started(data, folder)
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


def opened(folder: Path, count: int) -> tuple[SegmentedIndex, Figures]:
    """The index, how long that took and what memory of its own it has after a hundred searches."""
    before, began = anonymous(), time.perf_counter()
    base, _ = snapshot.load(folder, SealedSegment, name=NAME, space=space().fingerprint, d=D)
    index = SegmentedIndex(D, base)
    seconds = time.perf_counter() - began
    one(lambda query: index.search(query, K), queries()[:100])
    own = anonymous() - before
    return index, {
        "open, s": seconds,
        "memory beyond mapped files, MB": own / MIB,
        "bytes a vector beyond mapped files": own / count,
    }


def searched(index: SegmentedIndex, count: int) -> Figures:
    """At its own effort, and the recall at twice that."""
    facts, asked = index.stats(), queries()
    base = index.sealed
    assert base is not None
    truth = exact(count, asked[:ASKED]) + 1
    said: Figures = {"lists": base.params.nlist, "probes": facts.nprobe or 0, "rerank": facts.refine_k or 0}
    for name, effort in (("", 0), (" at effort 1", 1)):
        index.set_search_effort(effort)
        found = np.concatenate([index.search(query[None], K)[1] for query in asked[:ASKED]])
        said[f"recall@10{name}"] = recall(found, truth)
    index.set_search_effort(0)
    said["processor ms a query"] = processor(lambda query: index.search(query, K), asked[ASKED : ASKED + TIMED])
    pace = together({"live": lambda query: index.search(query, K)}, asked[ASKED : ASKED + TIMED])["live"]
    return said | {"p50, ms": pace.p50, "p95, ms": pace.p95, "two threads, a second": pace.rate}


def filtered(index: SegmentedIndex, count: int) -> Figures:
    """Random ids at each selectivity: recall against comparing all of them, and p50."""
    said: Figures = {}
    asked = queries()[:FILTERED]
    rows = vectors(count)
    for share in SHARES:
        chosen = np.sort(np.random.default_rng(7).choice(count, max(K, int(share * count)), replace=False))
        params = SearchParams(allowed_ids=IdSet.of(chosen + 1))
        truth = chosen[best(np.ascontiguousarray(rows[chosen]), asked, K)] + 1
        found = np.concatenate([index.search(query[None], K, params)[1] for query in asked])
        taken = sorted(one(lambda query, p=params: index.search(query, K, p), asked))  # type: ignore[misc]
        said[f"filter of {share:.1%}: recall@10"] = recall(found, truth)
        said[f"filter of {share:.1%}: p50, ms"] = taken[len(taken) // 2] * 1000
        spent = processor(lambda query, p=params: index.search(query, K, p), asked)  # type: ignore[misc]
        said[f"filter of {share:.1%}: processor ms a query"] = spent
    return said


def changed(index: SegmentedIndex, count: int) -> Figures:
    """1,000 deleted and 1,000 added: what the next searches find, and how fast they are."""
    asked = queries()[:FILTERED]
    victims = np.unique(index.search(asked, K)[1])[:ADDED]
    began = time.perf_counter()
    index.remove(victims)
    found = index.search(asked, K)[1]
    said: Figures = {
        "delete: seconds with the next search": time.perf_counter() - began,
        "deleted found by the next search": float(np.isin(found, victims).sum()),
    }
    fresh = np.arange(count + 1, count + 1 + ADDED)
    rows = vectors(count)[:ADDED][:, ::-1].copy()
    index.add(fresh, rows)
    found = np.concatenate([index.search(row[None], 1)[1] for row in rows[:FILTERED]])[:, 0]
    said["added found by the next search"] = float((found == fresh[:FILTERED]).mean())
    pace = together({"live": lambda query: index.search(query, K)}, queries()[ASKED : ASKED + TIMED])["live"]
    return said | {"p50 with 1,000 in the tail and 1,000 deleted, ms": pace.p50}


def beside_a_build(index: SegmentedIndex, data: Path, count: int) -> Figures:
    """p95 of one caller while nothing goes on, while another base is built, and after."""

    def search(query: Embeddings) -> object:
        return index.search(query, K)

    asked = queries()
    quiet = _p95(search, asked[:ASKED])
    again = FOLDER / f"again-{count}"
    process = started(data, again)
    taken: list[float] = []
    while process.is_alive():
        taken += one(search, asked[len(taken) % ASKED :][:50])
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
    taken = sorted(one(search, asked))
    return taken[int(len(taken) * 0.95)] * 1000
