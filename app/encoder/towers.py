"""The two towers of an open_clip model as plain modules, the way they are run and converted."""

from __future__ import annotations

from typing import Any, Literal

import open_clip
import torch
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor

Pool = Literal["argmax", "eos", "whole"]


class ImageTower(torch.nn.Module):
    """float [n, 3, size, size] to float [n, d]."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.clip.encode_image(pixels)
        return features


class TextTower(torch.nn.Module):
    """int64 [n, length] to float [n, d]; every text at its full length."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.clip.encode_text(tokens)
        return features


class CausalTextTower(torch.nn.Module):
    """The text tower of open_clip's CLIP for any length up to the context.

    `CLIP.encode_text` takes full rows only. Its mask is causal and its answer is read at the end of the
    text, so the padding that follows has no part in it: leaving it out is exact.
    """

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor) -> Tensor:
        clip, n = self.clip, tokens.shape[1]
        dtype = clip.transformer.get_cast_dtype()
        x = clip.token_embedding(tokens).to(dtype) + clip.positional_embedding[:n].to(dtype)
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:n, :n]))
        x = text_global_pool(x, tokens, clip.text_pool_type, eos_token_id=getattr(clip, "text_eos_id", None))
        projection = clip.text_projection
        features: Tensor = x
        if projection is not None:
            features = projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection
        return features


def text_tower(clip: Any) -> tuple[torch.nn.Module, Pool, int]:
    """The text tower, where it reads its answer, and the id of that end (0 when it does not matter)."""
    if type(clip) is open_clip.model.CLIP and clip.attn_mask is not None:
        pool = _pool(clip.text_pool_type)
        if pool != "whole":
            return CausalTextTower(clip), pool, int(getattr(clip, "text_eos_id", None) or 0)
    text = getattr(clip, "text", None)
    if text is not None and type(text) is TextTransformer and _ends(text):
        return TextTower(clip), _pool(text.pool_type), int(getattr(text, "eos_id", None) or 0)
    return TextTower(clip), "whole", 0


def _pool(name: str) -> Pool:
    return "argmax" if name == "argmax" else "eos" if name == "eos" else "whole"


def _ends(text: TextTransformer) -> bool:
    """Whether nothing after the end of a text can reach the answer."""
    return text.attn_mask is not None and text.cls_emb is None and not text.use_pad_mask
