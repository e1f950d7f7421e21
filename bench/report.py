"""Print the table of ratios and aims of docs/benchmarks.md from the latest figures, and draw its plot.

`python -m bench.report` prints the table in Markdown and writes docs/images/ratios.svg.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bench.results import load_figures

PLOT = Path(__file__).parent.parent / "docs/images/ratios.svg"
WIDTH, ROW, LEFT, RIGHT, TOP = 760, 30, 330, 70, 34
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.bar { fill: #2f6f8f }
.short { fill: #b35c1e }
.aim { stroke: #1f2328; stroke-width: 2 }
.line { stroke: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .bar { fill: #5fa8c9 } .short { fill: #e0924f }
  .aim { stroke: #e6edf3 } .line { stroke: #3d444d }
}
"""


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure that a benchmark saved, and its aim: a lower bound, or an upper bound if `most`."""

    work: str
    module: str
    figure: str
    aim: float
    most: bool = False
    plotted: bool = True

    @property
    def value(self) -> float | None:
        return load_figures(self.module).get(self.figure)

    def met(self, value: float) -> bool:
        return value <= self.aim if self.most else value >= self.aim


AIMS = (
    Aim("encoding, batch 32: open_clip in torch fp32", "encode", "over open_clip, batch 32", 5),
    Aim("pictures in, 640×480: clip-retrieval", "peers", "640x480 pictures a second: ours over clip-retrieval", 4.5),
    Aim("pictures in, 12 megapixels: clip-retrieval", "peers", "12 MP pictures a second: ours over clip-retrieval", 3),
    Aim("text search, 1 caller: clip-retrieval", "peers", "1 caller, p50 ms: ours over clip-retrieval", 8),
    Aim("text search, 1 caller: infinity's embedding", "peers", "1 caller, p50 ms: ours over infinity", 4),
    Aim("text search, 16 callers: clip-retrieval", "peers", "16 callers, a second: ours over clip-retrieval", 20),
    Aim("text search, 16 callers: infinity's embedding", "peers", "16 callers, a second: ours over infinity", 4),
    Aim("share of the floor, best batch", "encode", "of the floor, best batch", 0.85, plotted=False),
    Aim("pictures in, share of the encoder alone", "serve", "ingest 640x480 of the encoder alone", 0.75, plotted=False),
    Aim("search p95 beside a bulk", "serve", "searches beside a bulk over before", 2, most=True, plotted=False),
    Aim("memory: clip-retrieval", "peers", "memory, MiB: ours over clip-retrieval", 0.6, most=True, plotted=False),
    Aim("memory: infinity", "peers", "memory, MiB: ours over infinity", 0.6, most=True, plotted=False),
)


def main() -> None:
    measured = [(aim, value) for aim in AIMS if (value := aim.value) is not None]
    if not measured:
        raise SystemExit("there are no figures yet; run bench.encode, bench.serve and bench.peers")
    print("| ours beside | times | aim | |\n|---|---|---|---|")
    for aim, value in measured:
        bound = f"{'≤' if aim.most else '≥'} {aim.aim:g}"
        print(f"| {aim.work} | {value:.2g} | {bound} | {'met' if aim.met(value) else '**missed**'} |")
    PLOT.write_text(plot([(aim, value) for aim, value in measured if aim.plotted]), encoding="utf-8")


def plot(rows: Sequence[tuple[Aim, float]]) -> str:
    """Bars on a logarithmic axis from 1, each with a mark at its aim; readable on a light and on a dark background."""
    most = max([2.0, *(max(value, aim.aim) for aim, value in rows)])
    scale = (WIDTH - LEFT - RIGHT) / math.log2(most)
    height = TOP + ROW * len(rows) + 30
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>Sightline beside others: how many times as fast</title><style>{STYLE}</style>",
        f'<text x="{LEFT}" y="16" class="small">times as fast; the upright mark is the aim</text>',
    ]
    for power in range(int(math.log2(most)) + 1):
        x = LEFT + power * scale
        drawn.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 24}"/>')
        drawn.append(f'<text class="small" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{2**power}</text>')
    for number, (aim, value) in enumerate(rows):
        y = TOP + ROW * number
        long = max(1.0, math.log2(max(value, 1.0)) * scale)
        at = LEFT + math.log2(aim.aim) * scale
        kind = "bar" if aim.met(value) else "short"
        drawn += [
            f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(aim.work)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{long:.1f}" height="18" rx="2"/>',
            f'<line class="aim" x1="{at:.1f}" x2="{at:.1f}" y1="{y - 1}" y2="{y + 23}"/>',
            f'<text x="{LEFT + max(long, at - LEFT) + 8:.1f}" y="{y + 15}">{value:.2g}</text>',
        ]
    return "\n".join([*drawn, "</svg>", ""])


if __name__ == "__main__":
    main()
