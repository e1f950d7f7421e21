"""What was measured last, kept for the table and the plot of docs/benchmarks.md."""

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


def busy() -> float:
    """How many processes want a core, over the last minute."""
    return os.getloadavg()[0]


def keep(name: str, figures: Figures, folder: Path = FOLDER) -> None:
    """Print the figures and keep them under the module's name."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"at": datetime.now(UTC).isoformat(timespec="minutes"), "figures": figures}
    (folder / f"{name}.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    table = Table("figure", "value")
    for what, value in figures.items():
        table.add_row(what, f"{value:,.3g}" if value < 100 else f"{value:,.0f}")
    Console(width=140).print(table)


def kept(name: str, folder: Path = FOLDER) -> Figures:
    """The figures of a module; empty when it was not run."""
    path = folder / f"{name}.json"
    if not path.exists():
        return {}
    figures: Figures = json.loads(path.read_text("utf-8"))["figures"]
    return figures
