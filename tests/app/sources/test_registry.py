from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import UrlNotAllowed, Validation
from app.core.types import Asked
from app.sources.base import Allowed
from app.sources.local_files import Roots
from app.sources.registry import KINDS, asked_of


def test_the_word_before_the_colon_chooses_the_kind(tmp_path: Path) -> None:
    allowed = Allowed(Roots((tmp_path,)), fetch=True)
    assert asked_of(f"folder:{tmp_path}/.", {}, allowed) == Asked("folder", str(tmp_path))
    assert asked_of("urls", {}, allowed) == Asked("urls")


@pytest.mark.parametrize("source", ["", "nothing", "nothing:/a", "FOLDER:/a", "folder", ":", "urls:x", "folder:/etc"])
def test_what_is_no_source_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(Validation):
        asked_of(source, {}, Allowed(Roots((tmp_path,)), fetch=True))


def test_an_option_belongs_to_kinds_that_take_it(tmp_path: Path) -> None:
    with pytest.raises(Validation, match="colour does not belong to the source folder:PATH"):
        asked_of(f"folder:{tmp_path}", {"colour": "red"}, Allowed(Roots((tmp_path,))))


def test_nothing_is_allowed_by_itself(tmp_path: Path) -> None:
    for word in KINDS:
        with pytest.raises((Validation, UrlNotAllowed)):
            asked_of(f"{word}:{tmp_path}" if word != "urls" else word, {}, Allowed())
