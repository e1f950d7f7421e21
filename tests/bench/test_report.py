"""The table and the plot of docs/benchmarks.md say what was measured, and whether it was aimed for."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import report, results
from bench.report import Aim, plot
from bench.servers import make_queries

SVG = "{http://www.w3.org/2000/svg}"


def test_figures_are_kept_by_module(tmp_path: Path) -> None:
    assert results.load_figures("encode", tmp_path) == {}
    results.save_figures("encode", {"pictures": 79.5}, tmp_path)
    assert results.load_figures("encode", tmp_path) == {"pictures": 79.5}


def test_table_says_what_is_met_and_what_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "PLOT", tmp_path / "plot.svg")
    monkeypatch.setattr(report, "load_figures", lambda _: {"fast": 6.0, "memory": 0.7})
    aims = (Aim("speed", "x", "fast", 5), Aim("space", "x", "memory", 0.6, most=True, plotted=False))
    monkeypatch.setattr(report, "AIMS", (*aims, Aim("not measured", "x", "absent", 1)))
    report.main()
    printed = capsys.readouterr().out
    assert "| speed | 6 | ≥ 5 | met |" in printed
    assert "| space | 0.7 | ≤ 0.6 | **missed** |" in printed
    assert "not measured" not in printed
    assert (tmp_path / "plot.svg").read_text("utf-8").count("<rect") == 1


def test_bars_grow_with_the_ratio_and_tell_a_miss() -> None:
    drawn = ElementTree.fromstring(plot([(Aim("a", "x", "a", 4), 8.0), (Aim("b & c", "x", "b", 4), 2.0)]))
    bars = drawn.findall(f"{SVG}rect")
    assert [bar.get("class") for bar in bars] == ["bar", "short"]
    assert float(bars[0].get("width", 0)) == pytest.approx(3 * float(bars[1].get("width", 0)), rel=0.01)
    assert len(drawn.findall(f"{SVG}line[@class='aim']")) == 2


def test_queries_are_distinct_and_none_is_asked_twice() -> None:
    every = make_queries(300) + make_queries(400, 300)
    assert len(set(every)) == 700
    with pytest.raises(ValueError, match="700"):
        make_queries(2, 699)
