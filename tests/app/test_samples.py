"""Where the demo gallery is found, and what it brings."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from app import samples
from app.errors import StartupError


def test_the_gallery_of_a_checkout_holds_pictures_and_texts() -> None:
    folder = samples.gallery()
    with zipfile.ZipFile(folder / samples.ARCHIVE) as archive:
        assert "metadata.jsonl" in archive.namelist()
    texts = samples.texts(folder / samples.TEXTS)
    assert len({text["id"] for text in texts}) == len(texts) > 100


def test_the_gallery_inside_the_package_comes_first_and_a_missing_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "__file__", str(tmp_path / "app" / "samples.py"))
    with pytest.raises(StartupError, match="not installed"):
        samples.gallery()
    for folder in (tmp_path / "demo", tmp_path / "app" / "gallery"):
        folder.mkdir(parents=True)
        (folder / samples.ARCHIVE).touch()
        assert samples.gallery() == folder
