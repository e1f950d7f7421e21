"""Save the latest figures of each benchmark; bench.report reads them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.weights import WORK

FOLDER = WORK / "results"
Figures = dict[str, float]


def load_average() -> float:
    """Average number of processes that wanted a core during the last minute."""
    return os.getloadavg()[0]


def save_figures(name: str, figures: Figures, folder: Path = FOLDER) -> None:
    """Print the figures and save them under `name`."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = {"at": datetime.now(UTC).isoformat(timespec="minutes"), "figures": figures}
    (folder / f"{name}.json").write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    table = Table("figure", "value")
    for what, value in figures.items():
        table.add_row(what, f"{value:,.3g}" if value < 100 else f"{value:,.0f}")
    Console(width=140).print(table)


def load_figures(name: str, folder: Path = FOLDER) -> Figures:
    """The saved figures of a benchmark; empty if it has not run."""
    path = folder / f"{name}.json"
    if not path.exists():
        return {}
    figures: Figures = json.loads(path.read_text("utf-8"))["figures"]
    return figures
