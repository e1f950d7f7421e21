"""Measure how long a server takes from its command to ready, empty and with 100,000 pictures of the starter model.

python -m bench.start   (a minute; both in turns, the median of each)
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from app.core.settings import Settings
from app.encoder.loader import EncoderOptions, load_located, locate_model
from app.encoder.protocol import normalise
from bench.data_directory import fill_data_directory
from bench.intake import start_server
from bench.results import Figures, save_figures
from bench.weights import WORK

PICTURES = 100_000
ROUNDS = 7


def main() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    save_figures("start", measure_starts())


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


if __name__ == "__main__":
    main()
