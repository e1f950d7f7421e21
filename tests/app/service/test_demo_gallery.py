"""Where the demo gallery is found, and what it brings."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from app.core.errors import StartupError
from app.service import demo_gallery


def test_the_gallery_of_a_checkout_holds_pictures_and_texts() -> None:
    folder = demo_gallery.find_gallery()
    with zipfile.ZipFile(folder / demo_gallery.ARCHIVE) as archive:
        assert "metadata.jsonl" in archive.namelist()
    texts = demo_gallery.read_gallery_texts(folder / demo_gallery.TEXTS)
    assert len({text["id"] for text in texts}) == len(texts) > 100


def test_the_gallery_inside_the_package_comes_first_and_a_missing_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_gallery, "__file__", str(tmp_path / "app" / "service" / "demo_gallery.py"))
    with pytest.raises(StartupError, match="not installed"):
        demo_gallery.find_gallery()
    for folder in (tmp_path / "demo", tmp_path / "app" / "gallery"):
        folder.mkdir(parents=True)
        (folder / demo_gallery.ARCHIVE).touch()
        assert demo_gallery.find_gallery() == folder
