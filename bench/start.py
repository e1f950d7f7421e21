"""Measure how long a server takes from its command to ready, empty and with 100,000 pictures of the starter model, and
from its command to the first answer of a search: at the first start, at the second, and at the first start of a model
that must be converted.

python -m bench.start   (three minutes; in turns, the median of each)
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from app.core.settings import Settings
from app.encoder.conversion import COMPILED
from app.encoder.loader import STARTER, EncoderOptions, load_located, locate_model
from app.encoder.protocol import normalise
from bench.data_directory import fill_data_directory
from bench.intake import start_server
from bench.results import Figures, save_figures
from bench.weights import WORK

PICTURES = 100_000
ROUNDS = 7
FIRST_ROUNDS = 3


def main() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    save_figures("start", measure_starts() | measure_first_searches())


def measure_starts() -> Figures:
    """Seconds until /readyz answers 200. A first start of each directory, which saves its index, does not count."""
    settings = Settings()
    space = load_located(locate_model("starter", settings.models), settings.models, EncoderOptions()).space
    rows = normalise(np.random.default_rng(0).standard_normal((PICTURES, space.d)))
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        empty, full = Path(scratch) / "empty", fill_data_directory(Path(scratch) / "full", space, rows)
        taken: dict[Path, list[float]] = {empty: [], full: []}
        for _ in range(1 + ROUNDS):
            for data in taken:
                with start_server(data) as (_, _, seconds):
                    taken[data].append(seconds)
    return {
        "start of an empty server to ready, s": statistics.median(taken[empty][1:]),
        f"start with {PICTURES:,} pictures to ready, s": statistics.median(taken[full][1:]),
    }


def measure_first_searches() -> Figures:
    """Seconds from the command of a server until it has answered a search by words."""
    taken: dict[str, list[float]] = {"first start": [], "second start": [], "first start with a conversion": []}
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        plain = shutil.copytree(STARTER, Path(scratch) / "plain", ignore=shutil.ignore_patterns(COMPILED))
        for n in range(FIRST_ROUNDS):
            data = Path(scratch) / f"{n}"
            taken["first start"].append(search_once(data))
            taken["second start"].append(search_once(data))
            converted = search_once(Path(scratch) / f"{n}-converted", f"local-dir:{plain}")
            taken["first start with a conversion"].append(converted)
    return {f"{name} to the first search, s": statistics.median(seconds) for name, seconds in taken.items()}


def search_once(data: Path, model: str = "starter") -> float:
    began = time.perf_counter()
    with start_server(data, model) as (_, client, _):
        client.search("red car", 5)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
