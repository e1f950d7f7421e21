"""Fit how memory, build time and latency grow with the number of vectors, and extrapolate.

`python -m bench.experiments.growth` prints the fits to the figures that `python -m bench.experiments.index live` saved
for several counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.results import load_figures

COUNTS = (100_000, 300_000, 1_000_000, 3_000_000)
CARRIED = (10_000_000, 100_000_000)
WHAT = (
    "memory beyond mapped files, MB",
    "files, MB",
    "build, s",
    "build, processor s",
    "open, s",
    "p50, ms",
    "processor ms a query",
)


@dataclass(frozen=True, slots=True)
class Power:
    """y = factor × n ^ exponent; `off` is the largest factor by which a measured point deviates."""

    factor: float
    exponent: float
    off: float

    def at(self, n: float) -> float:
        return float(self.factor * n**self.exponent)


def fit_power_law(points: Mapping[int, float]) -> Power:
    """The power law nearest to the points, by least squares of the logarithms. ValueError for fewer than two."""
    if len(points) < 2:
        raise ValueError("a fit takes two points or more")
    x, y = (np.log(np.array(list(values), np.float64)) for values in (points.keys(), points.values()))
    exponent, constant = np.polyfit(x, y, 1)
    off = float(np.exp(np.abs(constant + exponent * x - y).max()))
    return Power(math.exp(constant), float(exponent), off)


def load_measured(counts: Sequence[int] = COUNTS) -> dict[str, dict[int, float]]:
    """The saved values by figure and count."""
    figures = {count: load_figures(f"index-live-{count}") for count in counts}
    return {what: {count: said[what] for count, said in figures.items() if said.get(what, 0) > 0} for what in WHAT}


def main() -> None:
    """Print points, fits and extrapolated values."""
    table = Table("figure", *(f"{n:,}" for n in COUNTS), "fit", "off by", *(f"{n:,}" for n in CARRIED))
    for what, points in load_measured().items():
        if len(points) < 2:
            continue
        law = fit_power_law(points)
        values = [f"{points[n]:.3g}" if n in points else "" for n in COUNTS]
        table.add_row(
            what, *values, f"n^{law.exponent:.2f}", f"×{law.off:.2f}", *(f"{law.at(n):,.3g}" for n in CARRIED)
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
