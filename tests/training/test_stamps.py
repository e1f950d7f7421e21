"""Stamps: pictures with descriptions in many languages."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from training.stamps import list_stamps, read_description

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8" {}><circle cx="4" cy="4" r="4" fill="red"/></svg>'


def write_stamp(folder: Path, name: str, english: str, chinese: str, picture: str = "png") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [english, "de.utf8=Etwas.", f"zh_CN.utf8={chinese}"]
    path.with_suffix(".txt").write_text("\n".join(lines), "utf-8")
    if picture == "png":
        Image.new("RGBA", (20, 10), (0, 0, 255, 255)).save(path.with_suffix(".png"))
    elif picture:
        path.with_suffix(".svg").write_text(picture, "utf-8")


def test_a_description_is_read_in_both_languages_or_not_at_all(tmp_path: Path) -> None:
    for name, lines, expected in (
        ("both", "– A frog.\nfr.utf8=Une grenouille.\nzh_CN.utf8=青蛙。", {"en": "A frog", "zh": "青蛙"}),
        ("untranslated", "A frog.\nzh_CN.utf8=A frog.", {}),
        ("english", "A frog.", {}),
        ("empty", "", {}),
    ):
        path = tmp_path / f"{name}.txt"
        path.write_text(lines, "utf-8")
        assert read_description(path) == expected, name


def test_photographs_and_drawings_are_told_apart_and_descriptions_are_unique(tmp_path: Path) -> None:
    write_stamp(tmp_path, "animals/frog", "A frog.", "青蛙。")
    write_stamp(tmp_path, "animals/toad", "A toad.", "青蛙。")
    write_stamp(tmp_path, "animals/cartoon/pig", "A pig.", "猪。")
    write_stamp(tmp_path, "food/pear", "A pear.", "梨。", SVG.format(""))
    write_stamp(tmp_path, "food/plum", "A plum.", "李子。", SVG.replace('viewBox="0 0 8 8"', "").format('width="0"'))
    write_stamp(tmp_path, "food/none", "Nothing.", "没有。", "")
    write_stamp(tmp_path, "symbols/one", "One.", "一。")
    stamps = {stamp.texts["en"]: stamp for stamp in list_stamps(tmp_path)}
    kinds = {name: stamp.kind for name, stamp in stamps.items()}
    assert kinds == {"A frog": "photographs", "A pig": "drawings", "A pear": "drawings", "A plum": "drawings"}
    frog, pear = stamps["A frog"].draw(), stamps["A pear"].draw()
    assert frog is not None
    assert frog.shape == (224, 224, 3)
    assert tuple(frog[112, 112]) == (0, 0, 255)
    assert tuple(frog[0, 0]) == (255, 255, 255)
    assert pear is not None
    assert tuple(pear[80, 80]) == (255, 0, 0)
    assert stamps["A plum"].draw() is None
