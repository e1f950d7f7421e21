"""The measure itself, on made-up vectors and glyphs."""

from __future__ import annotations

import numpy as np
import pytest

from training.captions import Captioner
from training.evaluate import make_trial, recall, style_trial
from training.feed import FIRST_SEED as TRAINING_SEEDS
from training.feed import also_true
from training.sprites import LANGUAGES

from .glyphs import make_atlas


def test_recall_counts_queries_whose_own_candidate_is_near_enough() -> None:
    candidates = np.eye(4, dtype=np.float32)
    queries = candidates.copy()
    queries[3] = (1, 1, 0, 0.5)  # its own comes third
    assert recall(queries, candidates, 1) == pytest.approx(0.75)
    assert recall(queries, candidates, 2) == pytest.approx(0.75)
    assert recall(queries, candidates, 3) == pytest.approx(1.0)


def test_each_query_describes_just_one_scene() -> None:
    atlas = make_atlas()
    trial = make_trial(atlas, count=12)
    captioner = Captioner(atlas.glyphs)
    facts = [captioner.facts(scene) for scene in trial.scenes]
    for language in LANGUAGES:
        assert len(set(trial.texts[language])) == 12
        captions = []
        for scene in trial.scenes:
            rng = np.random.default_rng((scene.seed, 4))
            made = {each: captioner.full(scene, each, rng, plain=True) for each in LANGUAGES}
            captions.append(made[language])
        assert [caption.text for caption in captions] == trial.texts[language]
        assert not also_true(captions, facts).any()


def test_evaluation_uses_no_seed_of_training() -> None:
    trial = make_trial(make_atlas(), count=12)
    assert max(scene.seed for scene in trial.scenes) < TRAINING_SEEDS


def test_style_trials_hold_different_glyphs() -> None:
    trial = style_trial(make_atlas(), "pencil", count=5)
    assert len({scene.objects[0].glyph for scene in trial.scenes}) == 5
    assert trial.images.shape == (5, 112, 112, 3)
