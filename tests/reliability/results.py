"""What the proofs reached when they were last run, one file each, and the pages that are written from it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.reliability.promise import Promise, Scale

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "reliability.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- promises: written by scripts/prove --write -->", "<!-- promises: end -->"
HEAD = """# Reliability: what is promised, and what was tried against it

`scripts/prove --write` writes this page; do not edit it. Each promise has a proof that tries to break it: the proof
starts real servers in processes of their own, kills them, starves them and lies to them. The first lines of a proof's
module in `tests/reliability/proofs/` say what it does and what counts as a failure. `scripts/prove NAME` runs one
proof in its long form, `make prove` runs all of them. The tests run the short forms at every change.

"""
FOOT = """
Beside these:

- `ready` means that a search sent afterwards finds the picture. 204 for a delete means that no search finds it.
- A decoder that crashes, hangs or uses too much memory fails its own picture only.
- Where API keys exist, the server answers no call without a key that allows it, however the address is spelled (tested
  for every call and every kind of key). It refuses a revoked key from the next request on.

Sightline has no consensus of its own: several servers agree by PostgreSQL, and are as safe as that and the bucket are
([what is consistent with what](explanation/consistency.md)). It promises no more safety from power cuts than a disk has
that honours fsync, and nothing against somebody who can write to the data directory. A [Milvus](howto/scale-out.md)
engine follows later than the answer.

These figures were measured with the clocks and disks of a small virtual machine. No proof can show that a disk which
reports a write has written it.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """One run of a proof. `at` is a date, `seconds` what it took on `cores`."""

    figure: str
    ok: bool
    scale: str
    seconds: int
    cores: int
    at: str


def save_result(name: str, figure: str, ok: bool, scale: Scale, seconds: float) -> None:
    """Keep what a proof reached."""
    today = datetime.now(UTC).date().isoformat()
    result = Result(figure, ok, scale.value, round(seconds), os.cpu_count() or 1, today)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")


def load_result(name: str) -> Result | None:
    """What a proof reached last; None when it was never kept."""
    path = FOLDER / f"{name}.json"
    return Result(**json.loads(path.read_text("utf-8"))) if path.exists() else None


def format_figure(result: Result | None) -> str:
    """The figure, for a table."""
    if result is None:
        return "not run yet"
    figure = result.figure.replace("|", r"\|")
    return figure if result.ok else f"**FAILED**: {figure}"


def render_page(promises: list[Promise]) -> str:
    """docs/reliability.md."""
    rows = ["| | promise | command | figure reached | scale | on | took |", "|---|---|---|---|---|---|---|"]
    for promise in promises:
        result = load_result(promise.name)
        said = f"{result.scale} | {result.at} | {result.seconds} s, {result.cores} cores" if result else "– | – | –"
        rows.append(
            f"| {promise.number} | {promise.text} | `scripts/prove {promise.name}` | {format_figure(result)} | {said} |"
        )
    return HEAD + "\n".join(rows) + "\n" + FOOT


def render_summary(promises: list[Promise]) -> str:
    """The sentence of README's section "Promises"."""
    results = [(promise, load_result(promise.name)) for promise in promises]
    broken = [f"{promise.number} ({promise.name})" for promise, result in results if result and not result.ok]
    untried = [f"{promise.number} ({promise.name})" for promise, result in results if result is None]
    summary = f"{len(promises) - len(broken) - len(untried)} of {len(promises)} held when their proofs were last run"
    failed = f"; failed: {', '.join(broken)}" if broken else ""
    return f"{summary}{failed}{'; not run yet: ' + ', '.join(untried) if untried else ''}."


def render_readme(text: str, promises: list[Promise]) -> str:
    """README with its summary anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{render_summary(promises)}\n{END}{after}"


def write_pages(promises: list[Promise]) -> None:
    """Write the page and README's summary from what was kept."""
    PAGE.write_text(render_page(promises), encoding="utf-8")
    README.write_text(render_readme(README.read_text("utf-8"), promises), encoding="utf-8")
