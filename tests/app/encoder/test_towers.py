"""Leaving out what follows the end of a text changes nothing where the tower is causal, and is not done elsewhere."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch

from app.encoder.towers import CausalTextTower, Tower, make_text_tower

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT: dict[str, Any] = {"context_length": 12, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}


def build(kind: str, **changes: Any) -> Any:
    torch.manual_seed(3)
    made = {"CLIP": open_clip.model.CLIP, "custom": open_clip.model.CustomTextCLIP}[kind]
    return made(16, VISION, {**TEXT, **changes}).eval().requires_grad_(False)


def rows(*texts: list[int]) -> torch.Tensor:
    return torch.tensor([[*text, 49] + [0] * (11 - len(text)) for text in texts])


@pytest.mark.parametrize("kind", ["CLIP", "custom"])
@pytest.mark.parametrize("pooling", [{}, {"pool_type": "eos", "eos_id": 49}])
def test_a_causal_tower_gives_the_same_for_a_cut_text(kind: str, pooling: dict[str, Any]) -> None:
    clip = build(kind, **pooling)
    tower, pool, eos = make_text_tower(clip)
    assert pool == ("eos" if pooling else "argmax")
    assert eos == (49 if pooling else eos)
    tokens = rows([5, 6, 7], [8, 9, 10, 11, 12])
    whole, cut = clip.encode_text(tokens), tower(tokens[:, :6])
    assert whole.shape == (2, 16)
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("changes", [{"no_causal_mask": True}, {"pool_type": "last"}])
def test_other_towers_see_every_text_whole(changes: dict[str, Any]) -> None:
    for kind in ("CLIP", "custom"):
        tower, pool, _ = make_text_tower(build(kind, **changes))
        assert pool == "whole"
        assert isinstance(tower, Tower)


def test_the_towers_are_the_models_own() -> None:
    clip = build("CLIP")
    tower, _, _ = make_text_tower(clip)
    assert isinstance(tower, CausalTextTower)
    tokens = rows([5, 6, 7])
    torch.testing.assert_close(tower(tokens), clip.encode_text(tokens), atol=1e-6, rtol=1e-5)
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(Tower(clip, "encode_image")(pixels), clip.encode_image(pixels))
