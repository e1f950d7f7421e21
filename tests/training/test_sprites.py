"""The atlas: which emoji, under which names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from training import sprites
from training.sprites import LANGUAGES, SIZE, Atlas, draw_glyph
from training.topics import TOPICS
from training.wishes import LABELS, WISHES


def test_atlas_holds_over_a_thousand_glyphs_with_distinct_names(atlas: Atlas) -> None:
    assert 1200 < len(atlas) < 1600
    assert atlas.images.shape == (len(atlas), SIZE, SIZE, 4)
    for language in LANGUAGES:
        assert len({glyph.names[language] for glyph in atlas.glyphs}) == len(atlas)


def test_no_skin_tones_and_no_country_flags(atlas: Atlas) -> None:
    text = "".join(glyph.text for glyph in atlas.glyphs)
    assert not re.search("[\U0001f3fb-\U0001f3ff\U0001f1e6-\U0001f1ff]", text)


def test_glyphs_are_drawn_whole_with_premultiplied_alpha(atlas: Atlas) -> None:
    for image in atlas.images[::50]:
        assert (image[..., 3] > 0).mean() > 0.05
        assert (image[..., :3] <= image[..., 3:]).all()


def test_colours_are_known_for_plain_things(atlas: Atlas) -> None:
    known = {glyph.names["en"]: glyph for glyph in atlas.glyphs}
    assert known["automobile"].colours[0] == "red"
    assert "car" in known["automobile"].words["en"]
    assert "笑脸" in known["grinning face"].words["zh"]
    assert not known["red heart"].paintable


def test_a_sequence_the_font_does_not_know_is_no_glyph() -> None:
    assert draw_glyph("\ue000") is None


def test_topics_wishes_and_labels_name_what_exists(atlas: Atlas) -> None:
    texts = {glyph.text.replace("\ufe0f", "") for glyph in atlas.glyphs}
    assert {emoji for wish in WISHES for emoji in wish.emoji} | set(LABELS) <= texts
    assert set(TOPICS) <= {glyph.group for glyph in atlas.glyphs}


def test_without_the_font_the_command_that_brings_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprites, "FONT", tmp_path / "NotoColorEmoji.ttf")
    with pytest.raises(SystemExit, match="apt-get install fonts-noto-color-emoji"):
        sprites.load_atlas(tmp_path)
