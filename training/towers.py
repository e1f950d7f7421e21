"""The forward pass of open_clip's CLIP, written for training on a processor.

The parameters are open_clip's and so is the result (a test compares them). Two things differ: attention
is spelled out as batched products, because the fused kernel's backward pass takes a third of a step on
CPUs; and the last block computes only the one token that is pooled.
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
    """All blocks but the last."""
    for block in list(blocks)[:-1]:
        assert isinstance(block, ResidualAttentionBlock)
        x = x + _attend(block.attn, block.ln_1(x), mask)
        x = x + block.mlp(block.ln_2(x))
    return x


def _pool(blocks: nn.ModuleList, x: Tensor, at: Tensor) -> Tensor:
    """The last block for token `at` [n] of x [n, length, width], which sees itself and those before it,
    or all others where `at` is 0 (the picture's class token): [n, width]."""
    block = blocks[-1]
    assert isinstance(block, ResidualAttentionBlock)
    attention, (n, length, width) = block.attn, x.shape
    weight, bias, heads = attention.in_proj_weight, attention.in_proj_bias, attention.num_heads
    own, normal = x[torch.arange(n), at], block.ln_1(x)
    q = F.linear(normal[torch.arange(n), at], weight[:width], bias[:width]).view(n, heads, 1, -1)
    kv = F.linear(normal, weight[width:], bias[width:])
    k, v = kv.view(n, length, 2, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = (q * (width // heads) ** -0.5) @ k.transpose(2, 3)
    later = (torch.arange(length) > at[:, None]) & (at[:, None] > 0)
    scores = scores.masked_fill(later[:, None, None, :], -torch.inf)
    mixed = (scores.softmax(-1).to(v.dtype) @ v).reshape(n, width)
    own = own + F.linear(mixed, attention.out_proj.weight, attention.out_proj.bias)
    pooled: Tensor = own + block.mlp(block.ln_2(own))
    return pooled


def see(model: open_clip.model.CLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    """Float [n, 3, side, side], normalised -> unit vectors [n, d], and what the patches hold before the
    last block [n, patches, width]."""
    tower = model.visual
    patches = tower.conv1(images).flatten(2).transpose(1, 2)
    first = tower.class_embedding.view(1, 1, -1).expand(len(images), 1, -1)
    x = torch.cat([first.to(patches.dtype), patches], dim=1) + tower.positional_embedding
    x = _transform(tower.transformer.resblocks, tower.ln_pre(x), None)
    pooled = _pool(tower.transformer.resblocks, x, torch.zeros(len(x), dtype=torch.long))
    return F.normalize((tower.ln_post(pooled) @ tower.proj).float(), dim=-1), x[:, 1:]


def encode_images(model: open_clip.model.CLIP, images: Tensor) -> Tensor:
    """Float [n, 3, side, side], normalised -> unit vectors [n, d]."""
    return see(model, images)[0]


def encode_texts(model: open_clip.model.CLIP, tokens: Tensor) -> Tensor:
    """Token ids [n, length], length at most the context, padded with 0 -> unit vectors [n, d]."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = _transform(model.transformer.resblocks, x, model.attn_mask[:length, :length])
    pooled = _pool(model.transformer.resblocks, x, tokens.argmax(dim=-1))
    return F.normalize((model.ln_final(pooled) @ model.text_projection).float(), dim=-1)
