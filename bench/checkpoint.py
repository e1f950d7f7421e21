"""Write the open_clip weights as a transformers checkpoint, for peers that read no open_clip files.

Only the names of the tensors change.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file

from bench.weights import SIDE, WORK, ensure_weights

MERGES = 49152 - 256 - 2
ENDS = ("<|startoftext|>", "<|endoftext|>")
NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
PARTS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
BLOCKS = {"visual.transformer.resblocks.": "vision_model", "transformer.resblocks.": "text_model"}
INSIDE = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def make_checkpoint(folder: Path = WORK / "transformers") -> Path:
    """The folder of the checkpoint; made once."""
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        state = dict(
            pair for name, value in load_file(str(ensure_weights())).items() for pair in rename_tensor(name, value)
        )
        contiguous = {name: value.clone().contiguous() for name, value in state.items()}
        save_file(contiguous, str(folder / "model.safetensors"), metadata={"format": "pt"})
        for name, content in {
            **build_tokenizer_files(),
            "preprocessor_config.json": build_preprocessor_config(),
            "config.json": build_model_config(),
        }.items():
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def rename_tensor(name: str, value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensor by its names in transformers, which splits what open_clip joins: query, key and value."""
    if name in NAMES:
        yield NAMES[name], value.T if name in ("visual.proj", "text_projection") else value
        return
    part, _, kind = name.rpartition(".")
    if part in PARTS:
        yield f"{PARTS[part]}.{kind}", value
        return
    for start, model in BLOCKS.items():
        if name.startswith(start):
            number, _, inner = name.removeprefix(start).partition(".")
            layer = f"{model}.encoder.layers.{number}"
            if inner.startswith("attn.in_proj_"):
                for letter, third in zip("qkv", value.chunk(3), strict=True):
                    yield f"{layer}.self_attn.{letter}_proj.{inner.removeprefix('attn.in_proj_')}", third
            else:
                where, _, kind = inner.rpartition(".")
                yield f"{layer}.{INSIDE[where]}.{kind}", value
            return
    raise KeyError(name)


def build_tokenizer_files() -> dict[str, Any]:
    """The tokenizer's files by name, from the list of merges that open_clip carries."""
    listed = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(listed.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(one.split()) for one in merges), *ENDS]
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": ENDS[0],
        "eos_token": ENDS[1],
        "unk_token": ENDS[1],
        "pad_token": ENDS[1],
    }
    return {
        "vocab.json": {word: number for number, word in enumerate(vocabulary)},
        "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n",
        "tokenizer_config.json": settings,
    }


def build_preprocessor_config() -> dict[str, Any]:
    """CLIP's preprocessing, as transformers writes it."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "image_mean": open_clip.OPENAI_DATASET_MEAN,
        "image_std": open_clip.OPENAI_DATASET_STD,
        "resample": 3,
        **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True),
    }


def build_model_config() -> dict[str, Any]:
    """ViT-B/32 in the terms of transformers, with open_clip's plain GELU."""
    shared = {"hidden_act": "gelu", "num_hidden_layers": 12, "projection_dim": 512}
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": 512,
        "text_config": {
            **shared,
            "model_type": "clip_text_model",
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_attention_heads": 8,
            "max_position_embeddings": 77,
            "vocab_size": 49408,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
            "pad_token_id": 49407,
        },
        "vision_config": {
            **shared,
            "model_type": "clip_vision_model",
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "image_size": SIDE,
            "patch_size": 32,
        },
    }
