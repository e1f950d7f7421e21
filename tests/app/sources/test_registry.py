from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import UrlNotAllowed, Validation
from app.core.types import SourceSpec
from app.sources.base import SourcePolicy
from app.sources.local_files import AllowedFolders
from app.sources.registry import SOURCE_TYPES, parse_source


def test_the_word_before_the_colon_chooses_the_kind(tmp_path: Path) -> None:
    allowed = SourcePolicy(AllowedFolders((tmp_path,)), fetch=True)
    assert parse_source(f"folder:{tmp_path}/.", {}, allowed) == SourceSpec("folder", str(tmp_path))
    assert parse_source("urls", {}, allowed) == SourceSpec("urls")


@pytest.mark.parametrize("source", ["", "nothing", "nothing:/a", "FOLDER:/a", "folder", ":", "urls:x", "folder:/etc"])
def test_what_is_no_source_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(Validation):
        parse_source(source, {}, SourcePolicy(AllowedFolders((tmp_path,)), fetch=True))


def test_an_option_belongs_to_kinds_that_take_it(tmp_path: Path) -> None:
    with pytest.raises(Validation, match="colour does not belong to the source folder:PATH"):
        parse_source(f"folder:{tmp_path}", {"colour": "red"}, SourcePolicy(AllowedFolders((tmp_path,))))


def test_nothing_is_allowed_by_itself(tmp_path: Path) -> None:
    for word in SOURCE_TYPES:
        with pytest.raises((Validation, UrlNotAllowed)):
            parse_source(f"{word}:{tmp_path}" if word != "urls" else word, {}, SourcePolicy())
