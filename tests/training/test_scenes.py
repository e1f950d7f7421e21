"""Scenes are decided by their seed alone."""

from __future__ import annotations

from training.scenes import HELD_OUT_STYLES, STYLES, sample_scene, vary_scene

from .glyphs import GLYPHS


def test_same_seed_gives_the_same_scene() -> None:
    assert [sample_scene(s, GLYPHS) for s in range(20)] == [sample_scene(s, GLYPHS) for s in range(20)]


def test_scenes_hold_one_to_three_different_glyphs() -> None:
    counts = set()
    for seed in range(200):
        glyphs = [thing.glyph for thing in sample_scene(seed, GLYPHS).objects]
        assert len(set(glyphs)) == len(glyphs)
        counts.add(len(glyphs))
    assert counts == {1, 2, 3}


def test_objects_of_one_scene_do_not_cover_each_other() -> None:
    for seed in range(300):
        things = sample_scene(seed, GLYPHS).objects
        for i, first in enumerate(things):
            for second in things[i + 1 :]:
                apart = ((first.x - second.x) ** 2 + (first.y - second.y) ** 2) ** 0.5
                assert apart > 0.6 * (first.size + second.size) / 2


def test_training_never_draws_a_held_out_style() -> None:
    assert not set(HELD_OUT_STYLES) & set(STYLES)
    assert not {sample_scene(s, GLYPHS, styled=1).style for s in range(300)} & set(HELD_OUT_STYLES)


def test_only_paintable_glyphs_are_painted() -> None:
    for seed in range(300):
        for thing in sample_scene(seed, GLYPHS).objects:
            assert thing.paint is None or GLYPHS[thing.glyph].paintable


def test_a_sibling_keeps_the_style_and_changes_something() -> None:
    changed = 0
    for seed in range(100):
        scene = sample_scene(seed, GLYPHS)
        sibling = vary_scene(scene, 10_000 + seed, GLYPHS)
        assert sibling.style == scene.style
        assert len(sibling.objects) == len(scene.objects)
        changed += (sibling.objects, sibling.background, sibling.colour) != (
            scene.objects,
            scene.background,
            scene.colour,
        )
    assert changed > 80


def test_choices_limit_the_glyphs_and_count_their_number() -> None:
    scene = sample_scene(5, GLYPHS, count=2, choices=[1, 4])
    assert sorted(thing.glyph for thing in scene.objects) == [1, 4]
