"""Pictures are decided by scene and size, and look like what the scene says."""

from __future__ import annotations

import numpy as np
import pytest

from training.palette import COLOURS, dominant_colours, draw_colour
from training.render import Renderer
from training.scenes import (
    HELD_OUT_STYLES,
    INKS,
    NAMED_BACKGROUNDS,
    OTHER_BACKGROUNDS,
    STYLES,
    Object,
    Scene,
    sample_scene,
)

from .glyphs import GLYPHS, make_atlas

RENDERER = Renderer(make_atlas())
DISC = Object(0, 0.5, 0.5, 0.8)


def test_same_scene_gives_the_same_pixels() -> None:
    for seed in range(20):
        scene = sample_scene(seed, GLYPHS)
        assert np.array_equal(RENDERER.draw(scene), RENDERER.draw(scene))


@pytest.mark.parametrize("style", [*STYLES, *INKS, *HELD_OUT_STYLES, "outline+faded"])
@pytest.mark.parametrize("side", [112, 224])
def test_every_style_draws_every_size(style: str, side: int) -> None:
    picture = RENDERER.draw(Scene(3, (DISC,), "plain", "white", style), side)
    assert picture.shape == (side, side, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 2


@pytest.mark.parametrize("background", [*NAMED_BACKGROUNDS, *OTHER_BACKGROUNDS])
def test_every_background_draws(background: str) -> None:
    assert RENDERER.draw(Scene(4, (DISC,), background, None), 96).shape == (96, 96, 3)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_background_has_the_colour_it_is_named_for(colour: str) -> None:
    picture = RENDERER.draw(Scene(5, (), "plain", colour))
    solid = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    assert dominant_colours(solid) == (colour,)


@pytest.mark.parametrize("colour", COLOURS)
def test_every_shade_drawn_for_a_name_is_recognised_as_it(colour: str) -> None:
    rng = np.random.default_rng(0)
    shades = np.array([[(*draw_colour(colour, rng), 255) for _ in range(200)]], np.uint8)
    assert dominant_colours(shades)[0] == colour


def test_painting_changes_the_colour_and_nothing_else() -> None:
    plain = RENDERER.draw(Scene(6, (DISC,), "plain", "white"))
    painted = RENDERER.draw(Scene(6, (Object(0, 0.5, 0.5, 0.8, paint="blue"),), "plain", "white"))
    middle = painted[56, 56].astype(int)
    assert plain[56, 56, 0] > 150
    assert middle[2] > middle[0] + 60
    assert np.array_equal(plain[2, 2], painted[2, 2])


def test_an_object_stands_where_the_scene_says() -> None:
    picture = RENDERER.draw(Scene(7, (Object(0, 0.25, 0.75, 0.4),), "plain", "white"))
    dark = np.argwhere(picture[..., 2] < 120)
    assert np.allclose(dark.mean(axis=0) / 112, (0.75, 0.25), atol=0.02)


def test_objects_over_the_edge_are_cut() -> None:
    assert RENDERER.draw(Scene(8, (Object(0, 0.0, 1.0, 0.9),), "plain", "white")).shape == (112, 112, 3)
