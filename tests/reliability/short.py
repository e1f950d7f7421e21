"""Runs the short form of a proof as a test."""

from __future__ import annotations

import pytest

from tests.reliability.promise import Impossible, Scale, load_proof


def hold_promise(name: str) -> None:
    """The promise holds; skipped where this machine cannot try it."""
    try:
        outcome = load_proof(name).run(Scale.SHORT)
    except Impossible as error:
        pytest.skip(str(error))
    print(outcome.figure)
    assert outcome.ok, outcome.figure
