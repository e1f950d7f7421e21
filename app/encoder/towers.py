"""The two towers of an open_clip model as torch modules, which are run and converted."""

from __future__ import annotations

from typing import Any, Literal

import open_clip
import torch
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor

Pool = Literal["argmax", "eos", "whole"]


class Tower(torch.nn.Module):
    """Pictures, float [n, 3, size, size], or texts of full length, int64 [n, length], to float [n, d]."""

    def __init__(self, clip: Any, method: Literal["encode_image", "encode_text"]) -> None:
        super().__init__()
        self.clip = clip
        self.method = method

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = getattr(self.clip, self.method)(inputs)
        return features


class CausalTextTower(torch.nn.Module):
    """The text tower of an open_clip model for texts of any length up to the context.

    That of open_clip takes full rows only. Its mask is causal and its vector is read at the end of the text, so the
    padding behind the end cannot change the vector, and may be left out.
    """

    def __init__(self, tower: Any, pool: Pool, eos: int) -> None:
        super().__init__()
        self.tower = tower
        self.pool = pool
        self.eos = eos

    def forward(self, tokens: Tensor) -> Tensor:
        tower, n = self.tower, tokens.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:n].to(dtype)
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:n, :n]))
        features: Tensor = text_global_pool(x, tokens, self.pool, eos_token_id=self.eos)
        projection = tower.text_projection
        if projection is not None:
            features = projection(features) if isinstance(projection, torch.nn.Linear) else features @ projection
        return features


def make_text_tower(clip: Any) -> tuple[torch.nn.Module, Pool, int]:
    """The text tower, the token at which it reads its vector, and the id of the end token (0 if it has no part)."""
    if type(clip) is open_clip.model.CLIP:
        tower, pool, eos = clip, _map_pool(clip.text_pool_type), getattr(clip, "text_eos_id", None)
    elif (text := getattr(clip, "text", None)) is not None and type(text) is TextTransformer:
        tower, pool, eos = text, _map_pool(text.pool_type), text.eos_id
    else:
        return Tower(clip, "encode_text"), "whole", 0
    if pool == "whole" or tower.attn_mask is None or not _has_no_extras(tower):
        return Tower(clip, "encode_text"), "whole", 0
    return CausalTextTower(tower, pool, int(eos or 0)), pool, int(eos or 0)


def _map_pool(name: str) -> Pool:
    return "argmax" if name == "argmax" else "eos" if name == "eos" else "whole"


def _has_no_extras(tower: Any) -> bool:
    """Whether the tower has no further token and no padding mask, which padding could change."""
    return getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
