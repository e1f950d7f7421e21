"""What names of icons and of clip art name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.things import (
    WORDNET,
    base_name,
    chinese_names,
    group_icons,
    list_clip_art,
    read_nouns,
)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("anchor-duotone", "anchor"),
        ("bottle-one", "bottle"),
        ("fire-extinguisher-outline-rounded", "fire extinguisher"),
        ("abacus_01", "abacus"),
        ("fill", ""),
    ],
)
def test_a_base_name_has_no_words_of_style(name: str, base: str) -> None:
    assert base_name(name) == base


def test_nouns_are_things_with_synonyms_where_they_mean_but_one(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(
        "  1 This line is of the licence\n"
        "00000011 06 n 03 anvil 0 smith's_block 0 iron_block 1 000 | a block\n"
        "00000022 05 n 01 bat 0 000 | an animal\n"
        "00000033 06 n 02 bat 1 club 0 000 | for ball games\n"
        "00000044 09 n 01 justice 0 000 | an idea\n",
        "latin-1",
    )
    (tmp_path / "index.noun").write_text(
        "  1 This line is of the licence\n"
        "anvil n 1 1 @ 1 0 00000011  \n"
        "bat n 2 1 @ 2 0 00000022 00000033  \n"
        "justice n 1 1 @ 1 0 00000044  \n"
        "smith's_block n 1 1 @ 1 0 00000011  \n",
        "latin-1",
    )
    nouns = read_nouns(tmp_path)
    assert set(nouns) == {"anvil", "bat", "smith's block"}
    assert nouns["anvil"].synonyms == ("smith's block", "iron block")
    assert nouns["bat"].synonyms == ()
    assert nouns["bat"].topics == {"en": ("animal",), "zh": ("动物",)}


def test_wordnet_itself_can_be_read() -> None:
    if not WORDNET.exists():
        pytest.skip("WordNet is not installed (Debian: wordnet-base)")
    nouns = read_nouns()
    assert nouns["hammer"].kind == "06"
    assert nouns["washing machine"].synonyms == ("washer", "automatic washer")
    assert "happiness" not in nouns


def test_chinese_names_are_those_of_the_designers(tmp_path: Path) -> None:
    rows = [
        {"name": "a-cane", "title": "拐杖"},
        {"name": "tree-two", "title": "树木2"},
        {"name": "tree", "title": "大树"},
        {"name": "api", "title": "API"},
    ]
    (tmp_path / "icons.json").write_text(json.dumps(rows), "utf-8")
    assert chinese_names(tmp_path / "icons.json") == {"a cane": "拐杖", "tree": "树木"}
    assert chinese_names(tmp_path / "missing.json") == {}


def test_icons_of_one_name_come_together_at_most_two_of_a_set() -> None:
    first = {"bell": "1", "bell-fill": "2", "bell-thin": "3", "bolt": "4"}
    found = group_icons([("ph", first), ("mdi", {"bell-outline": "5"})])
    assert found == {"bell": [("ph", "1"), ("ph", "2"), ("mdi", "5")], "bolt": [("ph", "4")]}


def test_clip_art_shows_what_its_name_begins_with(tmp_path: Path) -> None:
    for name in ("fire_truck_01.png", "fire_jane_02.png", "jane_fire.png", "note.txt"):
        (tmp_path / name).touch()
    found = {path.name: thing for thing, path in list_clip_art({"fire": 0, "fire truck": 1}, tmp_path)}
    assert found == {"fire_truck_01.png": 1, "fire_jane_02.png": 0}
