"""Make one small model of each family that `sightline models` names, with seeded random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

# Our name, open_clip's architecture, and what is made smaller; towers, pooling and tokenizers stay of their kind.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViT-B-32", {"vision_cfg": {"layers": 2}, "text_cfg": {"layers": 2}}),
    "ViT-L": ("ViT-L-14", {"vision_cfg": {"layers": 1}, "text_cfg": {"layers": 1}}),
    "MobileCLIP2": ("MobileCLIP2-S0", {"text_cfg": {"layers": 2}}),
    "SigLIP2": ("ViT-B-32-SigLIP2-256", {"text_cfg": {"layers": 2, "vocab_size": 600}}),
    "PE-Core": ("PE-Core-T-16-384", {"text_cfg": {"layers": 2}}),
    "XLM-R": ("xlm-roberta-base-ViT-B-32", {"vision_cfg": {"layers": 2}}),
}
# What the published weights of the family say about their pictures, where open_clip's default is not it.
PREPROCESS: dict[str, dict[str, Any]] = {
    "MobileCLIP2": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"},
    "SigLIP2": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    "PE-Core": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"},
}


def make_folder(family: str, folder: Path) -> str:
    """Write a folder like one of the hub; returns the model's name."""
    architecture, smaller = FAMILIES[family]
    config = dict(open_clip.get_model_config(architecture) or {})
    for part, changes in smaller.items():
        config[part] = {**config[part], **changes}
    folder.mkdir()
    if "hf_tokenizer_name" in config["text_cfg"]:
        write_tokenizer(folder, "SigLIP" in family)
        config["text_cfg"]["hf_tokenizer_name"] = str(folder)
    if "hf_model_name" in config["text_cfg"]:
        _write_roberta(folder)
        config["text_cfg"] |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    described = {"model_cfg": config, "preprocess_cfg": PREPROCESS.get(family, {})}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    torch.manual_seed(7)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    state = {name: enlarge_embeddings(name, value) for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def enlarge_embeddings(name: str, value: torch.Tensor) -> torch.Tensor:
    """Enlarge the embeddings. With plain random weights, all inputs map to nearly the same vector."""
    louder = name.endswith(("token_embedding.weight", "word_embeddings.weight", "positional_embedding"))
    return (value * 20 if louder else value).contiguous().clone()


def write_tokenizer(folder: Path, siglip: bool) -> None:
    """Write a small tokenizer in the hub's form: bytes as tokens, padded and ended as the family does."""
    special = ["<pad>", "</s>", "<unk>"] if siglip else ["<s>", "<pad>", "</s>", "<unk>"]
    letters = [f"<0x{byte:02X}>" for byte in range(256)] + [chr(code) for code in range(33, 127)] + ["▁"]
    words = {token: n for n, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    single = "$A </s>" if siglip else "<s> $A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(token, words[token]) for token in special if token in single]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


def _write_roberta(folder: Path) -> None:
    said = {
        "model_type": "xlm-roberta",
        "vocab_size": 600,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 100,
        "pad_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(said))
