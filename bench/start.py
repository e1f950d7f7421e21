"""How long a server takes from its command to the first search, empty and with 100,000 pictures of the starter model.

python -m bench.start   (a minute; both in turns, the median of each)
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from app.core.settings import Settings
from app.encoder.loader import EncoderOptions, load_located, locate_model
from bench.experiments.vectors import normalised
from bench.filled import filled
from bench.intake import server
from bench.results import Figures, keep
from bench.weights import WORK

PICTURES = 100_000
ROUNDS = 7


def main() -> None:
    """Measure and keep it."""
    WORK.mkdir(parents=True, exist_ok=True)
    keep("start", figures())


def figures() -> Figures:
    """Seconds until /readyz says yes; each directory is served once before, so that its index is saved."""
    settings = Settings()
    space = load_located(locate_model("starter", settings.models), settings.models, EncoderOptions()).space
    rows = normalised(np.random.default_rng(0).standard_normal((PICTURES, space.d)))
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        empty, full = Path(scratch) / "empty", filled(Path(scratch) / "full", space, rows)
        taken: dict[Path, list[float]] = {empty: [], full: []}
        for _ in range(1 + ROUNDS):
            for data in taken:
                with server(data) as (_, _, seconds):
                    taken[data].append(seconds)
    return {
        "start of an empty server to ready, s": statistics.median(taken[empty][1:]),
        f"start with {PICTURES:,} pictures to ready, s": statistics.median(taken[full][1:]),
    }


if __name__ == "__main__":
    main()
