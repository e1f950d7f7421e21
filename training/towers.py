"""The forward pass of open_clip's CLIP, written for training on a processor.

The parameters are open_clip's and so is the result (a test compares them); only attention is spelled out
as batched products, because the fused kernel's backward pass takes a third of a step on CPUs.
"""

from __future__ import annotations

import open_clip.model
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn


def _attend(attention: nn.MultiheadAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """Self-attention over x [n, length, width]; `mask` [length, length] is added to the scores."""
    n, length, width = x.shape
    heads = attention.num_heads
    qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.view(n, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4).reshape(3, n * heads, length, -1)
    scores = torch.bmm(q * (width // heads) ** -0.5, k.transpose(1, 2))
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    mixed = torch.bmm(scores.softmax(-1).to(v.dtype), v)
    mixed = mixed.view(n, heads, length, -1).transpose(1, 2).reshape(n, length, width)
    return F.linear(mixed, attention.out_proj.weight, attention.out_proj.bias)


def _transform(blocks: nn.ModuleList, x: Tensor, mask: Tensor | None) -> Tensor:
    for block in blocks:
        assert isinstance(block, ResidualAttentionBlock)
        x = x + _attend(block.attn, block.ln_1(x), mask)
        x = x + block.mlp(block.ln_2(x))
    return x


def encode_images(model: open_clip.model.CLIP, images: Tensor) -> Tensor:
    """Float [n, 3, side, side], normalised -> unit vectors [n, d]."""
    tower = model.visual
    patches = tower.conv1(images).flatten(2).transpose(1, 2)
    first = tower.class_embedding.view(1, 1, -1).expand(len(images), 1, -1)
    x = torch.cat([first.to(patches.dtype), patches], dim=1) + tower.positional_embedding
    x = _transform(tower.transformer.resblocks, tower.ln_pre(x), None)
    pooled: Tensor = tower.ln_post(x[:, 0]) @ tower.proj
    return F.normalize(pooled.float(), dim=-1)


def encode_texts(model: open_clip.model.CLIP, tokens: Tensor) -> Tensor:
    """Token ids [n, length], length at most the context, padded with 0 -> unit vectors [n, d]."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = _transform(model.transformer.resblocks, x, model.attn_mask[:length, :length])
    last = x[torch.arange(len(tokens)), tokens.argmax(dim=-1)]
    pooled: Tensor = model.ln_final(last) @ model.text_projection
    return F.normalize(pooled.float(), dim=-1)
