"""The wide atlas, and the scenes that training draws from it; from sets that the test writes itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from training import things, wide
from training.captions import Captioner
from training.evaluate import hand_trial, stamp_trial, thing_trial
from training.feed import Maker
from training.hands import Hand
from training.model import SIDE, STARTER
from training.render import Renderer
from training.scenes import Object, Scene, redraw, sample_scene
from training.sprites import LANGUAGES, Atlas
from training.stamps import list_stamps
from training.things import Thing

from .glyphs import make_atlas
from .test_hands import write_set
from .test_stamps import write_stamp

DISC = '<circle cx="8" cy="8" r="7" fill="{}"/>'
RING = '<circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="2"/>'
TELLING = ("twemoji", "noto", "openmoji", "fluent-emoji-flat")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Atlas:
    """Two sets of emoji, two of icons, one clip; "openmoji" is held out, and one name means no glyph."""
    packages = tmp_path / "node_modules"
    for name in TELLING[1:]:
        write_set(packages / "@iconify-json" / name, {"cat": {"body": DISC.format("lime")}}, chars={"63": "cat"})
    unknown = {"cat": {"body": DISC.format("lime")}, "chess-piece": {"body": DISC.format("red")}}
    write_set(packages / "@iconify-json" / "twemoji", unknown, chars={"63": "cat"})
    write_set(
        packages / "@iconify-json" / "ph",
        {"anvil": {"body": RING}, "anvil-fill": {"body": RING}, "dog": {"body": RING}},
    )
    write_set(
        packages / "@iconify-json" / "mdi",
        {"anvil-outline": {"body": RING}, "idea": {"body": RING}, "lamp": {"body": ""}},
    )
    clips = tmp_path / "clips"
    clips.mkdir()
    Image.new("RGBA", (30, 20), (255, 0, 0, 255)).save(clips / "anvil_01.png")
    Image.new("RGBA", (30, 20), (0, 0, 0, 0)).save(clips / "dog_01.png")
    Image.new("RGBA", (3000, 2000), (255, 0, 0, 255)).save(clips / "dog_02.png")
    hands = (
        Hand("twemoji", "MIT", is_emoji=True),
        Hand("openmoji", "MIT", is_emoji=True, is_held_out=True),
        Hand("ph", "MIT", is_emoji=False),
        Hand("mdi", "MIT", is_emoji=False),
    )
    nouns = {"anvil": Thing("06", ("iron block",)), "lamp": Thing("06", ())}
    monkeypatch.setattr(wide, "PACKAGES", packages)
    monkeypatch.setattr(wide, "HANDS", hands)
    monkeypatch.setattr(wide, "CLIP_ART", clips)
    monkeypatch.setattr(things, "CLIP_ART", clips)
    monkeypatch.setattr(wide, "read_nouns", lambda: nouns)
    monkeypatch.setattr(wide, "chinese_names", lambda: {"anvil": "铁砧"})
    monkeypatch.setattr(wide, "list_clip_art", lambda known: things.list_clip_art(known, clips))
    monkeypatch.setattr(wide, "load_atlas", lambda folder: make_atlas())
    return wide.load_wide_atlas(tmp_path)


def test_the_atlas_has_the_fonts_glyphs_first_and_then_things_that_two_sets_name(built: Atlas) -> None:
    base = make_atlas()
    assert built.glyphs[: len(base)] == base.glyphs
    assert np.array_equal(built.images[: len(base)], base.images)
    (anvil,) = built.glyphs[len(base) :]
    assert anvil.names == {"en": "anvil", "zh": "铁砧"}
    assert anvil.words["en"] == ("iron block",)


def test_each_glyph_has_the_drawings_of_all_hands_but_the_held_out_ones(built: Atlas) -> None:
    hands = {glyph.names["en"]: [d.hand for d in own] for glyph, own in zip(built.glyphs, built.drawings, strict=True)}
    assert hands == {
        **{glyph.names["en"]: [] for glyph in make_atlas().glyphs},
        "cat": ["twemoji"],
        "dog": ["ph"],  # one clip of a dog shows nothing, the other is too large
        "anvil": ["ph", "ph", "mdi", "openclipart"],
    }
    rows = [drawing.row for own in built.drawings for drawing in own]
    assert rows == sorted(set(rows))
    assert len(built.images) == len(built.glyphs) + len(rows)
    (cat,), anvils = built.drawings[0], built.drawings[-1]
    assert (cat.colours, cat.paintable, cat.ink) == (("green",), True, False)
    assert (anvils[0].colours, anvils[0].paintable, anvils[0].ink) == (("black",), False, True)
    assert anvils[-1].colours == ("red",)
    assert np.array_equal(built.images[len(built.glyphs) - 1], built.images[anvils[0].row])


def test_a_kept_atlas_is_read_again(built: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "load_atlas", None)
    again = wide.load_wide_atlas(tmp_path)
    assert (again.glyphs, again.drawings) == (built.glyphs, built.drawings)


def test_without_the_packages_the_command_that_brings_them_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wide, "PACKAGES", tmp_path / "node_modules")
    monkeypatch.setattr(wide, "load_atlas", lambda folder: make_atlas())
    with pytest.raises(SystemExit, match="npm install"):
        wide.load_wide_atlas(tmp_path)


def test_ink_is_drawn_in_a_colour_that_shows_and_captions_name_it(built: Atlas) -> None:
    renderer, captioner, anvil = Renderer(built), Captioner(built.glyphs), len(built.glyphs) - 1
    thing = Object(anvil, 0.5, 0.5, 0.9)
    seen = set()
    for seed in range(40):
        scene = Scene(seed, (thing,), "plain", "black")
        scene = redraw(scene, built.drawings, np.random.default_rng(seed), 1.0)
        (drawn,) = scene.objects
        assert drawn.drawing is not None
        if drawn.drawing.ink:
            assert drawn.paint not in (None, "black", "brown", "purple", "blue", "grey")
            assert ("en", "anvil", drawn.paint) in captioner.facts(scene)
            seen.add(drawn.paint)
        else:
            assert ("en", "anvil", "red") in captioner.facts(scene)
        assert int(np.ptp(renderer.draw(scene).mean(axis=2))) > 20
    assert len(seen) > 3


def test_a_chance_of_none_leaves_a_scene_as_it_was(built: Atlas) -> None:
    for seed in range(20):
        scene = sample_scene(seed, built.glyphs)
        assert redraw(scene, built.drawings, np.random.default_rng(seed), 0.0) == scene


def test_batches_show_many_hands_and_never_a_thing_that_the_font_lacks_in_the_fonts(built: Atlas) -> None:
    base = make_atlas()
    maker = Maker(32, SIDE, base, built, Tokenizer.from_file(str(STARTER / "tokenizer.json")))
    scenes = [scene for first in range(0, 1280, 32) for scene in maker._scenes(first, np.random.default_rng(first))]
    drawn = [thing for scene in scenes for thing in scene.objects]
    assert {thing.drawing.hand for thing in drawn if thing.drawing} == {"twemoji", "ph", "mdi", "openclipart"}
    assert all(thing.drawing is not None for thing in drawn if thing.glyph >= len(base))
    first, again = maker.make(3), maker.make(3)
    assert first.images.shape == (32, SIDE, SIDE, 3)
    assert np.array_equal(first.images, again.images)
    assert all(np.array_equal(one, other) for one, other in zip(first.tokens, again.tokens, strict=True))


def test_a_held_out_hand_is_tried_by_the_names_of_its_glyphs(built: Atlas) -> None:
    trial = hand_trial(make_atlas(), "openmoji")
    assert trial.texts == {"en": ["cat"], "zh": ["猫"]}
    assert trial.images.shape == (1, SIDE, SIDE, 3)
    assert tuple(trial.images[0, SIDE // 2, SIDE // 2]) == (0, 255, 0)
    assert tuple(trial.images[0, 0, 0]) == (255, 255, 255)


def test_things_are_tried_by_their_names_in_drawings_of_their_own(built: Atlas) -> None:
    trial = thing_trial(built, len(make_atlas()))
    assert trial.texts == {"en": ["anvil"], "zh": ["铁砧"]}
    assert trial.images.shape == (1, SIDE, SIDE, 3)
    assert trial.images.min() < 100


def test_stamps_are_tried_by_their_own_descriptions(tmp_path: Path) -> None:
    for english, chinese in (("A frog", "青蛙"), ("A pig", "猪")):
        write_stamp(tmp_path, english, english, chinese)
    trial = stamp_trial(list_stamps(tmp_path))
    assert [trial.texts[language] for language in LANGUAGES] == [["A frog", "A pig"], ["青蛙", "猪"]]
    assert len(trial.images) == 2
