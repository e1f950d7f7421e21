"""The words that the glossary gives up are not used any more, in code or on pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
KEPT = ("`ghosts`", "ghost_hits")  # names that users see


def given_up() -> list[str]:
    table = GLOSSARY.read_text("utf-8").partition("| not | but |")[2]
    return re.findall(r"^\| ([a-z ]+) \|", table, re.MULTILINE)


def pages_and_code() -> Iterator[Path]:
    for folder in ("app", "index"):
        yield from (ROOT / folder).rglob("*.py")
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
    for folder in ("howto", "reference", "explanation"):
        yield from (ROOT / "docs" / folder).glob("*.md")


@pytest.mark.parametrize("word", given_up())
def test_a_word_that_the_glossary_gives_up_is_not_used(word: str) -> None:
    pattern = re.compile(rf"(?<![a-z]){word.replace(' ', '[ _]')}(?![a-z])", re.IGNORECASE)
    found = []
    for path in pages_and_code():
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            for kept in KEPT:
                line = line.replace(kept, "")
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", GLOSSARY.read_text("utf-8"), re.MULTILINE)
    assert words == sorted(words, key=str.lower)
    assert len(words) == len(set(words))
