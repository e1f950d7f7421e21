"""Captions are true of their scenes, and the facts tell which other scenes they are true of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.captions import Captioner
from training.feed import also_true
from training.scenes import Object, Scene, sample_scene
from training.sprites import LANGUAGES

from .glyphs import GLYPHS

CAPTIONER = Captioner(GLYPHS)
CAT_LEFT_OF_CAKE = Scene(1, (Object(0, 0.25, 0.5, 0.4), Object(3, 0.75, 0.5, 0.4)), "plain", "blue")


def _texts(scene: Scene, language: str, count: int = 200) -> set[str]:
    return {CAPTIONER.full(scene, language, np.random.default_rng(i), plain=True).text for i in range(count)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_caption_is_true_of_its_own_scene(language: str) -> None:
    for seed in range(400):
        scene, rng = sample_scene(seed, GLYPHS), np.random.default_rng(seed)
        facts = CAPTIONER.facts(scene)
        for caption in (CAPTIONER.full(scene, language, rng), CAPTIONER.part(scene, language, rng)):
            assert caption.text
            assert caption.facts <= facts


def test_relations_are_told_from_both_ends_and_never_wrongly() -> None:
    english = " | ".join(_texts(CAT_LEFT_OF_CAKE, "en"))
    assert "cat to the left of" in english
    assert "birthday cake to the right of" in english
    assert "cat to the right of" not in english
    assert "above" not in english
    chinese = " | ".join(_texts(CAT_LEFT_OF_CAKE, "zh"))
    assert "猫在生日蛋糕左边" in chinese
    assert "猫在生日蛋糕右边" not in chinese


def test_background_is_named_in_some_captions_and_only_as_it_is() -> None:
    texts = _texts(CAT_LEFT_OF_CAKE, "en")
    assert any("blue" in text for text in texts)
    assert not all("blue" in text for text in texts)
    assert not any("red" in text for text in texts)


def test_styles_without_colour_get_no_colour_words() -> None:
    scene = replace(CAT_LEFT_OF_CAKE, style="grey", objects=(Object(2, 0.5, 0.5, 0.8, paint="green"),))
    for language, words in (("en", ("green", "blue", "red")), ("zh", ("绿", "蓝", "红"))):
        assert not [text for text in _texts(scene, language) if any(word in text for word in words)]


def test_articles_agree_with_the_word() -> None:
    texts = _texts(Scene(1, (Object(4, 0.5, 0.5, 0.8),), "plain", None), "en")
    assert "an owl" in texts
    assert "a owl" not in texts
    assert "a grapes" not in _texts(Scene(1, (Object(6, 0.5, 0.5, 0.8),), "plain", None), "en")


def test_facts_reveal_captions_true_of_other_scenes() -> None:
    alone = Scene(2, (Object(0, 0.5, 0.5, 0.8),), "plain", None)
    rng = np.random.default_rng(0)
    captions = [CAPTIONER.full(CAT_LEFT_OF_CAKE, "en", rng, plain=True), CAPTIONER.full(alone, "en", rng, plain=True)]
    also = also_true(captions, [CAPTIONER.facts(CAT_LEFT_OF_CAKE), CAPTIONER.facts(alone)])
    assert also.tolist() == [[False, False], [True, False]]


def test_tags_hold_names_of_every_object_in_both_languages() -> None:
    assert {"cat", "猫", "birthday cake", "生日蛋糕", "cake"} <= set(CAPTIONER.tags(CAT_LEFT_OF_CAKE))
