"""Sets of drawings by other hands, read from packages that the test writes itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training import hands
from training.hands import HANDS, draw_svg, find_emoji, is_ink, known_names, read_set, slug
from training.sprites import SIZE, on_paper

from .glyphs import make_glyph

DISC = '<circle cx="8" cy="8" r="6" fill="{}"/>'


def write_set(folder: Path, icons: dict[str, Any], **more: Any) -> Path:
    """A package as Iconify makes them; `chars` becomes a file of its own."""
    folder.mkdir(parents=True)
    characters = more.pop("chars", None)
    (folder / "icons.json").write_text(json.dumps({"prefix": folder.name, "icons": icons, **more}), "utf-8")
    (folder / "info.json").write_text(json.dumps({"license": {"spdx": "MIT"}}), "utf-8")
    if characters is not None:
        (folder / "chars.json").write_text(json.dumps(characters), "utf-8")
    return folder


def test_a_drawing_fills_the_middle_with_premultiplied_alpha() -> None:
    drawn = draw_svg(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{DISC.format("#c01020")}</svg>')
    assert drawn is not None
    assert drawn.shape == (SIZE, SIZE, 4)
    assert tuple(drawn[SIZE // 2, SIZE // 2]) == (0xC0, 0x10, 0x20, 255)
    assert (drawn[..., :3] <= drawn[..., 3:]).all()
    assert (drawn[..., 3] > 0).any(axis=0).sum() >= SIZE - 8  # the disc of 12 in 16 is cut out and enlarged
    paper = on_paper(drawn)
    assert tuple(paper[80, 80]) == (0xC0, 0x10, 0x20)
    assert tuple(paper[0, 0]) == (255, 255, 255)


@pytest.mark.parametrize("body", ["", '<path fill="none" d="M0 0h9v9z"/>', '<circle cx="8" cy="8" r=".3"/>'])
def test_what_does_not_show_is_no_drawing(body: str) -> None:
    assert draw_svg(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{body}</svg>') is None


def test_only_a_drawing_in_black_alone_is_ink(tmp_path: Path) -> None:
    icons = {"ink": {"body": DISC.format("currentColor")}, "red": {"body": DISC.format("red")}}
    drawn = {name: draw_svg(body) for name, body in read_set(write_set(tmp_path / "s", icons)).bodies.items()}
    assert drawn["ink"] is not None
    assert drawn["red"] is not None
    assert is_ink(drawn["ink"])
    assert not is_ink(drawn["red"])


def test_sizes_come_from_the_icon_else_from_the_set(tmp_path: Path) -> None:
    icons = {"own": {"body": "<g/>", "left": -1, "width": 20}, "set": {"body": "<g/>"}}
    read = read_set(write_set(tmp_path / "sized", icons, height=24))
    assert 'viewBox="-1 0 20 24"' in read.bodies["own"]
    assert 'viewBox="0 0 16 24"' in read.bodies["set"]
    assert read.licence == "MIT"


def test_emoji_are_found_by_code_point_name_alias_and_other_sets(tmp_path: Path) -> None:
    glyphs = [
        make_glyph("face with tears of joy", "笑哭了"),
        make_glyph("soft ice cream", "圆筒冰激凌"),
        make_glyph("automobile", "汽车"),
        make_glyph("owl", "猫头鹰"),
    ]
    texts = ("\U0001f602", "\U0001f366", "\U0001f697", "\U0001f989")
    glyphs = [replace(glyph, text=text) for glyph, text in zip(glyphs, texts, strict=True)]
    told = read_set(
        write_set(
            tmp_path / "told",
            {"ice": {"body": DISC}, "car": {"body": DISC}, "joy": {"body": DISC}},
            chars={"1f366": "ice", "1f697-fe0f": "car", "1f602": "joy"},
        )
    )
    named = read_set(
        write_set(
            tmp_path / "named",
            {"face-with-tears-of-joy": {"body": "joy"}, "car-1": {"body": "red car"}, "owlet": {"body": "owl"}},
            aliases={"owl": {"parent": "owlet"}, "ice": {"parent": "owlet", "hFlip": True}},
        )
    )
    known = known_names([told, named])
    assert set(find_emoji(told, glyphs, known)) == {0, 1, 2}
    found = find_emoji(named, glyphs, known)
    assert set(found) == {0, 2, 3}  # an alias that turns its picture is not the same picture
    assert "red car" in found[2]


def test_one_set_writes_names_of_characters_without_gaps(tmp_path: Path) -> None:
    glyphs = [replace(make_glyph("light", "灯"), text="\U0001f6a8")]
    for name, expected in (("fxemoji", {0}), ("other", set())):
        icons = read_set(write_set(tmp_path / name, {"policecarsrevolvinglight": {"body": DISC}}))
        assert set(find_emoji(icons, glyphs, {})) == expected


def test_names_become_those_of_packages() -> None:
    assert slug("Piñata") == "pinata"
    assert slug("man’s shoe") == "mans-shoe"
    assert slug("hundred points: 100") == "hundred-points-100"


def test_a_hand_that_evaluation_holds_out_has_no_relative_in_training() -> None:
    held = {hand.name.split("-")[0] for hand in HANDS if hand.is_held_out}
    assert held == {"openmoji", "emojione"}
    assert not held & {hand.name.split("-")[0] for hand in HANDS if not hand.is_held_out}


def test_every_hand_of_training_has_a_licence_that_lets_a_model_learn_and_ship() -> None:
    free = {"MIT", "ISC", "Apache-2.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0"}
    assert {hand.licence for hand in HANDS if not hand.is_held_out} <= free


def test_the_packages_have_the_licences_that_the_table_says() -> None:
    if not hands.PACKAGES.exists():
        pytest.skip("the packages of training/package.json are not installed")
    for hand in HANDS:
        info = json.loads((hands.PACKAGES / "@iconify-json" / hand.name / "info.json").read_text("utf-8"))
        assert info["license"]["spdx"] == hand.licence, hand.name


def test_every_hand_is_pinned_and_named_in_the_notice() -> None:
    root = Path(__file__).parents[2]
    pinned = json.loads((root / "training" / "package.json").read_text("utf-8"))["dependencies"]
    notice = (root / "NOTICE").read_text("utf-8")
    for hand in HANDS:
        assert pinned[f"@iconify-json/{hand.name}"][0].isdigit(), hand.name
        assert hand.is_held_out or f"@iconify-json/{hand.name}" in notice, hand.name
