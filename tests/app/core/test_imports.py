from __future__ import annotations

import importlib
import sys

import pytest

from app.core.imports import hide


def test_a_library_that_is_there_stays() -> None:
    with hide("json"):
        assert importlib.import_module("json")


def test_a_hidden_library_cannot_be_imported_and_can_be_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with hide("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    assert "colorsys" not in sys.modules
    assert importlib.import_module("colorsys")
