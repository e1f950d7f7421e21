"""Measure the index at 512 dimensions, with texts as queries against pictures.

    python -m bench.experiments.index PART [COUNT]

    data                   distances between vectors
    candidates [NAME ...]  candidates for the sealed segment in turns, each at recall@10 of 0.99; builds missing ones
    bases                  segments of the first format and of today's in turns
    live                   the segmented index: recall, speed, memory, filters, builds
    http                   the same behind a server; needs `live` first
    bound                  the flat index beside a sealed segment: up to which count is the flat one as fast?

The vectors come from `python -m bench.experiments.scenes`; `python -m bench.experiments.growth` fits the figures of
`live` at several counts.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import faiss

from app.encoder.protocol import Embeddings
from bench.experiments import bases, crossover, live, over_http
from bench.experiments.candidates import CANDIDATES, Candidate, Effort, Found, Partitioned, Search, load_centroids
from bench.experiments.scenes import FOLDER
from bench.experiments.timing import anonymous_bytes, measure_in_turns, processor_ms, time_queries
from bench.experiments.vectors import load_exact, load_queries, load_vectors, measure_distances, recall
from bench.results import Figures, save_figures

COUNT = 1_000_000
TARGET = 0.99
ASKED = 1_000  # queries to measure recall with
TRIED = 60  # queries to find the fastest of several efforts that reach the target
TIMED = 600


def main() -> None:
    """Run one part; print and save its figures."""
    part, *words = sys.argv[1:] or [""]
    count = int(words[0]) if words else COUNT
    if part == "data":
        save_figures(f"index-data-{count}", measure_distances(count))
    elif part == "candidates":
        save_figures(f"index-candidates-{count}", compare_candidates(count, words[1:]))
    elif part == "bases":
        save_figures(f"index-bases-{count}", bases.measure(count))
    elif part == "live":
        save_figures(f"index-live-{count}", live.measure(count))
    elif part == "http":
        save_figures(f"index-http-{count}", over_http.measure(live.make_data_directory(count), count))
    elif part == "bound":
        save_figures("index-bound", crossover.measure())
    else:
        raise SystemExit(__doc__)


def compare_candidates(count: int, names: list[str]) -> Figures:
    """Measure the named candidates, or all, at the target recall: pace in turns, memory, time to build."""
    asked = load_queries()
    figures: Figures = {}
    searches: dict[str, Search] = {}
    for candidate in CANDIDATES:
        if names and candidate.name not in names:
            continue
        folder = FOLDER / f"{candidate.name.lower().replace(', ', '-').replace(' ', '-')}-{count}"
        figures[f"{candidate.name}: build, s"] = build(candidate, load_vectors(count), folder)
        before = anonymous_bytes()
        candidate.open(folder)
        candidate.at(candidate.efforts[0])(asked[:10])
        figures[f"{candidate.name}: bytes a vector"] = (anonymous_bytes() - before) / count
        effort, reached = find_cheapest(candidate, asked[:ASKED], load_exact(count, asked[:ASKED]))
        figures[f"{candidate.name}: recall@10 at {effort}"] = reached
        searches[candidate.name] = candidate.at(effort)
    faiss.omp_set_num_threads(1)
    for name, pace in measure_in_turns(dict(searches), asked[ASKED : ASKED + TIMED]).items():
        figures[f"{name}: p50, ms"] = pace.p50
        figures[f"{name}: two threads, a second"] = pace.rate
    for name, search in searches.items():
        figures[f"{name}: processor ms a query"] = processor_ms(search, asked[ASKED : ASKED + TRIED])
    return figures


def build(candidate: Candidate, rows: Embeddings, folder: Path) -> float:
    """Seconds that the build took; the folder is made once and remembers them."""
    said = folder / "seconds"
    if isinstance(candidate, Partitioned):
        load_centroids(rows, folder.parent)
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


def find_cheapest(candidate: Candidate, asked: Embeddings, truth: Found) -> tuple[Effort, float]:
    """The fastest effort that reaches the target, and its recall; if none does, the effort with the best recall."""
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
            reached.append((sum(time_queries(search, asked[:TRIED])), effort, share))
            faiss.omp_set_num_threads(2)
    if reached:
        _, best, most = min(reached, key=lambda way: way[0])
    return best, most


if __name__ == "__main__":
    main()
