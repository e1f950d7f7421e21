"""What README and docs/reliability.md say of the promises is what the proofs found."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest

from tests.reliability import results
from tests.reliability.__main__ import run_all
from tests.reliability.promise import Outcome, Promise, Scale, all_proofs, load_proof

PROOFS = all_proofs()
ELSEWHERE = {"roles": "tests/app/api/test_permissions.py goes through its matrix"}


def test_the_pages_say_what_was_kept() -> None:
    promises = [each.promise for each in PROOFS]
    assert results.PAGE.read_text("utf-8") == results.render_page(promises), "scripts/prove --write"
    text = results.README.read_text("utf-8")
    assert text == results.render_readme(text, promises), "scripts/prove --write"
    assert text.count(results.BEGIN) == text.count(results.END) == 1


def test_nothing_is_kept_of_a_proof_that_is_gone() -> None:
    assert {path.stem for path in results.FOLDER.glob("*.json")} <= {each.promise.name for each in PROOFS}


def test_every_promise_has_one_proof_that_says_what_it_does() -> None:
    numbers = [each.promise.number for each in PROOFS]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= set(range(1, 40))
    for each in PROOFS:
        module = __import__(each.run.__module__, fromlist=["run"])
        assert each.run.__module__ == f"tests.reliability.proofs.{each.promise.name}"
        assert "failing" in (module.__doc__ or "").lower(), f"{each.promise.name}: what counts as failing?"
        assert "|" not in each.promise.text


def test_proofs_are_listed_and_found_by_name() -> None:
    listed = subprocess.run(["scripts/prove"], capture_output=True, text=True, check=True, cwd=results.ROOT).stdout
    assert [line.split()[1] for line in listed.splitlines()] == [each.promise.name for each in PROOFS]
    refused = subprocess.run(["scripts/prove", "nonsense"], capture_output=True, text=True, cwd=results.ROOT)
    assert refused.returncode == 2
    with pytest.raises(KeyError):
        load_proof("nonsense")


def test_a_promise_that_does_not_hold_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = {"good": Outcome("0 lost", True), "bad": Outcome("1 lost", False)}
    monkeypatch.setattr("tests.reliability.__main__.run_apart", lambda promise, scale: (outcomes[promise.name], 1.0))
    good, bad = Promise(1, "good", "Good."), Promise(2, "bad", "Bad.", beside=True)
    assert run_all([good], Scale.SHORT, False)
    assert not run_all([good, bad], Scale.SHORT, False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [["1", "good", "ok"], ["1", "good", "ok"], ["2", "bad", "FAILED"]]


def test_every_proof_is_run_by_the_tests() -> None:
    run: list[str] = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.reliability.{path.stem}")
        run += getattr(module, "NAMES", ())
    assert sorted(run) == sorted({each.promise.name for each in PROOFS} - set(ELSEWHERE))
