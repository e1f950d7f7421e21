"""How a run ends, and how it goes on: the schedule, checkpoints, and the start from the shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.model import load
from training.towers import encode_texts
from training.train import Plan, State, begin_with_starter, blend_with_shipped, rate_at, start, teach_guide
from training.vocabulary import tokenize

from .glyphs import GLYPHS


@pytest.fixture(scope="module")
def begun() -> State:
    _, tokenizer = load()
    state = start(tokenizer.get_vocab_size(), len(GLYPHS), 1e-3, threads=1)
    begin_with_starter(state)
    teach_guide(state, GLYPHS, tokenizer)
    return state


def test_a_plan_ends_by_the_clock_or_by_the_pictures() -> None:
    by_clock, by_pictures = Plan(600, None, 64, 1e-3, 60), Plan(600, 1000, 64, 1e-3, 60)
    assert by_clock.done(seen=900, seconds=150) == 0.25
    assert by_pictures.done(seen=250, seconds=5000) == 0.25
    assert by_pictures.done(seen=1024, seconds=0) >= 1


def test_the_rate_rises_then_stays_then_falls_to_nothing() -> None:
    assert rate_at(0, 0.0) < rate_at(20, 0.1) < rate_at(1000, 0.4) == 1.0
    assert rate_at(1000, 0.5) == 1.0
    assert rate_at(1000, 0.75) == pytest.approx(0.5)
    assert rate_at(1000, 1.0) == 0.0


def test_training_begins_with_the_shipped_weights_and_their_names_of_things(begun: State) -> None:
    shipped, tokenizer = load()
    for name, value in shipped.state_dict().items():
        assert torch.equal(begun.model.state_dict()[name], value), name
        assert torch.equal(begun.average[name], value), name
    names = [glyph.names["en"] for glyph in GLYPHS]
    with torch.no_grad():
        said = encode_texts(shipped, torch.from_numpy(tokenize(tokenizer, names)))
        nearest = (said @ begun.guide.prototypes.T).argmax(dim=1)
    assert nearest.tolist() == list(range(len(GLYPHS)))


def test_weights_are_blended_with_those_they_began_with(begun: State) -> None:
    trained = {name: value + 1 for name, value in begun.average.items()}
    assert blend_with_shipped(trained, 1.0) is trained
    blended = blend_with_shipped(trained, 0.25)
    assert blended.keys() == trained.keys()
    for name, value in begun.average.items():
        torch.testing.assert_close(blended[name], value + 0.25)


def test_a_checkpoint_gives_everything_back(begun: State, tmp_path: Path) -> None:
    begun.step, begun.seen = 7, 448
    begun.save(tmp_path / "checkpoint.pt")
    words = begun.model.token_embedding.num_embeddings
    same = start(words, len(GLYPHS), 1e-3, threads=1)
    assert same.load(tmp_path / "checkpoint.pt")
    assert (same.step, same.seen) == (7, 448)
    assert torch.equal(same.guide.prototypes, begun.guide.prototypes)
    assert torch.equal(same.model.visual.proj, begun.model.visual.proj)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_other_things_keeps_the_model_and_leaves_the_guide(begun: State, tmp_path: Path) -> None:
    begun.save(tmp_path / "checkpoint.pt")
    other = start(begun.model.token_embedding.num_embeddings, len(GLYPHS) + 1, 1e-3, threads=1)
    before = other.guide.prototypes.clone()
    assert not other.load(tmp_path / "checkpoint.pt")
    assert torch.equal(other.model.visual.proj, begun.model.visual.proj)
    assert torch.equal(other.guide.prototypes, before)
