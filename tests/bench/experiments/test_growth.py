"""Growth is fitted as a power of the count."""

from __future__ import annotations

import pytest

from bench.experiments import growth
from bench.experiments.growth import fit_power_law, load_measured


def test_a_power_law_is_found_again() -> None:
    law = fit_power_law({n: 3.0 * n**0.5 for n in (100, 1_000, 10_000)})
    assert law.exponent == pytest.approx(0.5)
    assert law.off == pytest.approx(1)
    assert law.at(1_000_000) == pytest.approx(3_000)


def test_a_fit_says_how_far_off_it_is() -> None:
    assert fit_power_law({1: 1.0, 10: 20.0, 100: 100.0}).off > 1.3


def test_one_point_is_no_growth() -> None:
    with pytest.raises(ValueError, match="two points"):
        fit_power_law({100: 1.0})


def test_only_what_was_measured_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"index-live-100000": {"p50, ms": 1.0}, "index-live-1000000": {"p50, ms": 2.0, "build, s": 90.0}}
    monkeypatch.setattr(growth, "load_figures", lambda name: kept.get(name, {}))
    found = load_measured()
    assert found["p50, ms"] == {100_000: 1.0, 1_000_000: 2.0}
    assert found["build, s"] == {1_000_000: 90.0}
    assert found["open, s"] == {}
