"""The index at 512 dimensions, texts as queries against pictures: what it was chosen from, and what it does.

    python -m bench.experiments.index data [COUNT]                     how far vectors lie from each other
    python -m bench.experiments.index candidates [COUNT] [NAME ...]    at recall@10 of 0.99, side by side; builds what
    is missing
    python -m bench.experiments.index live [COUNT]                     the live index: recall, pace, memory, filters,
    builds
    python -m bench.experiments.index http [COUNT]                     the same behind a server, after `live`
    python -m bench.experiments.index bound                            up to which count comparing with everything is
    as fast

The vectors come from `python -m bench.experiments.scenes`; `python -m bench.experiments.growth` fits what `live`
found at several counts.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import faiss

from app.encoder.protocol import Embeddings
from bench.experiments import bound, live, remote
from bench.experiments.candidates import CANDIDATES, Candidate, Effort, Found, Partitioned, Search, centroids
from bench.experiments.pace import anonymous, one, processor, together
from bench.experiments.scenes import FOLDER
from bench.experiments.vectors import exact, neighbourhood, queries, recall, vectors
from bench.results import Figures, keep

COUNT = 1_000_000
TARGET = 0.99
ASKED = 1_000  # queries that recall is measured with
TRIED = 60  # queries that tell which of several ways to the target is the fastest
TIMED = 600


def main() -> None:
    """Print and keep the figures of one part."""
    part, *words = sys.argv[1:] or [""]
    count = int(words[0]) if words else COUNT
    if part == "data":
        keep(f"index-data-{count}", neighbourhood(count))
    elif part == "candidates":
        keep(f"index-candidates-{count}", candidates(count, words[1:]))
    elif part == "live":
        keep(f"index-live-{count}", live.figures(count))
    elif part == "http":
        keep(f"index-http-{count}", remote.figures(live.data_directory(count), count))
    elif part == "bound":
        keep("index-bound", bound.figures())
    else:
        raise SystemExit(__doc__)


def candidates(count: int, names: list[str]) -> Figures:
    """All that are named, or all, at the target: their pace in turns, memory and time to build."""
    asked = queries()
    figures: Figures = {}
    searches: dict[str, Search] = {}
    for candidate in CANDIDATES:
        if names and candidate.name not in names:
            continue
        folder = FOLDER / f"{candidate.name.lower().replace(', ', '-').replace(' ', '-')}-{count}"
        figures[f"{candidate.name}: build, s"] = build(candidate, vectors(count), folder)
        before = anonymous()
        candidate.open(folder)
        candidate.at(candidate.efforts[0])(asked[:10])
        figures[f"{candidate.name}: bytes a vector"] = (anonymous() - before) / count
        effort, reached = cheapest(candidate, asked[:ASKED], exact(count, asked[:ASKED]))
        figures[f"{candidate.name}: recall@10 at {effort}"] = reached
        searches[candidate.name] = candidate.at(effort)
    faiss.omp_set_num_threads(1)
    for name, pace in together(dict(searches), asked[ASKED : ASKED + TIMED]).items():
        figures[f"{name}: p50, ms"] = pace.p50
        figures[f"{name}: two threads, a second"] = pace.rate
    for name, search in searches.items():
        figures[f"{name}: processor ms a query"] = processor(search, asked[ASKED : ASKED + TRIED])
    return figures


def build(candidate: Candidate, rows: Embeddings, folder: Path) -> float:
    """Seconds that it took, now or before: the folder is made once."""
    said = folder / "seconds"
    if isinstance(candidate, Partitioned):
        centroids(rows, folder.parent)
    if not said.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        began = time.perf_counter()
        candidate.build(rows, folder)
        said.write_text(str(time.perf_counter() - began), encoding="ascii")
    seconds = float(said.read_text(encoding="ascii"))
    if isinstance(candidate, Partitioned):
        seconds += float((folder.parent / f"centroids-{len(rows)}.seconds").read_text(encoding="ascii"))
    return seconds


def cheapest(candidate: Candidate, asked: Embeddings, truth: Found) -> tuple[Effort, float]:
    """The fastest effort that reaches the target, and its recall; the best there is where none does."""
    reached: list[tuple[float, Effort, float]] = []
    best, most = candidate.efforts[0], 0.0
    done = set()
    for effort in candidate.efforts:
        if effort.rerank in done:
            continue
        search = candidate.at(effort)
        share = recall(search(asked), truth)
        if share > most:
            best, most = effort, share
        if share >= TARGET:
            done.add(effort.rerank)
            faiss.omp_set_num_threads(1)
            reached.append((sum(one(search, asked[:TRIED])), effort, share))
            faiss.omp_set_num_threads(2)
    if reached:
        _, best, most = min(reached, key=lambda way: way[0])
    return best, most


if __name__ == "__main__":
    main()
